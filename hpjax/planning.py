"""From settings to a plan: points, verdicts, groups, width. Traces abstractly, compiles nothing."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
from hpjax.engine.width import Rate
from hpjax.errors import InputError, ProgramError, UnknownHyperparameterError
from hpjax.hparams import Hparams, reading, with_fold
from hpjax.program import Schedule
from hpjax.remembered import fingerprint, recall
from hpjax.samplers import Observation
from hpjax.settings import Settings
from hpjax.shard import Shard
from hpjax.space import Point
from hpjax.text import size

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
    devices = spread.devices(settings.devices)
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
        kernels=settings.kernels or "batched",
        rates=(),
        chunks=(),
        waves=(),
        parks=False,
        devices=(len(devices), devices[0].device_kind),
        schedules=tuple(schedules),
        segment=settings.segment,
        data_bytes=_data_bytes(settings),
        objective=str(settings.objective),
        randomness=settings.randomness,
        seed=settings.seed,
        shard=None if settings.shard is None else Shard(*settings.shard),
        hints=tuple(_hints(settings, devices, groups, shapes, verdicts, read, unseen)),
        stream="" if settings.stream is None else f"{settings.stream}, {size(settings.stream.block_bytes)} a block",
        block=None if settings.stream is None else settings.stream.block,
    )
    plan = _waved(settings, _wide(settings, plan), 0)
    return Prepared(replace(plan, hints=(*plan.hints, *_hints_of_shard(settings, plan))), points)


def _wide(settings: Settings, plan: Plan) -> Plan:
    """``plan`` with a width for each group: as it had, as the settings say, as was measured, or by rule."""
    given = settings.width
    if isinstance(given, tuple) and not plan.widths and len(given) != len(plan.groups):
        allowed = f"must be one number, or one for each of the {len(plan.groups)} groups"
        raise InputError("Sweep.width", given, allowed, "Leave it out, and the sweep chooses.")
    widths, rates, kernels = list(plan.widths), list(plan.rates), plan.kernels
    for g in plan.groups[len(widths) :]:
        measured: tuple[Rate, ...] = ()
        if isinstance(given, int):
            widths.append(given)
        elif given is not None and g.number < len(given):
            widths.append(given[g.number])
        else:
            # Groups of later rounds by rule: what is measured by then must not decide their bits.
            measured = () if plan.widths else _recalled(settings, plan, g)
            most = width.best(measured).width if measured else None
            widths.append(_fit(settings, plan, g, most))
        rates.append(measured)
    if settings.kernels is None:
        windowed = [each for each, given in zip(rates, plan.shapes, strict=True) if each and given.windows]
        kernels = width.best(windowed[0]).kernels if windowed else kernels
    return replace(plan, widths=tuple(widths), rates=tuple(rates), kernels=kernels)


def widened(settings: Settings, plan: Plan, widths: Mapping[int, int], kernels: str | None) -> Plan:
    """``plan``, of the first round, with other widths for some groups, and with what was measured for all others.

    Args:
      settings: the sweep.
      plan: its plan.
      widths: group to width.
      kernels: to have instead, None to choose again.
    """
    plan = replace(_wide(settings, replace(plan, widths=(), rates=())), chunks=(), waves=())
    found = tuple(widths.get(number, wide) for number, wide in enumerate(plan.widths))
    return _waved(settings, replace(plan, widths=found, kernels=kernels or plan.kernels), 0)


def key_of(settings: Settings, plan: Plan, group: Group) -> str:
    """The fingerprint under which the widths of a group are remembered."""
    platform = spread.devices(settings.devices)[0].platform
    most = width.most(platform, together_at_most(settings, group), plan.devices[0])
    how = (settings.spread, settings.randomness, settings.kernels, settings.folds, settings.stream is not None)
    return fingerprint(plan.shapes[group.number].fingerprint, plan.devices, most, *how)


def _recalled(settings: Settings, plan: Plan, group: Group) -> tuple[Rate, ...]:
    # Shards, and several hosts, must have the same widths, whatever was measured on each machine.
    alone = plan.shard is None and jax.process_count() == 1
    return recall(key_of(settings, plan, group)) if alone else ()


def together_at_most(settings: Settings, group: Group) -> int:
    """How many lanes of a group may stand in one chunk: where each draws for itself all, else those of a replicate.

    Of a shard those of all trials: what the shards find together is one sweep, which has one width.
    """
    return len(group.trials) * (settings.lanes_a_trial if settings.randomness == "independent" else 1)


def _fit(settings: Settings, plan: Plan, group: Group, most: int | None) -> int:
    lanes, devices = together_at_most(settings, group), plan.devices[0]
    if most is not None:
        return width.balanced(most, lanes, devices)
    platform = spread.devices(settings.devices)[0].platform
    return width.by_rule(platform, lanes, devices, plan.shapes[group.number].lane_bytes, spread.memory())


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
    schedules = [*before.plan.schedules, *_scheduled(settings, found)]
    verdicts = {verdict.name: verdict for verdict in before.plan.verdicts}
    traced = {name: verdict.traced for name, verdict in verdicts.items()}
    groups, shapes = _groups(settings, tracing, points, schedules, verdicts, before.plan.shapes)
    for name in (name for name in verdicts if verdicts[name].traced is not traced[name]):
        if any(name in point for point in before.points):
            allowed = f"was traced in earlier rounds, and cannot be now: {verdicts[name].reason}"
            raise InputError(f"Space.{name}", found[0].get(name), allowed, "Write static=True for its domain.")
    _check_numbers(settings, tracing, groups, shapes, points, schedules, first)
    _check_scheduler(settings, before.plan.rounds, schedules, groups, first)
    plan = replace(before.plan, groups=tuple(groups), shapes=tuple(shapes), schedules=tuple(schedules))
    return Prepared(_waved(settings, _wide(settings, plan), first), points)


def _waved(settings: Settings, plan: Plan, first: int) -> Plan:
    """``plan`` with the waves of the trials from ``first`` on; a group keeps the chunks that it was compiled with."""
    mine = set(range(first, len(plan.schedules)))
    if plan.shard is not None:
        mine = plan.shard.trials([g.trials for g in plan.groups], plan.budgets)
    waves = []
    for g in plan.groups:
        known = g.number < len(plan.chunks)
        fitting = plan.chunks[g.number] if known else _fitting(plan, g)
        fresh = tuple(trial for trial in g.trials if trial in mine)
        waves.append((*(plan.waves[g.number] if known else ()), *_cut_up(settings, plan, g, fresh, fitting)))
    return _sized(settings, plan, waves, first)


def _fitting(plan: Plan, group: Group) -> int | None:
    """How many chunks of a group fit on a device, None for any number."""
    chunk = plan.width_of(group.number) * plan.shapes[group.number].lane_bytes
    return width.chunks_that_fit(spread.memory(), plan.data_bytes, chunk)


def _cut_up(
    settings: Settings, plan: Plan, group: Group, trials: tuple[int, ...], fitting: int | None
) -> list[tuple[int, ...]]:
    """Trials of a group in as few and as equal waves as so many chunks a device allow."""
    if not trials:
        return []
    most = layout.most_trials(partial(_chunks, settings, plan, group.number), fitting, len(trials))
    return [trials[i : i + most] for i in range(0, len(trials), most)]


def _sized(settings: Settings, plan: Plan, waves: Sequence[tuple[tuple[int, ...], ...]], first: int) -> Plan:
    """``plan`` with these waves, of which those of a trial from ``first`` on are to train."""
    sizes = [
        plan.chunks[number]
        if number < len(plan.chunks)
        else max((_chunks(settings, plan, number, len(wave)) for wave in own), default=1)
        for number, own in enumerate(waves)
    ]
    memory = spread.memory()
    states = sum(
        sum(wave[0] >= first for wave in own) * size * plan.width_of(number) * plan.shapes[number].lane_bytes
        for number, (own, size) in enumerate(zip(waves, sizes, strict=True))
    )
    if settings.stream is not None:  # each wave has blocks of its own
        states += settings.stream.block_bytes * (sum(map(len, waves)) - 1)
    parks = settings.scheduler is not None and memory is not None and 2 * states + plan.data_bytes > memory
    return replace(plan, waves=tuple(waves), chunks=tuple(sizes), parks=parks)


def narrowed(settings: Settings, prepared: Prepared, widths: Mapping[int, int]) -> Prepared:
    """The same with groups at widths of their own, group to width."""
    plan = replace(prepared.plan, narrowed={g: w for g, w in widths.items() if w != prepared.plan.widths[g]}, chunks=())
    return Prepared(_sized(settings, plan, plan.waves, 0), prepared.points)


def pieces(settings: Settings, plan: Plan, group: Group, trials: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The trials of a wave that was made for other devices, in waves that fit on these."""
    return _cut_up(settings, plan, group, trials, _fitting(plan, group))


