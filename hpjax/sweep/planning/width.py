"""How many lanes one device computes at once: by a rule, or by what was measured. Pure.

A chunk that stays in a CPU's cache is fastest, and the widest rarely is; an accelerator wants many lanes.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from msgspec import Meta

from hpjax.core.arrays import ceil_div
from hpjax.results.store.validation import Positive

CPU_WIDTH, CPU_MOST = 8, 64
ACCELERATOR_WIDTH, ACCELERATOR_MOST = 1024, 16384
# Lanes stay on the chip where it has room for so many times their states: of an MLP the compiler keeps 512 of 70 KiB in
# 128 MiB, 3.5 times their states, of a transformer 4 to 16 of 1.2 MiB, 7 to 27 times.
# Fewer than these are not worth it.
NEAR_SHARE, FEWEST = 8, 8
# The smallest width wins among those that reach this share of the best speed: it uses less memory and wastes less.
GOOD_ENOUGH = 0.95


class Rate(NamedTuple):
    """How fast a width was measured to be beside others.

    Attributes:
      width: lanes that one device computes at once, at most: as many as leave few slots empty.
      kernels: ``"batched"`` or ``"xla"``.
      speed: lane-steps a second, as a share of those of the fastest.
    """

    width: Positive
    kernels: Annotated[str, Meta(pattern="^(batched|xla)$")]
    speed: Annotated[float, Meta(ge=1e-9, le=1)]


@dataclass(frozen=True)
class Measured:
    """What was measured of the widths of a program.

    Attributes:
      rates: the speeds of some widths beside that of the fastest of them; empty where nothing is known.
      finished: whether the search for the best width came to its end; False if time was up before.
      lane_step: how many seconds a lane-step of all devices takes at the fastest of these widths if nothing else runs;
        0 where unknown. It serves estimates alone: machines change their speed from run to run.
    """

    rates: tuple[Rate, ...] = ()
    finished: bool = False
    lane_step: Annotated[float, Meta(ge=0, le=1e9)] = 0.0

    def rate(self, width: int, kernels: str) -> Rate | None:
        """Returns the speed of a width with some kernels, None where it was not measured."""
        # A width that leaves few slots empty is more than half of what it is at most.
        own = (each for each in self.rates if each.kernels == kernels and each.width < 2 * width <= 2 * each.width)
        return min(own, default=None)

    def seconds(self, width: int, kernels: str) -> float | None:
        """Returns the seconds of a lane-step at a width if nothing else runs, None where that was not measured."""
        own = self.rate(width, kernels)
        return self.lane_step / own.speed if own is not None and self.lane_step else None


def chunks_that_fit(memory: int | None, data_bytes: int, chunk_bytes: int) -> int | None:
    """Returns how many chunks of lanes fit on a device, None for any number.

    Args:
      memory: bytes of memory of the device, None where unknown.
      data_bytes: bytes of it that the data takes.
      chunk_bytes: bytes of a chunk's states.
    """
    # Moving lanes needs all chunks twice, and the one that computes needs about its size again.
    return None if memory is None else max(((memory - data_bytes) // max(chunk_bytes, 1) - 1) // 2, 1)


def by_rule(platform: str, lanes: int, spans: int, lane_bytes: int, memory: int | None, near: int = 0) -> int:
    """Returns the width for so many lanes if nothing was measured.

    On a CPU about 8 lanes are best for small models. An accelerator takes as many as there are, if their states and
    four times as much for activations fit. A TPU takes no more than stay in the memory on its chip from step to step,
    unless these are few: ``hpjax plan --target`` shows that a chunk of them then moves nothing to and from the large
    memory.

    Args:
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
      lanes: how many lanes of a group may be in one chunk; see ``Capacity.lanes_together``.
      spans: how many devices, or groups of devices that share each of their lanes, share them.
      lane_bytes: bytes of one lane's state on a device.
      memory: bytes of memory of one device, None where unknown.
      near: bytes of the memory on its chip, 0 where the compiler keeps no arrays there.
    """
    usual = CPU_WIDTH if platform == "cpu" else ACCELERATOR_WIDTH
    if (staying := near // (NEAR_SHARE * max(lane_bytes, 1))) >= FEWEST:
        usual = min(usual, staying)
    if memory is not None:
        usual = max(1, min(usual, memory // (5 * max(lane_bytes, 1))))
    return balanced(usual, lanes, spans)


def balanced(most: int, lanes: int, spans: int) -> int:
    """Returns the smallest width that needs no more chunks than ``most``, so that few slots stay empty."""
    share = ceil_div(lanes, spans)
    return ceil_div(share, ceil_div(share, most))


def most(platform: str, lanes: int, spans: int) -> int:
    """Returns the largest width that is worth a measurement, a power of two."""
    limit = CPU_MOST if platform == "cpu" else ACCELERATOR_MOST
    return min(limit, 1 << (ceil_div(lanes, spans) - 1).bit_length())


def best(rates: Iterable[Rate]) -> Rate:
    """Returns the smallest width that is nearly as fast as the fastest."""
    found = sorted(rates)
    fastest = max(rate.speed for rate in found)
    return next(rate for rate in found if rate.speed >= GOOD_ENOUGH * fastest)


def search(begin: int, most: int, factor: int) -> Generator[int, float | None, None]:
    """Yields widths around the best one that are to be measured; each is answered by its speed, None if it fails.

    The search goes up from ``begin`` while that is faster. If it is not, it goes down while that costs little, since
    a smaller width uses less memory.

    Args:
      begin: the width to begin with.
      most: the largest width.
      factor: the factor from one width to the next.
    """
    first = yield begin
    found = {} if first is None else {begin: first}
    for up in (True, False):
        width = begin
        while True:
            after = min(width * factor, most) if up else width // factor
            if after in (0, width) or after in found:
                break
            speed = yield after
            if speed is None:
                if up:
                    break
                width = after  # too wide still: a narrower one may fit
                continue
            fastest = max(found.values(), default=0.0)
            found[after] = speed
            if speed * GOOD_ENOUGH < fastest if up else speed < GOOD_ENOUGH * fastest:
                break
            width = after
        if first is not None and first < GOOD_ENOUGH * max(found.values()):
            break  # a wider one is faster by far, so that no narrower one can win
