"""From settings to a plan: points, verdicts, groups, width. Traces abstractly, compiles nothing."""

import os
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.domains import Selection
from hpjax.engine import computed, cost, layout, spread, width
from hpjax.engine.lane import DERIVED, Shapes
from hpjax.engine.lanes import luck_of
from hpjax.engine.plan import Group, Plan, group
from hpjax.engine.trace import Tracer, Verdict, blamed, judge, settle, shapes_of
from hpjax.errors import InputError, ProgramError, UnknownHyperparameterError
from hpjax.hparams import Hparams, reading, with_fold
from hpjax.program import Schedule
from hpjax.settings import Settings
from hpjax.space import Point

# With more programs than this a continuous hyperparameter that is static is worth a hint.
FEW_GROUPS = 8


class Prepared(NamedTuple):
    """A plan and the points it was made for.

    Attributes:
      plan: what will be done.
      points: of each trial, its hyperparameters by name.
    """

    plan: Plan
    points: list[Point]


def prepare(settings: Settings) -> Prepared:
    """The plan of a sweep.

    Raises:
      InputError, ProgramError, UnknownHyperparameterError: the sweep cannot run.
    """
    try:
        return _prepare(settings)
    except (InputError, ProgramError, UnknownHyperparameterError) as error:
        # Raised anew, so that the user's mistake does not come with frames of JAX.
        raise error.with_traceback(None) from None


def _points(settings: Settings) -> list[Point]:
    size = settings.sampler.size(settings.space)
    name = type(settings.sampler).__name__
    if size is not None and settings.trials is not None and settings.trials != size:
        raise InputError(
            "Sweep.trials", settings.trials, f"must be {size}, the number of points of {name}", "Leave trials out."
        )
    wanted = size if settings.trials is None else int(settings.trials)
    if wanted is None:
        raise InputError("Sweep.trials", None, f"must be given, since {name} has no end", "Write trials=64.")
    points = settings.sampler.ask(settings.space, [], wanted, settings.seed)
    if len(points) != wanted:
        raise InputError("Sweep.sampler", name, f"gave {len(points)} points for {wanted}", "Mend its propose.")
    for point in points:
        settings.space.branch_of(point)
    return points


def tracer(settings: Settings) -> Tracer:
    """What abstract tracing needs to know of a sweep."""
    train, valid = settings.splits
    kinds = {name: settings.space.kind(name) for name in settings.space.names}
    return Tracer(settings.program, kinds, shapes_of(train), shapes_of(valid), settings.folds)