def regrouped(settings: Settings, prepared: Prepared, waves: Sequence[tuple[Group, tuple[int, ...]]]) -> Prepared:
    """The same with these waves of its last round in place of its own."""
    mine = {trial for _, trials in waves for trial in trials}
    kept = [[wave for wave in own if wave[0] not in mine] for own in prepared.plan.waves]
    for g, trials in waves:
        kept[g.number].append(trials)
    plan = replace(prepared.plan, chunks=())
    return Prepared(_sized(settings, plan, [tuple(own) for own in kept], min(mine)), prepared.points)


def _chunks(settings: Settings, plan: Plan, group: int, trials: int) -> int:
    """How many chunks a device so many trials of a group need."""
    luck = luck_of(
        np.repeat(np.arange(settings.lanes_a_trial, dtype=np.int32), trials), settings.randomness == "independent"
    )
    return layout.chunks_needed(luck, plan.width_of(group), plan.devices[0])


def _check_numbers(
    settings: Settings,
    tracing: Tracer,
    groups: list[Group],
    shapes: list[Shapes],
    points: list[Point],
    schedules: list[Schedule],
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
    if schedule != plan.schedules[trial]:
        allowed = "decides how long a trial takes, and cannot change while it runs"
        raise InputError("Scheduler.replace", point, allowed, "Fix what steps and batch_size depend on.")
    given = plan.shapes[next(g.number for g in plan.groups if trial in g.trials)]
    for name, check in given.checks:
        if name != DERIVED:
            check.of(point[name], schedule.steps, name)


def _check_scheduler(
    settings: Settings, rounds: Sequence[int], schedules: list[Schedule], groups: list[Group], first: int
) -> None:
    """Checks that the scheduler can have a race of every round, of which one begins with the trial ``first``."""
    if settings.scheduler is None:
        return
    every = sorted({schedule.eval_every for schedule in schedules})
    if len(every) > 1:
        allowed = "must be one number under a scheduler, which compares trials at equal steps"
        raise InputError("eval_every", every, allowed, "Give one.")
    budget = max(schedule.steps * schedule.calls for schedule in schedules)
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
    schedules: list[Schedule],
    verdicts: dict[str, Verdict],
    shapes: list[Shapes],
    names: set[str],
    platform: str,
) -> dict[str, Verdict]:
    """The verdicts on ``names`` with what it costs to trace them, judged by the largest group that has each."""
    told = {}
    for name in sorted(names):
        g = max((g for g in groups if name in points[g.trials[0]]), key=lambda g: len(g.trials))
        own = [points[trial] for trial in g.trials]
        traced = [n for n in own[0] if verdicts[n].traced]
        work = sum(schedules[trial].steps * schedules[trial].calls for trial in g.trials)
        try:
            found = cost.compare(tracing, own, traced, name, work, platform, shapes[g.number])
        except Exception:  # an estimate: where a value cannot be static there is none
            found = ""
        how = verdicts[name].reason if isinstance(tracing.kinds[name], Selection) else "masked in one program"
        told[name] = verdicts[name]._replace(reason=f"{how}; {found}" if found else how)
    return told


