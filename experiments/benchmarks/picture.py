"""The picture: every ratio beside its target."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Bar(NamedTuple):
    """A ratio to be drawn.

    Attributes:
      label: row and rival.
      value, least, most: the ratio and its spread, as shares of the target, so that 1 is reached.
      text: the ratio in words.
      reached: whether it is.
    """

    label: str
    value: float
    least: float
    most: float
    text: str
    reached: bool


def draw(bars: Sequence[Bar], path: Path) -> None:
    """Draws the bars on a logarithmic axis, the target a line at 1."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 0.8 + 0.5 * len(bars)), layout="constrained")
    for y, bar in enumerate(bars):
        axes.barh(y, bar.value, color="tab:green" if bar.reached else "tab:orange")
        axes.plot([bar.least, bar.most], [y, y], color="black", linewidth=1)
        place, white = (max(bar.value, bar.most), y), {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.annotate(bar.text, place, (5, 0), textcoords="offset points", va="center", bbox=white)
    axes.axvline(1.0, color="black", linestyle=":", zorder=1.5)
    axes.set_ylim(-0.7, len(bars) - 0.3)
    axes.set_xscale("log")
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(min(0.5, 0.8 * min(bar.least for bar in bars)), 5 * max(bar.most for bar in bars))
    axes.set_xlabel("ratio ÷ target; of what is to be small, target ÷ ratio")
    figure.savefig(path, dpi=120)
    plt.close(figure)
