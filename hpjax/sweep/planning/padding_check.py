"""Checks padded programs before a run trains with them: one step must give what the groups' own programs give."""

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.hparams import Hparams, with_fold
from hpjax.core.keys import lane_key
from hpjax.core.program import Program
from hpjax.engine.compile import FUNCTIONS
from hpjax.engine.constants import jitted
from hpjax.engine.distributed import several
from hpjax.engine.lane import advance_lane, evaluate_lane, start_lane
from hpjax.engine.tracing import kinds_of, lane_hparams
from hpjax.sweep.planning.arrange import rearranged
from hpjax.sweep.planning.contender import FOREVER
from hpjax.sweep.planning.plan import Group, Padding, Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.spec import SweepSpec

# Metrics may differ by so much, relative to their size where that is more than 1: far more than by rounding, far less
# than where padding counted as if it were part of the model.
TOLERANCE = 1e-3

# What was found of each padded program, empty where it computes the same.
_found: WeakKeyDictionary[Program, str] = WeakKeyDictionary()


def checked(spec: SweepSpec, plan: Plan) -> Plan:
    """Returns the plan without the padded programs that differ from the groups' own ones, with a hint on each.

    Each takes one step of the first trial of its smallest group, and evaluates it; so does that group's own program.

    Args:
      spec: the sweep.
      plan: the plan of its first round.
    """
    if not plan.paddings or several():
        return plan
    if unknown := [each for each in plan.paddings if each.padded.program not in _found]:
        programs = GroupPrograms.of(spec)
        for padding in unknown:
            _found[padding.padded.program] = _difference(programs, plan, plan.groups[padding.groups[0]])
    kept, hints = list[Padding](), list[str]()
    for padding in plan.paddings:
        if difference := _found[padding.padded.program]:
            own = ", ".join(map(str, sorted(padding.groups)))
            hints.append(f"groups {own} have programs of their own, since a step of a padded one {difference}")
        else:
            kept.append(padding)
    if not hints:
        return plan
    return rearranged(spec, replace(plan, paddings=tuple(kept), hints=(*plan.hints, *hints)))


def _difference(programs: GroupPrograms, plan: Plan, group: Group) -> str:
    """Returns what differs after a step of the first trial of a group, empty where nothing does."""
    table = programs.lane_table(plan, group, group.trials[:1], dict(enumerate(plan.points)))
    table = jax.tree.map(lambda array: array[:1], table)._replace(budget=np.array([FOREVER], np.int32))
    compiled = programs.compile(plan, group.number, table.h)
    try:
        compiled.prepare(*FUNCTIONS)  # in the background, while the group's own program compiles here
        own = _of_own(programs, plan, group)
        lanes = programs.lanes(plan, group.number, compiled.wait(), table)
        found = lanes.advance(1, True, programs.blank_block()).metrics
    except Exception:  # of the user's functions or of XLA: the group fails when it trains, and its error is told then
        return ""
    for name, value in own.items():
        padded = float(found[name][0])
        apart = abs(padded - value)
        if apart > TOLERANCE * max(1.0, abs(value)) or np.isnan(padded) != np.isnan(value):
            return f"gives {name}={padded:.6g} in place of {value:.6g}"
    return ""


def _of_own(programs: GroupPrograms, plan: Plan, group: Group) -> dict[str, float]:
    """Returns the metrics after a step of the first trial of a group by its own program, as a lane alone."""
    spec, shapes, trial = programs.spec, plan.shapes[group.number], group.trials[0]
    point = plan.points[trial]
    h = lane_hparams(kinds_of(spec.space), point, point.keys() - group.static.keys())
    h = h if spec.folds is None else with_fold(h, np.int32(0), spec.folds)
    train, valid = programs.splits
    batches = train if spec.stream is None else jax.tree.map(lambda x: x[0], programs.blank_block())

    @jitted
    def stepped(h: Hparams, batches: Any, valid: Any) -> Any:
        key, program = lane_key(spec.seed, 0, trial if spec.independent else None), spec.program
        lane = start_lane(program, shapes, key, h)
        lane = advance_lane(program, shapes, key, jnp.int32(0), lane, batches, h)
        return evaluate_lane(program, shapes, key, lane, jnp.int32(FOREVER), valid, h)[1].metrics

    on_one = jax.tree.map(lambda x: x.addressable_data(0), (batches, valid))
    return {name: float(value) for name, value in stepped(h, *on_one).items()}
