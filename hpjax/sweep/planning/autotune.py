"""Measures how many lanes are best at once, on the devices and with the program of a sweep, before it trains."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from hpjax.engine import sharding
from hpjax.engine.device_errors import OutOfMemoryError, translating_device_errors
from hpjax.engine.device_lanes import DeviceLanes, LaneTable
from hpjax.engine.distributed import several
from hpjax.results.store.validation import memory
from hpjax.sweep.planning import width
from hpjax.sweep.planning.arrange import key_of, together_at_most, widened
from hpjax.sweep.planning.plan import Group
from hpjax.sweep.planning.planner import Prepared
from hpjax.sweep.planning.programs import cohort, compiled_of, recipe_of, splits_on
from hpjax.sweep.planning.rate_cache import Measured, recall, remember
from hpjax.sweep.planning.width import Rate
from hpjax.sweep.spec import Settings

# A measurement costs so many seconds, or this share of a run that is longer.
SECONDS, SHARE = 5.0, 0.05
# Of one speed: so often so many seconds, of which the fastest counts, since others on the machine only slow it down.
TIMES, EACH = 3, 0.1
# A run that is expected to be shorter gains less than the measurement costs.
WORTH = 30.0
FOREVER = 1 << 30


def tuned(settings: Settings, prepared: Prepared, whatever: bool = False) -> Prepared:
    """The plan with widths that were measured, where that pays: for the groups that take longest, while time allows.

    With several hosts or of a shard widths are by rule, since all must have the same.

    Args:
      settings, prepared: the sweep.
      whatever: whether to measure also where the run is short.
    """
    plan = prepared.plan
    run = plan.run_seconds
    if settings.width is not None or plan.shard is not None or several() or not (whatever or run >= WORTH):
        return prepared
    # Another sweep of the same program may have measured it since.
    prepared = _again(settings, prepared)
    plan = prepared.plan
    begun, allowed = time.monotonic(), max(SECONDS, SHARE * run)

    def affordable(more: float) -> bool:
        return time.monotonic() - begun + more < allowed

    unknown = [g for g in plan.own_groups if not recall(key_of(settings, plan, g)).whole]
    if unknown:
        mesh = sharding.mesh(sharding.devices(settings.devices))
        splits = splits_on(settings, mesh)
        for group in sorted(unknown, key=lambda g: -plan.group_seconds(g)):
            if affordable(0.0):
                _measure(settings, prepared, group, mesh, splits, affordable)
        prepared = _again(settings, prepared)
    return prepared


def _again(settings: Settings, prepared: Prepared) -> Prepared:
    """The plan with what is remembered by now."""
    return Prepared(widened(settings, prepared.plan, {}), prepared.points)


def _measure(
    settings: Settings,
    prepared: Prepared,
    group: Group,
    mesh: jax.sharding.Mesh,
    splits: tuple[Any, Any],
    affordable: Callable[[float], bool],
) -> None:
    """Measures widths of a group that are not known yet, and remembers what it found, and whether time was up."""
    plan, key = prepared.plan, key_of(settings, prepared.plan, group)
    lanes, devices = together_at_most(settings, group), plan.devices[0]
    platform = mesh.devices.flat[0].platform
    most = width.most(platform, lanes, devices)
    begin, took, whole = min(1 << (plan.widths[group.number] - 1).bit_length(), most), 0.0, True
    found: dict[tuple[int, str], float | None] = {(rate.width, rate.kernels): rate.speed for rate in recall(key).rates}

    def time_left() -> bool:
        nonlocal whole
        whole = whole and affordable(took)
        return whole

    def speed(wide: int, kernels: str) -> float | None:
        nonlocal took
        if (wide, kernels) not in found:
            begun, each = time.monotonic(), width.balanced(wide, lanes, devices)
            found[wide, kernels] = _speed(settings, prepared, group, each, kernels, mesh, splits)
            took = time.monotonic() - begun
        return found[wide, kernels]

    kernels = [plan.kernels[group.number]]
    if plan.shapes[group.number].windows and settings.kernels is None:
        kernels = [each for each in ("batched", "xla") if not took or time_left() if speed(begin, each)] or kernels
    fastest = max(kernels, key=lambda each: speed(begin, each) or 0.0)
    factor = 2 if platform == "cpu" else 4
    width.search(lambda wide: speed(wide, fastest), begin, most, factor, time_left)
    rates = sorted(Rate(wide, each, value) for (wide, each), value in found.items() if value is not None)
    if rates:
        remember(key, Measured(tuple(rates), whole))


def _speed(
    settings: Settings,
    prepared: Prepared,
    group: Group,
    wide: int,
    kernels: str,
    mesh: jax.sharding.Mesh,
    splits: tuple[Any, Any],
) -> float | None:
    """Lane-steps a second of all devices at a width, of whose chunks each computes one; None where it does not fit."""
    plan = widened(settings, prepared.plan, {group.number: (wide, kernels)})
    trials, stream = group.trials[: wide * plan.devices[0]], settings.stream
    points = dict(enumerate(prepared.points))
    everyone = cohort(settings, prepared, group, trials, points)
    # A chunk a device: of one replicate, unless lanes of several may stand in it.
    count = min(wide * plan.devices[0], together_at_most(settings, group))
    first: LaneTable = jax.tree.map(lambda array: array[:count], everyone)
    first = first._replace(budget=np.full(count, FOREVER, np.int32))
    block = None
    if stream is not None:
        block = sharding.put(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), stream.shapes), mesh, sharding.WHOLE)
    try:
        with translating_device_errors(group.number):
            compiled = compiled_of(settings, plan, group.number, first.h, mesh, splits).result()
            if (compiled.bytes or 0) > (sharding.memory() or memory() // plan.devices[0]):  # of CPUs the host's
                return None
            lanes = DeviceLanes(recipe_of(settings, plan, group.number), compiled, first, settings.seed, *splits)
            steps, at = 1, 1
            lanes.advance(at, False, block)  # the first states, and the first touch of memory
            times: list[float] = []
            while len(times) < TIMES:
                begun, at = time.perf_counter(), at + steps
                lanes.advance(at, False, block)
                took = time.perf_counter() - begun
                if took < EACH and not times:
                    steps *= 2
                else:
                    times.append(took)
    except OutOfMemoryError:
        return None
    return count * steps / min(times)