def _prepare(settings: Settings) -> Prepared:
    generator = str(getattr(jax.config, "jax_default_prng_impl"))  # noqa: B009  mypy does not know it
    if "rbg" in generator:
        raise InputError(
            "jax_default_prng_impl",
            generator,
            "must be threefry2x32: under vmap rbg makes a lane's random numbers depend on its neighbours",
            'Call jax.config.update("jax_default_prng_impl", "threefry2x32").',
        )
    devices = spread.local_devices(settings.devices)
    points = _points(settings)
    tracing = tracer(settings)
    with reading() as scheduled:
        schedules = _scheduled(settings, points)
    firsts = {settings.space.branch_of(point): point for point in reversed(points)}
    verdicts = judge(tracing, settings.space, list(firsts.values()))
    groups, shapes = _groups(settings, tracing, points, [schedule.eval_every for schedule in schedules], verdicts)
    read = set(scheduled).union(*(given.reads for given in shapes))
    if settings.folds is not None and not all("fold" in given.reads for given in shapes):
        raise InputError(
            "Sweep.folds", settings.folds, "needs a program that reads h.fold", "Leave it out, or use hpx.supervised."
        )
    unseen: set[str] = set()
    for g, given in zip(groups, shapes, strict=True):
        settings.objective.check(given.metrics)
        for name, check in given.checks:
            for trial in g.trials if name != DERIVED else ():
                check.of(points[trial][name], schedules[trial].steps, name)
        if any(name == DERIVED for name, _ in given.checks):
            unseen |= computed.check(tracing, g, points, schedules, settings.splits)
    _check_scheduler(settings, schedules)
    largest = max(len(g.trials) for g in groups)
    own_luck = settings.randomness == "independent"
    memory = spread.memory(devices[0])
    wide = settings.width or width.choose(
        devices[0].platform,
        largest * (settings.lanes_a_trial if own_luck else 1),
        len(devices),
        max(s.lane_bytes for s in shapes),
        memory,
    )

    def chunks(trials: int) -> int:
        luck = luck_of(np.repeat(np.arange(settings.lanes_a_trial), trials), own_luck)
        return layout.chunks_needed(luck, wide, len(devices))

    data_bytes = sum(np.asarray(a).nbytes for a in jax.tree.leaves(settings.splits[: 1 if settings.folds else 2]))
    waves, sizes = [], []
    for g, given in zip(groups, shapes, strict=True):
        fitting = width.chunks_that_fit(memory, data_bytes, wide * given.lane_bytes)
        together_at_once = layout.most_trials(chunks, fitting, len(g.trials))
        waves.append(tuple(g.trials[i : i + together_at_once] for i in range(0, len(g.trials), together_at_once)))
        sizes.append(chunks(together_at_once))
    states = sum(len(w) * n * wide * s.lane_bytes for w, n, s in zip(waves, sizes, shapes, strict=True))

    told = {
        name: v if name in read else v._replace(reason="the program never reads it") for name, v in verdicts.items()
    }
    costly = {name for given in shapes for name, check in given.checks if check.masks and name != DERIVED}
    costly |= {name for name, kind in tracing.kinds.items() if isinstance(kind, Selection)}
    costly = {name for name in costly if verdicts[name].traced and name in read}
    told |= _with_costs(tracing, groups, points, schedules, verdicts, costly, devices[0].platform)
    plan = Plan(
        trials=len(points),
        replicates=settings.lanes_a_trial,
        folds=settings.folds,
        groups=tuple(groups),
        shapes=tuple(shapes),
        verdicts=tuple(told.values()),
        domains={
            name: " or ".join(dict.fromkeys(map(str, settings.space.domains(name)))) for name in settings.space.names
        },
        width=wide,
        chunks=tuple(sizes),
        waves=tuple(waves),
        parks=settings.scheduler is not None and memory is not None and 2 * states + data_bytes > memory,
        devices=(len(devices), devices[0].device_kind),
        schedules=tuple(schedules),
        segment=settings.segment,
        data_bytes=data_bytes,
        objective=str(settings.objective),
        randomness=settings.randomness,
        seed=settings.seed,
        hints=tuple(_hints(settings, devices, groups, shapes, verdicts, read, unseen)),
    )
    return Prepared(plan, points)


def _check_scheduler(settings: Settings, schedules: list[Schedule]) -> None:
    if settings.scheduler is None:
        return
    every = sorted({schedule.eval_every for schedule in schedules})
    if len(every) > 1:
        allowed = "must be one number under a scheduler, which compares trials at equal steps"
        raise InputError("eval_every", every, allowed, "Give one.")
    budget = max(schedule.steps * schedule.calls for schedule in schedules)
    settings.scheduler.check(len(schedules), budget, min(every[0], budget))


def _with_costs(
    tracing: Tracer,
    groups: list[Group],
    points: list[Point],
    schedules: list[Schedule],
    verdicts: dict[str, Verdict],
    names: set[str],
    platform: str,
) -> dict[str, Verdict]:
    """The verdicts on ``names`` with what it costs to trace them, judged by the largest group that has each."""
    told, counted = {}, {}
    for name in sorted(names):
        g = max((g for g in groups if name in points[g.trials[0]]), key=lambda g: len(g.trials))
        own = [points[trial] for trial in g.trials]
        traced = [n for n in own[0] if verdicts[n].traced]
        work = sum(schedules[trial].steps * schedules[trial].calls for trial in g.trials)
        try:
            if g.number not in counted:
                counted[g.number] = cost.step_flops(tracing, own[0], traced)
            found = cost.compare(tracing, own, traced, name, work, platform, counted[g.number])
        except Exception:  # an estimate: without XLA's count, or where a value cannot be static, there is none
            found = ""
        how = verdicts[name].reason if isinstance(tracing.kinds[name], Selection) else "masked in one program"
        told[name] = verdicts[name]._replace(reason=f"{how}; {found}" if found else how)
    return told


