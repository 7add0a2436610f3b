"""From settings to a plan: points, verdicts, groups, width. Traces abstractly, compiles nothing."""

import os
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from hpjax.engine import layout, spread, width
from hpjax.engine.lane import Shapes
from hpjax.engine.plan import Group, Plan, group
from hpjax.engine.trace import Tracer, Verdict, judge, refine, shapes_of
from hpjax.errors import InputError, ProgramError, UnknownHyperparameterError
from hpjax.hparams import Hparams
from hpjax.settings import Settings
from hpjax.space import Point


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
        raise error.with_traceback(None) from error.__cause__


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
    data = settings.program.data
    train, valid = (None, None) if data is None else (data.train, data.valid)
    kinds = {name: settings.space.kind(name) for name in settings.space.names}
    return Tracer(settings.program, kinds, shapes_of(train), shapes_of(valid))


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
    schedule = []
    for point in points:
        h = Hparams(point)
        settings.program.validate(h)
        schedule.append(settings.program.schedule(h))
    tracing = tracer(settings)
    firsts = {settings.space.branch_of(point): point for point in reversed(points)}
    verdicts = judge(tracing, settings.space, list(firsts.values()))
    groups, shapes = _groups(settings, tracing, points, [every for _, every in schedule], verdicts)
    settings.objective.check(shapes[0].metrics)
    largest = max(len(g.trials) for g in groups)
    memory = (devices[0].memory_stats() or {}).get("bytes_limit")
    wide = settings.width or width.choose(
        devices[0].platform, largest, len(devices), max(s.lane_bytes for s in shapes), memory
    )
    data = settings.program.data
    plan = Plan(
        trials=len(points),
        replicates=settings.replicates,
        groups=tuple(groups),
        shapes=tuple(shapes),
        verdicts=tuple(verdicts.values()),
        domains={
            name: " or ".join(dict.fromkeys(map(str, settings.space.domains(name)))) for name in settings.space.names
        },
        width=wide,
        chunks=tuple(
            layout.chunks_needed(np.repeat(np.arange(settings.replicates), len(g.trials)), wide, len(devices))
            for g in groups
        ),
        devices=(len(devices), devices[0].device_kind),
        steps=tuple(steps for steps, _ in schedule),
        segment=settings.segment,
        data_bytes=0 if data is None else sum(np.asarray(a).nbytes for a in jax.tree.leaves((data.train, data.valid))),
        objective=str(settings.objective),
        randomness=settings.randomness,
        seed=settings.seed,
        hints=tuple(_hints(devices)),
    )
    return Prepared(plan, points)


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
            point = points[g.trials[0]]
            if refine(tracing, settings.space, point, verdicts):
                break
            shapes.append(tracing.shapes(point, traced))
        if len(shapes) == len(groups):
            return groups, shapes


def _hints(devices: list[jax.Device]) -> Iterator[str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if devices[0].platform == "cpu" and len(devices) < cores:
        yield (
            f"{cores} cores, but {len(devices)} CPU device{'s' * (len(devices) > 1)}. One device a core is faster for "
            f'small models: jax.config.update("jax_num_cpu_devices", {cores}) before the first use of jax.'
        )
