"""What pictures share: colours, figures, and the scales, limits and labels of axes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.core.errors import missing
from hpjax.results import plot_data
from hpjax.results.table import TrialTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# From Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#9A9A9A"
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
}
DOTS: dict[str, Any] = {"fmt": "o", "color": BLUE, "markersize": 4, "linewidth": 1, "capsize": 2}


@contextmanager
def new_figure(columns: int, rows: int) -> "Iterator[tuple[Figure, list[Axes]]]":
    """Yields a new figure and its panels, row by row; what is drawn inside the context has the style of this module.

    Raises:
      ImportError: matplotlib is missing.
    """
    try:
        import matplotlib as mpl

        from hpjax.results.picture import Picture
    except ImportError:
        raise missing("hpx.plot", "matplotlib") from None
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(3.6 * columns, 2.9 * rows), layout="constrained")
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def placed(values: Any, scale: str) -> Any:
    """Returns where to draw values of a hyperparameter on its axis: at 1 − value where the distance to 1 matters."""
    return 1 - values if scale == "reverse log" else values


def set_scale(ax: "Axes", which: str, name: str, scale: str) -> None:
    """Sets scale and label of the x or the y axis; a reversed scale is flipped, so that values still rise along it."""
    ax.set(**{f"{which}label": literal(f"1 − {name}" if scale == "reverse log" else name)})
    if scale in ("log", "reverse log"):
        ax.set(**{f"{which}scale": "log"})
    if scale == "reverse log":
        (ax.xaxis if which == "x" else ax.yaxis).set_inverted(True)


def limits_of(values: Any, table: TrialTable, whole: Any = ()) -> tuple[float, float]:
    """Returns the limits, ascending, between which to show values of a metric, the best of which must be inside.

    Args:
      values: what is drawn.
      table: the trials.
      whole: values that must be inside as well.
    """
    flip = table.objective.value
    low, high = sorted(map(flip, plot_data.limits(flip(values), flip(np.asarray(whole, float)))))
    return low, high


def set_limits(ax: "Axes", values: Any, table: TrialTable, whole: Any = ()) -> None:
    """Sets the limits of the y axis as ``limits_of`` has them."""
    ax.set_ylim(*limits_of(values, table, whole))


def metric_label(table: TrialTable, metric: str) -> str:
    """Returns the label of an axis of a metric at the end, which says how replicates combine unless by their mean."""
    quantile = table.objective.quantile if metric == table.objective.metric else None
    return literal(metric if quantile is None else f"{metric}, quantile {quantile:g}")


def name_behind(ax: "Axes", behind: Any, size: float) -> None:
    """Adds to the legend how many trials ended earlier; ``size`` is that of their markers."""
    if behind.any():
        ax.plot([], [], "o", color=GREY, markersize=size, label=f"{behind.sum()} ended earlier")


def literal(name: str) -> str:
    """Returns a text with its dollar signs escaped, so that matplotlib does not read a formula between two."""
    return name.replace("$", r"\$")
