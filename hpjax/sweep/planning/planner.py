"""Plans a sweep: asks the sampler for points, finds out what is traced, groups, and arranges the groups on devices."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from hpjax.core.domains import Selection
from hpjax.core.errors import InputError, ProgramError, UnknownHyperparameterError, notes_of
from hpjax.core.format import size
from hpjax.core.hparams import Hparams, reading, unknown
from hpjax.core.objective import Objective
from hpjax.core.space import Point, Space
from hpjax.data.stream import Stream
from hpjax.engine import sharding
from hpjax.engine.partition import state_specs
from hpjax.engine.probe import DERIVED
from hpjax.engine.settings import check_settings
from hpjax.engine.tracing import Verdict, failure_of, judge, with_user_lines
from hpjax.samplers import Observation, Sampler
from hpjax.schedulers import Scheduler
from hpjax.sweep.planning import cost, value_checks
from hpjax.sweep.planning.advice import hints
from hpjax.sweep.planning.arrange import arranged
from hpjax.sweep.planning.grouping import Grouping, check_test, grouped, lengths_of, takeovers_of, tracer_of
from hpjax.sweep.planning.pace import pace
from hpjax.sweep.planning.padding import paddings_of
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.planning.programs import check_groups
from hpjax.sweep.spec import SweepSpec


def plan_first_round(spec: SweepSpec) -> Plan:
    """Plans the first round of a sweep; traces its programs abstractly, and compiles nothing.

    Raises:
      InputError, ProgramError, UnknownHyperparameterError: the sweep cannot run.
    """
    return _without_frames(spec.space, lambda: _first(spec))


def plan_next_round(spec: SweepSpec, plan: Plan, history: Sequence[Observation]) -> Plan:
    """Plans the next round of a sweep.

    Args:
      spec: the sweep.
      plan: the plan of the rounds so far.
      history: what these rounds found, an observation for each of their trials.

    Raises:
      InputError, ProgramError, UnknownHyperparameterError: the sweep cannot go on.
    """
    return _without_frames(spec.space, lambda: _next(spec, plan, history))


def check_point(spec: SweepSpec, plan: Plan, trial: int, point: Point) -> None:
    """Validates the hyperparameters with which a running trial is to go on.

    Raises:
      InputError: a number is out of its range, or changes how long the trial takes.
    """
    (length,) = lengths_of(spec.program, spec.folds, [point])
    if length != plan.lengths[trial]:
        allowed = "decides how long a trial takes, and cannot change while it runs"
        remedy = "Keep the hyperparameters that steps, batch_size and eval_every depend on."
        raise InputError("Scheduler.replace", point, allowed, remedy)
    given = plan.shapes[next(g.number for g in plan.groups if trial in g.trials)]
    for name, check in given.checks:
        if name != DERIVED:
            check.of(point[name], length.steps, name)


def _without_frames(space: Space, make: Callable[[], Plan]) -> Plan:
    """Returns the plan that a function makes.

    Its errors come without the frames of JAX, in which users get lost, and without JAX's note that tells of these. An
    error about an unknown hyperparameter names the function and the line that read it, as a ``ProgramError`` does.
    """
    try:
        return make()
    except UnknownHyperparameterError as error:
        raise UnknownHyperparameterError(failure_of(error, _in_order(space, error))) from None
    except (InputError, ProgramError) as error:
        error.__notes__ = notes_of(error)
        raise error.with_traceback(None) from None


def _in_order(space: Space, error: UnknownHyperparameterError) -> str:
    """Returns the message of an error, which lists the trial's names in the order of the space.

    Within a trace ``h`` has its static names first.
    """
    name, h = error.name, error.obj
    if name is None or not isinstance(h, Hparams):  # the user's own code raised it
        return str(error)
    return unknown(name, sorted(h, key=(*space.names, *h).index))


def _first(spec: SweepSpec) -> Plan:
    """Returns the plan of the first round."""
    check_settings()
    devices = sharding.devices(spec.devices)
    if spec.spread == "pmap" and jax.process_count() > 1:
        allowed = f"is for one host, and there are {jax.process_count()}"
        raise InputError("Sweep.spread", spec.spread, allowed, 'Write spread="shard_map".')
    rounds = _rounds(spec)
    spec.artifacts.check(sum(rounds))
    points = _asked(spec.sampler, spec.space, [], rounds[0], spec.seed)
    with reading() as read_by_length:
        lengths = lengths_of(spec.program, spec.folds, points)
    # Of each alternative the first trial.
    firsts = {spec.space.branch_of(points[trial]): trial for trial in reversed(range(len(points)))}.values()
    verdicts, traced = judge(tracer_of(spec), spec.space, {trial: points[trial] for trial in sorted(firsts)})
    found = grouped(spec, points, lengths, verdicts, traced=traced)
    read = set(read_by_length).union(*(shapes.reads for shapes in found.shapes))
    if spec.folds is not None and not all("fold" in shapes.reads for shapes in found.shapes):
        raise InputError(
            "Sweep.folds", spec.folds, "needs a program that reads h.fold", "Leave folds out, or use hpx.supervised."
        )
    check_test(spec, found, 0)
    unseen = _check_numbers(spec.objective, spec.splits, found, 0)
    _check_scheduler(spec.scheduler, rounds, found, 0)
    paddings, unpadded = paddings_of(spec, found, devices[0].platform, len(devices))
    plan = Plan(
        rounds=rounds,
        replicates=spec.lanes_a_trial,
        folds=spec.folds,
        groups=found.groups,
        shapes=found.shapes,
        verdicts=tuple(_explained(found, read, devices, spec.devices_per_lane).values()),
        domains={name: " or ".join(dict.fromkeys(map(str, spec.space.domains(name)))) for name in spec.space.names},
        arrangements=(),
        offloads=False,
        devices=(len(devices), devices[0].device_kind),
        devices_per_lane=spec.devices_per_lane,
        partitions=_partitions(spec, found),
        gathers=not callable(spec.partition),
        points=found.points,
        lengths=found.lengths,
        segment=spec.segment,
        data_bytes=_data_bytes(spec.splits, spec.folds, spec.stream)
        + max(shapes.constant_bytes for shapes in found.shapes),
        objective=str(spec.objective),
        randomness=spec.randomness,
        seed=spec.seed,
        shard=spec.shard,
        hints=(*hints(spec, devices, found, read, unseen), *unpadded),
        stream="" if spec.stream is None else f"{spec.stream}, {size(spec.stream.block_bytes)} a block",
        block=None if spec.stream is None else spec.stream.block,
        takeovers=takeovers_of(spec, found),
        paddings=tuple(paddings),
        pace=pace((len(devices), devices[0].device_kind)),
    )
    plan = arranged(spec, plan)
    check_groups(spec, plan, 0)
    return plan


def _next(spec: SweepSpec, plan: Plan, history: Sequence[Observation]) -> Plan:
    """Returns the plan with one round more."""
    first = len(plan.points)
    new = _asked(spec.sampler, spec.space, history, plan.rounds[plan.round_of(first)], spec.seed)
    lengths = [*plan.lengths, *lengths_of(spec.program, spec.folds, new)]
    before = {verdict.name: verdict for verdict in plan.verdicts}
    found = grouped(spec, [*plan.points, *new], lengths, before, plan.shapes)
    for name, verdict in found.verdicts.items():
        if verdict.traced is not before[name].traced and any(name in point for point in plan.points):
            allowed = f"was traced in earlier rounds, and cannot be now: {verdict.reason}"
            raise InputError(f"Space.{name}", new[0].get(name), allowed, "Write static=True for its domain.")
    check_test(spec, found, len(plan.shapes))
    _check_numbers(spec.objective, spec.splits, found, first)
    _check_scheduler(spec.scheduler, plan.rounds, found, first)
    plan = replace(
        plan,
        groups=found.groups,
        shapes=found.shapes,
        partitions=_partitions(spec, found),
        verdicts=tuple(found.verdicts.values()),
        points=found.points,
        lengths=found.lengths,
        takeovers=takeovers_of(spec, found, plan.takeovers),
    )
    known, plan = len(plan.arrangements), arranged(spec, plan)
    check_groups(spec, plan, known)
    return plan


def _partitions(spec: SweepSpec, found: Grouping) -> tuple[tuple[PartitionSpec, ...], ...]:
    """Returns per group how the state of a lane is split over the devices that it spans."""
    try:
        return tuple(state_specs(spec.partition, shapes, spec.devices_per_lane) for shapes in found.shapes)
    except Exception as error:  # whatever the user's function raises
        raise with_user_lines(error) from None


def _rounds(spec: SweepSpec) -> tuple[int, ...]:
    """Returns how many trials each round has, all together at most as many as a finite space has points.

    Under a scheduler the number stays as it is, since brackets and populations are made of so many trials.

    Raises:
      InputError: ``trials``, ``rounds`` and ``shard`` do not fit together, or with the points of the sampler.
    """
    points, name = spec.sampler.size(spec.space), type(spec.sampler).__name__
    if points is not None and spec.trials is not None and spec.trials != points:
        allowed = f"must be {points}, the number of points of {name}"
        raise InputError("Sweep.trials", spec.trials, allowed, "Leave trials out.")
    wanted = points if spec.trials is None else spec.trials
    if wanted is None:
        raise InputError("Sweep.trials", None, f"must be given, since {name} has no end", "Write trials=64.")
    asked = wanted
    if points is None and spec.scheduler is None and spec.space.size is not None:
        wanted = min(wanted, spec.space.size)
    if spec.shard is not None and spec.shard.of > wanted:
        allowed = f"must be one of at most {wanted} shards, the number of trials"
        raise InputError("Sweep.shard", str(spec.shard), allowed, f"Write shard=(1, {wanted}), or fewer shards.")
    if isinstance(spec.rounds, tuple):
        if sum(spec.rounds) not in (asked, wanted):
            allowed, remedy = f"must add up to {asked}, the trials", f"Write trials={sum(spec.rounds)}."
            raise InputError("Sweep.rounds", spec.rounds, allowed, remedy)
        begins = (sum(spec.rounds[:number]) for number in range(len(spec.rounds)))
        return tuple(min(n, wanted - at) for n, at in zip(spec.rounds, begins, strict=True) if at < wanted)
    if spec.rounds > asked:
        allowed = f"must be at most {asked}, the trials"
        raise InputError("Sweep.rounds", spec.rounds, allowed, f"Write rounds={asked}, or fewer.")
    rounds = min(spec.rounds, wanted)
    share, rest = divmod(wanted, rounds)
    return (share + 1,) * rest + (share,) * (rounds - rest)


def _asked(sampler: Sampler, space: Space, history: Sequence[Observation], count: int, seed: int) -> list[Point]:
    """Returns the points of one round, for which it asks the sampler.

    Raises:
      InputError: the sampler gives another number of them, or one that is not in the space.
    """
    points = sampler.ask(space, history, count, seed)
    if len(points) != count:
        name = type(sampler).__name__
        remedy = f"Return a list of {count} points from {name}.propose."
        raise InputError("Sweep.sampler", name, f"gave {len(points)} points for {count}", remedy)
    return list(map(space.canonical, points))


def _data_bytes(splits: tuple[Any, Any], folds: int | None, stream: Stream | None) -> int:
    """Returns the bytes of the data on each device: its splits; of a stream the block in use and the next one."""
    train, valid = splits
    kept = train if folds else valid if stream is not None else (train, valid)
    streamed = 0 if stream is None else 2 * stream.block_bytes
    return streamed + sum(np.asarray(a).nbytes for a in jax.tree.leaves(kept))


def _check_numbers(objective: Objective, splits: tuple[Any, Any], found: Grouping, first: int) -> set[str]:
    """Checks the numbers of the trials from ``first`` on as the code that uses them demands.

    Returns:
      The fields whose numbers could not be checked.

    Raises:
      InputError: a number is not what its field allows.
    """
    unseen: set[str] = set()
    for g, given in zip(found.groups, found.shapes, strict=True):
        objective.check(given.metrics)
        fresh = replace(g, trials=tuple(trial for trial in g.trials if trial >= first))
        for name, check in given.checks:
            for trial in fresh.trials if name != DERIVED else ():
                check.of(found.points[trial][name], found.lengths[trial].steps, name)
        if fresh.trials and any(name == DERIVED for name, _ in given.checks):
            unseen |= value_checks.check(found.tracer, fresh, found.points, found.lengths, splits)
    return unseen


def _check_scheduler(scheduler: Scheduler | None, rounds: Sequence[int], found: Grouping, first: int) -> None:
    """Raises ``InputError`` unless the scheduler can compare the trials of every round.

    Args:
      scheduler: the scheduler of the sweep, None for none.
      rounds: how many trials each round has.
      found: the groups of the trials so far.
      first: the first trial of the round that is planned now.
    """
    if scheduler is None:
        return
    every = sorted({length.eval_every for length in found.lengths})
    if len(every) > 1:
        allowed = "must be one number under a scheduler, which compares trials at equal steps"
        raise InputError("eval_every", every, allowed, f"Write eval_every={every[0]}.")
    budget = max(length.steps * length.microsteps for length in found.lengths)
    for trials in sorted(set(rounds)):
        try:
            scheduler.check(trials, budget, min(every[0], budget))
        except InputError as error:
            if len(rounds) == 1 or error.field != "Sweep.trials":
                raise
            allowed = f"makes rounds of {trials}, each of which {error.allowed}"
            raise InputError(error.field, sum(rounds), allowed, f"Of each round: {error.remedy}") from None
    scheduler.check_groups([sum(trial >= first for trial in g.trials) for g in found.groups])


def _explained(found: Grouping, read: set[str], devices: list[jax.Device], devices_per_lane: int) -> dict[str, Verdict]:
    """Returns the verdicts with what else the plan shows: what tracing costs, and which names are never read."""
    explained = {
        name: verdict if name in read else verdict._replace(reason="the program never reads it")
        for name, verdict in found.verdicts.items()
    }
    costly = {name for given in found.shapes for name, check in given.checks if check.masks and name != DERIVED}
    costly |= {name for name, kind in found.tracer.kinds.items() if isinstance(kind, Selection)}
    for name in sorted(costly & found.traced & read):
        explained[name] = _with_cost(found, name, devices[0].platform)
    # Where devices share a lane, each microbatch costs an exchange, which is not estimated.
    return explained | (_with_batches(found, explained, devices) if devices_per_lane == 1 else {})


def _with_cost(found: Grouping, name: str, platform: str) -> Verdict:
    """Returns the verdict on a hyperparameter with what tracing it costs in the largest group that has it."""
    g = max((g for g in found.groups if name in found.points[g.trials[0]]), key=lambda g: len(g.trials))
    own = [found.points[trial] for trial in g.trials]
    traced = [n for n in own[0] if found.verdicts[n].traced]
    work = sum(found.lengths[trial].steps * found.lengths[trial].microsteps for trial in g.trials)
    try:
        costs = cost.compare(found.tracer, own, traced, name, work, platform, found.shapes[g.number])
    except Exception:  # whatever the program says to a static value: then there is nothing to compare with
        costs = ""
    verdict, kinds = found.verdicts[name], found.tracer.kinds
    how = verdict.reason if isinstance(kinds[name], Selection) else "masked in one program"
    return verdict._replace(reason=f"{how}; {costs}" if costs else how)


def _with_batches(found: Grouping, verdicts: dict[str, Verdict], devices: list[jax.Device]) -> dict[str, Verdict]:
    """Returns the verdicts on what the batch size depends on, with the costs of whole batches and of microbatches."""
    batches = found.tracer.program.batches
    if batches is None:
        return {}
    with reading() as sized:
        batches.size(found.tracer.hparams(found.points[0], ()))
    if not sized or any(found.tracer.kinds.get(name) is None for name in sized):
        return {}
    where: tuple[Any, ...] = (found.traced, set(sized), devices[0].platform, len(devices))
    try:
        costs = cost.compare_batches(found.tracer, found.points, found.lengths, *where)
    except Exception:  # whatever the program says to the other way: then there is nothing to compare with
        costs = ""
    return {n: v._replace(reason=f"{v.reason}; {costs}") for n, v in verdicts.items() if n in sized and costs}
