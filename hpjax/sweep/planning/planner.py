"""From settings to a plan: points, verdicts, groups. Traces abstractly, compiles nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from hpjax.core.domains import Selection
from hpjax.core.errors import InputError, ProgramError, UnknownHyperparameterError
from hpjax.core.format import size
from hpjax.core.hparams import Hparams, reading, with_fold
from hpjax.core.program import TrialLength
from hpjax.core.space import Point
from hpjax.engine import sharding
from hpjax.engine.probe import DERIVED
from hpjax.engine.shapes import ProgramShapes
from hpjax.engine.tracing import Tracer, Verdict, judge, resolve_traced, shapes_of, with_user_lines
from hpjax.samplers import Observation
from hpjax.sweep.planning import cost
from hpjax.sweep.planning import value_checks as computed
from hpjax.sweep.planning.advice import hints, hints_of_calls, hints_of_shard
from hpjax.sweep.planning.arrange import with_waves, with_widths
from hpjax.sweep.planning.plan import Group, Plan, group
from hpjax.sweep.shard import Shard
from hpjax.sweep.spec import Settings


class Prepared(NamedTuple):
    """A plan and the points it was made for.

    Attributes:
      plan: what will be done.
      points: of each trial, its hyperparameters by name.
    """

    plan: Plan
    points: list[Point]


def prepare(settings: Settings, before: Prepared | None = None, history: Sequence[Observation] = ()) -> Prepared:
    """The plan of a sweep as far as it is known: of its first round, or of one more than ``before``.

    Args:
      settings: the sweep.
      before: the plan of the rounds so far, None for none.
      history: what these rounds found.

    Raises:
      InputError, ProgramError, UnknownHyperparameterError: the sweep cannot run.
    """
    try:
        return _first(settings) if before is None else _next(settings, before, history)
    except (InputError, ProgramError, UnknownHyperparameterError) as error:
        # Raised anew, so that the user's mistake does not come with frames of JAX.
        raise error.with_traceback(None) from None


def _rounds(settings: Settings) -> tuple[int, ...]:
    """How many trials each round has."""
    size = settings.sampler.size(settings.space)
    name = type(settings.sampler).__name__
    if size is not None and settings.trials is not None and settings.trials != size:
        raise InputError(
            "Sweep.trials", settings.trials, f"must be {size}, the number of points of {name}", "Leave trials out."
        )
    wanted = size if settings.trials is None else int(settings.trials)
    if wanted is None:
        raise InputError("Sweep.trials", None, f"must be given, since {name} has no end", "Write trials=64.")
    if settings.shard is not None and settings.shard[1] > wanted:
        allowed = f"must be one of at most {wanted} shards, the number of trials"
        raise InputError("Sweep.shard", str(settings.shard), allowed, "Use fewer shards.")
    if isinstance(settings.rounds, tuple):
        if sum(settings.rounds) != wanted:
            raise InputError("Sweep.rounds", settings.rounds, f"must add up to {wanted}, the trials", "Change either.")
        return settings.rounds
    if settings.rounds > wanted:
        raise InputError("Sweep.rounds", settings.rounds, f"must be at most {wanted}, the trials", "Use fewer rounds.")
    share, rest = divmod(wanted, settings.rounds)
    return (share + 1,) * rest + (share,) * (settings.rounds - rest)


def _asked(settings: Settings, history: Sequence[Observation], count: int) -> list[Point]:
    """The points of one round."""
    points = settings.sampler.ask(settings.space, history, count, settings.seed)
    if len(points) != count:
        name = type(settings.sampler).__name__
        raise InputError("Sweep.sampler", name, f"gave {len(points)} points for {count}", "Mend its propose.")
    for point in points:
        settings.space.branch_of(point)
    return points


def tracer(settings: Settings) -> Tracer:
    """What abstract tracing needs to know of a sweep."""
    train, valid = settings.splits
    kinds = {name: settings.space.kind(name) for name in settings.space.names}
    return Tracer(settings.program, kinds, shapes_of(train), shapes_of(valid), settings.folds)


def _first(settings: Settings) -> Prepared:
    generator = str(getattr(jax.config, "jax_default_prng_impl"))  # noqa: B009  mypy does not know it
    if "rbg" in generator:
        raise InputError(
            "jax_default_prng_impl",
            generator,
            "must be threefry2x32: under vmap rbg makes a lane's random numbers depend on its neighbours",
            'Call jax.config.update("jax_default_prng_impl", "threefry2x32").',
        )
    devices = sharding.devices(settings.devices)
    if settings.spread == "pmap" and jax.process_count() > 1:
        allowed = f"is for one host, and there are {jax.process_count()}"
        raise InputError("Sweep.spread", settings.spread, allowed, 'Use "shard_map".')
    rounds = _rounds(settings)
    points = _asked(settings, [], rounds[0])
    tracing = tracer(settings)
    with reading() as scheduled:
        schedules = _scheduled(settings, points)
    firsts = {settings.space.branch_of(point): point for point in reversed(points)}
    verdicts = judge(tracing, settings.space, list(firsts.values()))
    groups, shapes = _groups(settings, tracing, points, schedules, verdicts, ())
    read = set(scheduled).union(*(given.reads for given in shapes))
    if settings.folds is not None and not all("fold" in given.reads for given in shapes):
        raise InputError(
            "Sweep.folds", settings.folds, "needs a program that reads h.fold", "Leave it out, or use hpx.supervised."
        )
    unseen = _check_numbers(settings, tracing, groups, shapes, points, schedules, 0)
    _check_scheduler(settings, rounds, schedules, groups, 0)
    told = {
        name: v if name in read else v._replace(reason="the program never reads it") for name, v in verdicts.items()
    }
    costly = {name for given in shapes for name, check in given.checks if check.masks and name != DERIVED}
    costly |= {name for name, kind in tracing.kinds.items() if isinstance(kind, Selection)}
    costly = {name for name in costly if verdicts[name].traced and name in read}
    told |= _with_costs(tracing, groups, points, schedules, verdicts, shapes, costly, devices[0].platform)
    told |= _with_batches(tracing, points, schedules, told, devices)
    plan = Plan(
        rounds=rounds,
        replicates=settings.lanes_a_trial,
        folds=settings.folds,
        groups=tuple(groups),
        shapes=tuple(shapes),
        verdicts=tuple(told.values()),
        domains={
            name: " or ".join(dict.fromkeys(map(str, settings.space.domains(name)))) for name in settings.space.names
        },
        widths=(),
        kernels=(),
        rates=(),
        chunks=(),
        waves=(),
        offloads=False,
        devices=(len(devices), devices[0].device_kind),
        lengths=tuple(schedules),
        segment=settings.segment,
        data_bytes=_data_bytes(settings),
        objective=str(settings.objective),
        randomness=settings.randomness,
        seed=settings.seed,
        shard=None if settings.shard is None else Shard(*settings.shard),
        hints=tuple(hints(settings, devices, groups, shapes, verdicts, read, unseen)),
        stream="" if settings.stream is None else f"{settings.stream}, {size(settings.stream.block_bytes)} a block",
        block=None if settings.stream is None else settings.stream.block,
    )
    plan = with_waves(settings, with_widths(settings, plan), 0)
    return Prepared(replace(plan, hints=(*plan.hints, *hints_of_calls(plan), *hints_of_shard(settings, plan))), points)


def _data_bytes(settings: Settings) -> int:
    """What the data takes on each device: the splits, or of a stream the block in use and the one after it."""
    train, valid = settings.splits
    kept = train if settings.folds else valid if settings.stream is not None else (train, valid)
    streamed = 0 if settings.stream is None else 2 * settings.stream.block_bytes
    return streamed + sum(np.asarray(a).nbytes for a in jax.tree.leaves(kept))


def _next(settings: Settings, before: Prepared, history: Sequence[Observation]) -> Prepared:
    first = len(before.points)
    found = _asked(settings, history, before.plan.rounds[before.plan.round_of(first)])
    points, tracing = [*before.points, *found], tracer(settings)
    schedules = [*before.plan.lengths, *_scheduled(settings, found)]
    verdicts = {verdict.name: verdict for verdict in before.plan.verdicts}
    traced = {name: verdict.traced for name, verdict in verdicts.items()}
    groups, shapes = _groups(settings, tracing, points, schedules, verdicts, before.plan.shapes)
    for name in (name for name in verdicts if verdicts[name].traced is not traced[name]):
        if any(name in point for point in before.points):
            allowed = f"was traced in earlier rounds, and cannot be now: {verdicts[name].reason}"
            raise InputError(f"Space.{name}", found[0].get(name), allowed, "Write static=True for its domain.")
    _check_numbers(settings, tracing, groups, shapes, points, schedules, first)
    _check_scheduler(settings, before.plan.rounds, schedules, groups, first)
    plan = replace(before.plan, groups=tuple(groups), shapes=tuple(shapes), lengths=tuple(schedules))
    return Prepared(with_waves(settings, with_widths(settings, plan), first), points)


def _check_numbers(
    settings: Settings,
    tracing: Tracer,
    groups: list[Group],
    shapes: list[ProgramShapes],
    points: list[Point],
    schedules: list[TrialLength],
    first: int,
) -> set[str]:
    """Checks the numbers of the trials from ``first`` on where the program uses them; the fields it could not see."""
    unseen: set[str] = set()
    for g, given in zip(groups, shapes, strict=True):
        settings.objective.check(given.metrics)
        fresh = replace(g, trials=tuple(trial for trial in g.trials if trial >= first))
        for name, check in given.checks:
            for trial in fresh.trials if name != DERIVED else ():
                check.of(points[trial][name], schedules[trial].steps, name)
        if fresh.trials and any(name == DERIVED for name, _ in given.checks):
            unseen |= computed.check(tracing, fresh, points, schedules, settings.splits)
    return unseen


def check_point(settings: Settings, prepared: Prepared, trial: int, point: Point) -> None:
    """Checks hyperparameters that a trial goes on with.

    Raises:
      InputError: a number is out of its range, or decides how long the trial takes.
    """
    plan, (schedule,) = prepared.plan, _scheduled(settings, [point])
    if schedule != plan.lengths[trial]:
        allowed = "decides how long a trial takes, and cannot change while it runs"
        raise InputError("Scheduler.replace", point, allowed, "Fix what steps and batch_size depend on.")
    given = plan.shapes[next(g.number for g in plan.groups if trial in g.trials)]
    for name, check in given.checks:
        if name != DERIVED:
            check.of(point[name], schedule.steps, name)


def _check_scheduler(
    settings: Settings, rounds: Sequence[int], schedules: list[TrialLength], groups: list[Group], first: int
) -> None:
    """Checks that the scheduler can have a race of every round, of which one begins with the trial ``first``."""
    if settings.scheduler is None:
        return
    every = sorted({schedule.eval_every for schedule in schedules})
    if len(every) > 1:
        allowed = "must be one number under a scheduler, which compares trials at equal steps"
        raise InputError("eval_every", every, allowed, "Give one.")
    budget = max(schedule.steps * schedule.microsteps for schedule in schedules)
    for trials in sorted(set(rounds)):
        try:
            settings.scheduler.check(trials, budget, min(every[0], budget))
        except InputError as error:
            if len(rounds) == 1 or error.field != "Sweep.trials":
                raise
            allowed = f"makes rounds of {trials}, each of which {error.allowed}"
            raise InputError(error.field, sum(rounds), allowed, f"Of each round: {error.remedy}") from None
    settings.scheduler.check_groups([sum(trial >= first for trial in g.trials) for g in groups])


def _with_costs(
    tracing: Tracer,
    groups: list[Group],
    points: list[Point],
    schedules: list[TrialLength],
    verdicts: dict[str, Verdict],
    shapes: list[ProgramShapes],
    names: set[str],
    platform: str,
) -> dict[str, Verdict]:
    """The verdicts on ``names`` with what it costs to trace them, judged by the largest group that has each."""
    told = {}
    for name in sorted(names):
        g = max((g for g in groups if name in points[g.trials[0]]), key=lambda g: len(g.trials))
        own = [points[trial] for trial in g.trials]
        traced = [n for n in own[0] if verdicts[n].traced]
        work = sum(schedules[trial].steps * schedules[trial].microsteps for trial in g.trials)
        try:
            found = cost.compare(tracing, own, traced, name, work, platform, shapes[g.number])
        except Exception:  # an estimate: where a value cannot be static there is none
            found = ""
        how = verdicts[name].reason if isinstance(tracing.kinds[name], Selection) else "masked in one program"
        told[name] = verdicts[name]._replace(reason=f"{how}; {found}" if found else how)
    return told


def _with_batches(
    tracing: Tracer,
    points: list[Point],
    schedules: list[TrialLength],
    verdicts: dict[str, Verdict],
    devices: list[jax.Device],
) -> dict[str, Verdict]:
    """The verdicts on what batch sizes depend on, with what they cost otherwise."""
    if tracing.program.batches is None:
        return {}
    with reading() as sized:
        tracing.program.batches.size(tracing.hparams(points[0], ()))
    traced = {name for name, verdict in verdicts.items() if verdict.traced}
    if not sized or any(tracing.kinds.get(name) is None for name in sized):
        return {}
    try:
        found = cost.compare_batches(tracing, points, schedules, traced, set(sized), devices[0].platform, len(devices))
    except Exception:  # an estimate: where the other way is not possible there is none
        found = ""
    return {name: v._replace(reason=f"{v.reason}; {found}") for name, v in verdicts.items() if name in sized and found}


def _groups(
    settings: Settings,
    tracing: Tracer,
    points: list[Point],
    schedules: list[TrialLength],
    verdicts: dict[str, Verdict],
    known: Sequence[ProgramShapes],
) -> tuple[list[Group], list[ProgramShapes]]:
    """Groups whose programs are known to trace, as the first of them are already; turns verdicts that fail in one
    of them into static ones.
    """
    while True:
        traced = frozenset(name for name, verdict in verdicts.items() if verdict.traced)
        hparams = [Hparams(point, traced & point.keys()) for point in points]
        groups = group(hparams, [schedule.eval_every for schedule in schedules], traced)
        shapes = list(known)
        for g in groups[len(known) :]:
            found = resolve_traced(tracing, settings.space, points[g.trials[0]], verdicts)
            if found is None:
                break
            shapes.append(found)
        else:
            return groups, shapes


def _scheduled(settings: Settings, points: list[Point]) -> list[TrialLength]:
    """How long each trial takes, its hyperparameters checked."""
    hparams = [Hparams(point) for point in points]
    if settings.folds is not None:
        hparams = [with_fold(h, 0, settings.folds) for h in hparams]
    try:
        schedules = [settings.program.length(h) for h in hparams]
        settings.program.validate(list(zip(hparams, schedules, strict=True)))
    except Exception as error:
        raise with_user_lines(error) from None
    return schedules
