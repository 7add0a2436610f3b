"""How many lanes one device computes at once: by a rule, or by what was measured. Pure.

A chunk that stays in a CPU's cache is fastest, and the widest rarely is; an accelerator wants many lanes.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from hpjax.core.arrays import ceil_div

CPU_WIDTH, CPU_MOST = 8, 64
ACCELERATOR_WIDTH, ACCELERATOR_MOST = 1024, 16384
# The smallest width wins among those that reach this share of the best speed: it uses less memory and wastes less.
GOOD_ENOUGH = 0.95


class Rate(NamedTuple):
    """What was measured of a width.

    Attributes:
      width: lanes a device.
      kernels: ``"batched"`` or ``"xla"``.
      speed: lane-steps a second of all devices.
    """

    width: int
    kernels: str
    speed: float


def chunks_that_fit(memory: int | None, data_bytes: int, chunk_bytes: int) -> int | None:
    """How many chunks of lanes fit on a device, None for any number.

    Args:
      memory: bytes of the device, where known.
      data_bytes: what the data takes of them.
      chunk_bytes: size of a chunk's state. One more is at work, and moving lanes needs all of them twice.
    """
    return None if memory is None else max(((memory - data_bytes) // max(chunk_bytes, 1) - 1) // 2, 1)


def by_rule(platform: str, lanes: int, devices: int, lane_bytes: int, memory: int | None) -> int:
    """The width for so many lanes, where nothing was measured.

    On a CPU about 8 lanes are best for small models; an accelerator takes as many as there are, while their states and
    four times that for activations fit.

    Args:
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
      lanes: lanes of a group that may stand in one chunk: those of a replicate, unless each has luck of its own.
      devices: devices that share them.
      lane_bytes: size of one lane's state.
      memory: bytes of one device, where known.
    """
    usual = CPU_WIDTH if platform == "cpu" else ACCELERATOR_WIDTH
    if memory is not None:
        usual = max(1, min(usual, memory // (5 * max(lane_bytes, 1))))
    return balanced(usual, lanes, devices)


def balanced(most: int, lanes: int, devices: int) -> int:
    """The width, ``most`` or less, that leaves the fewest slots empty in as few chunks."""
    share = ceil_div(lanes, devices)
    return ceil_div(share, ceil_div(share, most))


def most(platform: str, lanes: int, devices: int) -> int:
    """The largest width that is worth a measurement, a power of two."""
    limit = CPU_MOST if platform == "cpu" else ACCELERATOR_MOST
    return min(limit, 1 << (ceil_div(lanes, devices) - 1).bit_length())


def best(rates: Iterable[Rate]) -> Rate:
    """The smallest width that is nearly as fast as the fastest."""
    found = sorted(rates)
    fastest = max(rate.speed for rate in found)
    return next(rate for rate in found if rate.speed >= GOOD_ENOUGH * fastest)


def search(
    speed: Callable[[int], float | None], begin: int, most: int, factor: int, affordable: Callable[[], bool]
) -> dict[int, float]:
    """Speeds of widths around the best one, from ``begin`` upwards while it pays, else downwards while it costs little.

    Args:
      speed: measures a width; None where it does not fit.
      begin: the first.
      most: the largest that there may be.
      factor: from one width to the next.
      affordable: whether there is time for another.
    """
    first = speed(begin)
    found = {} if first is None else {begin: first}
    for up in (True, False):
        width = begin
        while affordable():
            after = min(width * factor, most) if up else width // factor
            if after in (0, width) or after in found:
                break
            next_speed = speed(after)
            if next_speed is None:
                if up:
                    break
                width = after
                continue
            fastest = max(found.values(), default=0.0)
            found[after] = next_speed
            if next_speed * GOOD_ENOUGH < fastest if up else next_speed < GOOD_ENOUGH * fastest:
                break
            width = after
        if first is not None and first < GOOD_ENOUGH * max(found.values()):
            break  # what is wider is faster: what is narrower is not
    return found
