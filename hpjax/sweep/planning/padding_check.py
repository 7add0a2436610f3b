"""Checks padded programs before a run trains with them: one step must give what the groups' own programs give."""

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.fallback import warn_once
from hpjax.core.hparams import Hparams, with_fold
from hpjax.core.keys import lane_key
from hpjax.core.program import Program
from hpjax.engine.compile import FUNCTIONS
from hpjax.engine.constants import jitted
from hpjax.engine.device_errors import LONGEST, GroupFailedError, OutOfMemoryError, failing_alone
from hpjax.engine.distributed import from_each
from hpjax.engine.lane import StepKeys, advance_lane, counted_steps, evaluate_lane, start_lane
from hpjax.engine.tracing import kinds_of, lane_hparams
from hpjax.sweep.planning.arrange import rearranged
from hpjax.sweep.planning.plan import Group, Padding, Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.planning.rounding import SHARES, Step, beyond_rounding, off_by
from hpjax.sweep.spec import SweepSpec

# What was found of each padded program, empty where it computes the same.
_found: WeakKeyDictionary[Program, str] = WeakKeyDictionary()


def checked(spec: SweepSpec, plan: Plan) -> Plan:
    """Returns the plan without the padded programs that differ from the groups' own ones, and warns of each.

    Each takes one step of the first trial of one of its groups, and evaluates it; so does that group's own program.
    With several hosts all must call it.

    Args:
      spec: the sweep.
      plan: the plan of its first round.
    """
    if unknown := [each for each in plan.paddings if each.padded.program not in _found]:
        programs = GroupPrograms.of(spec)
        for padding in unknown:
            said = from_each(_difference(programs, plan, padding), LONGEST)
            _found[padding.padded.program] = next(filter(None, said), "")
    kept, hints = list[Padding](), list[str]()
    for padding in plan.paddings:
        if difference := _found[padding.padded.program]:
            own = ", ".join(map(str, sorted(padding.groups)))
            hints.append(f"groups {own} have programs of their own, since {difference}")
            warn_once(hints[-1])
        else:
            kept.append(padding)
    if not hints:
        return plan
    return rearranged(spec, replace(plan, paddings=tuple(kept), hints=(*plan.hints, *hints)))


def _difference(programs: GroupPrograms, plan: Plan, padding: Padding) -> str:
    """Returns what is wrong with a padded program, empty where nothing is."""
    group = _most_padded(plan, padding)
    shapes, width = plan.shapes[group.number], plan.arrangements[group.number].width
    off = off_by(shapes, programs.mesh.devices.flat[0].platform)
    h = programs.hparams(plan, group, [plan.points[group.trials[0]]])
    # Both compile at once: the padded program in the background, the other one here.
    programs.compile(plan, group.number, h).prepare(*FUNCTIONS)
    try:
        with failing_alone(group.number, width, compiling=True):
            own = _of_own(programs, plan, group, off)
        found = _of_padded(programs, plan, group)
    except (GroupFailedError, OutOfMemoryError) as error:
        # Where the group's own program fails, it fails again when it trains, and the other groups train.
        return f"the check of a padded one fails: {getattr(error, 'reason', error)}"
    return next((f"a step of a padded one {each}" for each in beyond_rounding(shapes, own, found, off)), "")


def _most_padded(plan: Plan, padding: Padding) -> Group:
    """Returns the group of which a check tells most: that with padding along most axes of the state.

    What is wrong about an axis shows only where that has padding, and most where most of it is padding: of several
    groups it is the first, which computes least.
    """

    def axes(number: int) -> int:
        pairs = zip(plan.shapes[number].state, padding.padded.shapes.state, strict=True)
        return sum(size < whole for own, large in pairs for size, whole in zip(own.shape, large.shape, strict=True))

    return plan.groups[max(padding.groups, key=axes)]


def _of_own(programs: GroupPrograms, plan: Plan, group: Group, off: float) -> list[Step]:
    """Returns what a step of the first trial of a group gives by its own program, from each state of ``SHARES``.

    Args:
      programs: the programs of the sweep.
      plan: the plan.
      group: the group.
      off: by how much of their size the numbers of these states are off.
    """
    spec, shapes, trial = programs.spec, plan.shapes[group.number], group.trials[0]
    point = plan.points[trial]
    h = lane_hparams(kinds_of(spec.space), point, point.keys() - group.static.keys())
    h = h if spec.folds is None else with_fold(h, np.int32(0), spec.folds)
    train, _ = programs.splits
    batches = train if spec.stream is None else jax.tree.map(lambda x: x[0], programs.sample_block())

    @jitted
    def stepped(h: Hparams, batches: Any, splits: Any, off: Any) -> Step:
        key, program = lane_key(spec.seed, 0, trial if spec.independent else None), spec.program
        first = start_lane(program, shapes, key, h)
        first = first._replace(state=tuple(_shifted(x, off) for x in first.state))
        lane = advance_lane(program, shapes, StepKeys.of(key), jnp.int32(0), first, batches, h)
        lane = counted_steps(lane, jnp.int32(1))
        # Its last step, so that what the program does at the end is compared, too.
        last, evaluation = evaluate_lane(program, shapes, key, lane, jnp.int32(1), splits, h)
        return Step(evaluation.metrics, first.state, last.state)

    on_one = jax.tree.map(lambda x: x.addressable_data(0), (batches, programs.splits))
    return [jax.device_get(stepped(h, *on_one, share * off)) for share in SHARES]


def _shifted(x: jax.Array, off: Any) -> jax.Array:
    """Returns an array with its numbers off by up to a share of their size, each by another."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    shares: jax.Array = off * jnp.cos(jnp.arange(x.size, dtype=float))
    return x * (1 + shares).astype(x.dtype).reshape(x.shape)


def _of_padded(programs: GroupPrograms, plan: Plan, group: Group) -> Step:
    """Returns what a step of the first trial of a group gives by the padded program."""
    number, width = group.number, plan.arrangements[group.number].width
    table = programs.lane_table(plan, group, group.trials[:1], dict(enumerate(plan.points)))
    table = jax.tree.map(lambda array: array[:1], table)._replace(budget=np.array([1], np.int32))
    with failing_alone(number, width, compiling=True):
        compiled = programs.compile(plan, number, table.h).wait()
        lanes, block = programs.lanes(plan, number, compiled, table), programs.sample_block()
    states, metrics = [], dict[str, Any]()
    for stop in (0, 1):
        with failing_alone(number, width, compiling=True):
            lanes.dispatch(stop, stop == 1, block)
            lanes.wait()
        metrics = lanes.collect().metrics
        states.append(tuple(x[0] for x in lanes.gathered().state))
    return Step({name: value[0] for name, value in metrics.items()}, *states)