def _groups(
    settings: Settings, tracing: Tracer, points: list[Point], every: list[int], verdicts: dict[str, Verdict]
) -> tuple[list[Group], list[Shapes]]:
    """Groups whose programs are known to trace; turns verdicts that fail in one of them into static ones."""
    while True:
        traced = frozenset(name for name, verdict in verdicts.items() if verdict.traced)
        hparams = [Hparams(point, traced & point.keys()) for point in points]
        groups = group(hparams, every, traced)
        shapes: list[Shapes] = []
        for g in groups:
            found = settle(tracing, settings.space, points[g.trials[0]], verdicts)
            if found is None:
                break
            shapes.append(found)
        else:
            return groups, shapes


def _scheduled(settings: Settings, points: list[Point]) -> list[Schedule]:
    """How long each trial takes, its hyperparameters checked."""
    hparams = [Hparams(point) for point in points]
    if settings.folds is not None:
        hparams = [with_fold(h, 0, settings.folds) for h in hparams]
    try:
        schedules = [settings.program.schedule(h) for h in hparams]
        settings.program.validate(list(zip(hparams, schedules, strict=True)))
    except Exception as error:
        raise blamed(error) from None
    return schedules


def _hints(
    settings: Settings,
    devices: list[jax.Device],
    groups: list[Group],
    shapes: list[Shapes],
    verdicts: dict[str, Verdict],
    read: set[str],
    unseen: set[str],
) -> Iterator[str]:
    """What would make the sweep faster, or is likely a mistake."""
    for field in sorted(unseen):
        yield f"{field} is computed inside a loop or a jitted function, where its numbers cannot be checked beforehand."
    for name in verdicts.keys() - read:
        yield f"the program never reads {name}: all its values give the same result."
    checked = {(name, check.field) for given in shapes for name, check in given.checks}
    for name in sorted(name for name, field in checked if field == "Dense.active" and name != DERIVED):
        if (name, "Dense.inputs") not in checked:
            yield (
                f"{name} masks units, but no layer behind takes them as inputs: it starts at the scale of the widest. "
                f"Write hpx.nn.Dense(..., inputs=h.{name})."
            )
    many = [n for n, v in verdicts.items() if not v.traced and any(d.grid() is None for d in settings.space.domains(n))]
    if many and len(groups) > FEW_GROUPS:
        yield (
            f"{len(groups)} programs to compile, since {', '.join(many)} is continuous and cannot be traced. "
            "Give it few values with Choice(...), or make the program trace it."
        )
    if settings.randomness == "shared" and max(len(g.trials) for g in groups) < settings.lanes_a_trial:
        yield (
            "replicates outnumber trials, and lanes that compute together share a replicate: few do. "
            'randomness="independent" lets all of them.'
        )
    if any(leaf.dtype == jnp.bfloat16 for given in shapes for leaf in jax.tree.leaves(given.state) if leaf.ndim > 0):
        yield (
            "arrays of the state are bfloat16, in which Adam's b2=0.999 becomes 1 and small updates vanish. Compute in "
            "bfloat16 with dtype, and keep param_dtype float32."
        )
    if devices[0].platform == "cpu" and any(given.lapack for given in shapes):
        yield (
            "the program decomposes matrices (qr, svd, ...), and several of these at once can wait for each other "
            "forever where XLA has few threads. Set NPROC=16 in the environment before Python starts; for "
            "initializers use hpx.nn.orthogonal, for recurrent cells as recurrent_kernel_init."
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if devices[0].platform == "cpu" and len(devices) < cores:
        yield (
            f"{cores} cores, but {len(devices)} CPU device{'s' * (len(devices) > 1)}. One device a core is faster for "
            f'small models: jax.config.update("jax_num_cpu_devices", {cores}) before the first use of jax.'
        )