def _groups(
    settings: Settings,
    tracing: Tracer,
    points: list[Point],
    schedules: list[Schedule],
    verdicts: dict[str, Verdict],
    known: Sequence[Shapes],
) -> tuple[list[Group], list[Shapes]]:
    """Groups whose programs are known to trace, as the first of them are already; turns verdicts that fail in one
    of them into static ones.
    """
    while True:
        traced = frozenset(name for name, verdict in verdicts.items() if verdict.traced)
        hparams = [Hparams(point, traced & point.keys()) for point in points]
        groups = group(hparams, [schedule.eval_every for schedule in schedules], traced)
        shapes = list(known)
        for g in groups[len(known) :]:
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


def _hints_of_shard(settings: Settings, plan: Plan) -> Iterator[str]:
    """That the width must be that of the other shards, and whether the lanes of this one fill little of it."""
    if plan.shard is None or settings.width is not None:
        return
    wide = max(plan.widths)
    yield (
        f"this machine makes the width {wide}, and shards of different widths are not merged. Where they run on "
        "different machines, give all of them the same."
    )
    whole, own = (
        sum(_chunks(settings, plan, number, trials) for number, trials in enumerate(each) if trials)
        for each in (
            [len(g.trials) for g in plan.groups],
            [sum(map(len, waves)) for waves in plan.waves],
        )
    )
    if own * plan.shard.of > 2 * whole:
        yield (
            f"this shard takes about {own / whole:.0%} of the time of the whole sweep, whose width it has, "
            f"{wide}: its trials fill little of it. Use fewer shards, or give all of them the same smaller width."
        )
