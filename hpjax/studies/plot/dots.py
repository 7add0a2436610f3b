"""Draws estimates as dots with bars for their intervals, one above the other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpjax.results.analysis import Estimate
from hpjax.results.drawing import literal
from hpjax.results.style import DOTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_dots(ax: "Axes", names: Sequence[str], estimates: Sequence[Estimate]) -> None:
    """Draws a dot for each estimate, the first at the bottom; a bar has no upper end where that is infinite."""
    value, low, high = (np.array([each[i] for each in estimates]) for i in range(3))
    if names:
        # As lists: of arrays with one element Matplotlib asks NumPy for a number, of which NumPy before 2.4 warns.
        above = np.where(np.isfinite(high), high - value, 0)
        ax.errorbar(value, np.arange(len(names)), xerr=[(value - low).tolist(), above.tolist()], **DOTS)
    ax.set_yticks(range(len(names)), list(map(literal, names)))
    ax.set_ylim(-0.6, max(len(names), 1) - 0.4)
