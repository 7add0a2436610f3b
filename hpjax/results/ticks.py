"""Ticks of logarithmic axes, few enough that their labels do not overlap."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import Formatter, Locator, LogLocator, MaxNLocator, NullFormatter

# Of a decade, in the order in which they are tried: the first that give three ticks or more are taken.
PARTS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0))
# Numbers between these are written out, unless a label of the axis is beyond them.
PLAIN = (1e-3, 1e4)


class LogTicks(Locator):
    """Puts ticks at powers of ten; where the axis has few of these at 1 and 3, at 1, 2 and 5, or evenly."""

    def __call__(self) -> Any:
        """Returns the places of the ticks between the limits of the axis."""
        low, high = sorted(self.axis.get_view_interval())  # type: ignore[union-attr]
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Returns the places of the ticks between two positive numbers."""
        room = self.axis.get_tick_space()  # type: ignore[union-attr]
        if self.axis.axis_name != "x":  # type: ignore[union-attr]
            return ticks_between(vmin, vmax, max(2, room))
        # Matplotlib reckons with labels three letters wide along an x axis.
        for most in range(2 * room, 2, -1):
            ticks = ticks_between(vmin, vmax, most)
            gap = np.diff(np.log(ticks)).min(initial=np.inf) / np.log(vmax / vmin)
            if len(ticks) > 1 and 3 * room * gap >= _width_of(ticks):
                return ticks
        return ticks_between(vmin, vmax, 2)


class LogLabels(Formatter):
    """Writes all numbers of an axis out, or all as multiples of powers of ten."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Returns a number as the cursor shows it."""
        return f"{x:g}"

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Returns the labels of all ticks."""
        return labels_of(values)


def ticks_between(low: float, high: float, room: int) -> list[float]:
    """Returns at most ``room`` places for ticks on a logarithmic axis.

    Args:
      low, high: the ends of the axis, positive.
      room: how many labels have a place.
    """
    if not 0 < low < high < np.inf:
        return []
    first, last = int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9))
    if last - first + 1 > room:
        stride = -(-(last - first + 1) // room)
        powers = max((range(begin, last + 1, stride) for begin in range(first, first + stride)), key=len)
        return [float(f"1e{power}") for power in powers]
    apart = (np.log(high) - np.log(low)) / room
    found = [_inside(low, high, parts) for parts in PARTS]
    # Two powers of ten say that the axis is logarithmic; less than one decade is better read off even numbers.
    for least in (3, 2) if high > 10 * low else (3,):
        for ticks in found:
            if least <= len(ticks) and np.diff(np.log(ticks)).min() >= 0.9 * apart:
                return ticks
    even = MaxNLocator(nbins=4, steps=[1, 2, 5, 10]).tick_values(low, high)
    inside = [float(f"{tick:.6g}") for tick in even if low <= tick <= high and tick > 0]
    kept = inside[:1]
    for tick in inside[1:]:
        # Even numbers come closer to each other along a logarithmic axis.
        if np.log(tick / kept[-1]) >= apart:
            kept.append(tick)
    return kept if len(kept) > 1 else inside[:: max(1, len(inside) - 1)]


def _inside(low: float, high: float, parts: Sequence[float]) -> list[float]:
    """Returns the multiples of powers of ten between two numbers, for each of some factors."""
    powers = range(int(np.floor(np.log10(low))), int(np.floor(np.log10(high))) + 1)
    every = (float(f"{part * 10.0**power:.6g}") for power in powers for part in parts)
    return [tick for tick in every if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def labels_of(values: Sequence[float]) -> list[str]:
    """Returns the labels of ticks: ``0.01``, or where one of them would be long ``10⁻⁵`` and ``2×10⁻⁵``."""
    if all(PLAIN[0] <= abs(value) <= PLAIN[1] for value in values):
        return [f"{value:.6g}" for value in values]
    found = []
    for value in values:
        power = int(np.floor(np.log10(value) + 1e-9))
        part = f"{value / 10.0**power:.4g}"
        found.append(f"$10^{{{power}}}$" if part == "1" else f"${part}{{\\times}}10^{{{power}}}$")
    return found


def _width_of(ticks: Sequence[float]) -> float:
    """Returns how wide the widest label is with a space beside it, in sizes of the font."""
    labels = labels_of(ticks)
    plain = not any("$" in label for label in labels)
    wide = 0.65 * max(map(len, labels), default=1)
    return 0.8 + (wide if plain else 3.9 if any("times" in label for label in labels) else 2.3)


def set_log_ticks(axis: Any) -> None:
    """Gives a logarithmic axis of matplotlib ticks whose labels do not overlap, and small ones without labels."""
    axis.set_major_locator(LogTicks())
    axis.set_major_formatter(LogLabels())
    axis.set_minor_locator(LogLocator(subs=tuple(range(2, 10))))
    axis.set_minor_formatter(NullFormatter())
