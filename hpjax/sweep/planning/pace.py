"""The pace of this machine: how many times as long as estimated compiling and training take here.

Earlier runs tell how long both took beside their estimates, which is kept in the user's cache folder; before there are
any, a short loop tells how fast a core is. Other work tells how busy the machine is now. All scale what plans show and
what is expected of a run. What decides between programs is never scaled, since a run that is resumed must decide the
same.
"""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean, median
from time import perf_counter, thread_time
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from hpjax.engine.distributed import several
from hpjax.engine.machine import cores, fingerprint, folder, processor
from hpjax.sweep.planning import kept

# A machine counts as at most so many times slower or faster than estimated.
MOST = 8.0
# And as so many times slower at most since it is busy: a core that was taken away meanwhile makes it look busier.
BUSIEST = 4.0
# So many of the latest runs count.
RUNS = 9
# How many seconds a core like that of the estimates takes for a short loop, and how long that is tried.
LOOP, TRIED = 110e-6, 0.01
# Whether the machine is busy shows while each core digests so many bytes, again and again for so many seconds, so many
# times. A digest takes a millisecond, beside which it is short how long threads wait for each other in between.
BYTES, SECONDS, TIMES = 1 << 21, 0.01, 5


class Pace(NamedTuple):
    """How many times as long as estimated something takes.

    Attributes:
      compiling, running: that of compiling and of training, as busy as the machine is.
      busy: how many times as long work on the CPU takes as if nothing else ran.
      known: whether earlier runs told it.
    """

    compiling: float = 1.0
    running: float = 1.0
    busy: float = 1.0
    known: bool = False


Ratio = Annotated[float, Meta(gt=0, le=1e300)]


@dataclass(frozen=True)
class Kept:
    """What the latest runs on this machine found, the oldest first.

    Attributes:
      compiling, running: how many times as long as estimated it took, and would have if nothing else had run.
    """

    compiling: tuple[Ratio, ...] = ()
    running: tuple[Ratio, ...] = ()


def pace(devices: tuple[int, str]) -> Pace:
    """Returns the pace on some devices, the same for all plans of a process; with several hosts that of the estimates.

    Args:
      devices: how many devices there are, and of which kind.
    """
    return Pace() if several() else _pace(devices)


@cache
def _pace(devices: tuple[int, str]) -> Pace:
    before = recall(devices)
    return Pace(
        _bounded(_usual(before.compiling, speed()) * _slowed("compiling", devices)),
        _bounded(_usual(before.running, speed() if devices[1] == "cpu" else 1.0) * _slowed("running", devices)),
        busy(),
        bool(before.compiling or before.running),
    )


def recall(devices: tuple[int, str]) -> Kept:
    """Returns what the latest runs on some devices found; nothing if the file is missing or damaged."""
    return kept.read(_file(devices), Kept) or Kept()


def remember(devices: tuple[int, str], part: Literal["compiling", "running"], seconds: float, estimated: float) -> None:
    """Remembers for later processes how long something took beside its estimate.

    Args:
      devices: as for ``pace``.
      part: what it was.
      seconds: how long it took.
      estimated: how long by the estimate, before any scaling.
    """
    if several() or seconds <= 0 or estimated <= 0:
        return
    before = recall(devices)
    ratio = _bounded(seconds / estimated / _slowed(part, devices))
    kept.write(_file(devices), replace(before, **{part: (*getattr(before, part), ratio)[-RUNS:]}))


@cache
def speed() -> float:
    """Returns how many times as long as the core of the estimates one of this machine takes for a loop of Python.

    Compilers are much like it, and training is slower on other machines by about as much. Products of NumPy are not:
    their library uses instructions that XLA does not.
    """
    least, end = math.inf, perf_counter() + TRIED
    while (begun := perf_counter()) < end:
        total = 0
        for i in range(2000):
            total += i * i ^ total >> 3
        least = min(least, perf_counter() - begun)  # as if nothing else ran
    return least / LOOP


@cache
def busy() -> float:
    """Returns how many times as long work on all cores takes as if nothing else ran, as measured once a process."""
    block = bytes(BYTES)

    def taken(_: int) -> list[float]:
        found = []
        for _ in range(TIMES):
            begun, before = perf_counter(), thread_time()
            while perf_counter() - begun < SECONDS:
                hashlib.sha256(block)  # which lets other threads run
            found.append((perf_counter() - begun) / max(thread_time() - before, SECONDS / BUSIEST))
        return found

    # The median of times, since threads begin on one core, until the system moves them apart.
    with ThreadPoolExecutor(cores()) as pool:
        slowed = median(fmean(ratios) for ratios in zip(*pool.map(taken, range(cores())), strict=True))
    return min(max(slowed, 1.0), BUSIEST)


def _slowed(part: str, devices: tuple[int, str]) -> float:
    """Returns by what factor a busy CPU slows something: training on an accelerator not at all."""
    return busy() if part == "compiling" or devices[1] == "cpu" else 1.0


def _usual(ratios: Sequence[float], first: float) -> float:
    """Returns the median of what runs found, with a first guess among them, since the first program may be odd."""
    return median((first, *ratios))


def _bounded(ratio: float) -> float:
    return min(max(ratio, 1 / MOST), MOST)


def _file(devices: tuple[int, str]) -> Path:
    return folder() / "pace" / f"{fingerprint(processor(), cores(), devices)}.json"
