"""What pictures share: figures, and the scales, limits, labels and legends of axes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import InputError, did_you_mean, missing
from hpjax.results import plot_data
from hpjax.results.style import GREY, STYLE, WIDTHS, Width
from hpjax.results.table import TrialTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: panels are no lower, and no higher.
LOWEST, HIGHEST = 1.75, 3.2


def check_names(table: TrialTable, names: Sequence[str]) -> None:
    """Raises ``InputError`` unless all names are those of hyperparameters."""
    for name in names:
        if name not in table.names:
            raise InputError("plot", name, "must be a hyperparameter", did_you_mean(name, table.names))


@contextmanager
def new_figure(
    count: int, columns: int = 1, width: Width = "double", height: float | None = None
) -> "Iterator[tuple[Figure, list[Axes]]]":
    """Yields a new figure and its panels, row by row; what is drawn inside the context has the style of pictures.

    The first panel is as many columns wide as would else be empty in the last row.

    Args:
      count: how many panels.
      columns: in how many columns.
      width: that of the figure, ``"single"`` or ``"double"`` column of a paper.
      height: that of a row in inches; by default three quarters of a panel's width, within limits.

    Raises:
      InputError: there is no such width.
      ImportError: matplotlib is missing.
    """
    if width not in WIDTHS:
        raise InputError("plot.width", width, f"must be one of {', '.join(WIDTHS)}", 'Write width="double".')
    try:
        import matplotlib as mpl

        from hpjax.results.picture import Picture
    except ImportError:
        raise missing("hpx.plot", "matplotlib") from None
    rows = ceil_div(count, columns)
    height = height or min(max(0.75 * WIDTHS[width] / columns, LOWEST), HIGHEST)
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(WIDTHS[width], height * rows), layout="constrained")
        grid = figure.add_gridspec(rows, columns)
        spare = rows * columns - count
        panels = [figure.add_subplot(grid[0, : spare + 1])]
        for at in range(spare + 1, rows * columns):
            panels.append(figure.add_subplot(grid[at // columns, at % columns]))
        yield figure, panels


def placed(values: Any, scale: str) -> Any:
    """Returns where to draw values of a hyperparameter on its axis: at 1 − value where the distance to 1 matters."""
    return 1 - values if scale == "reverse log" else values


def name_on(name: str, scale: str) -> str:
    """Returns what the axis of a hyperparameter is called, on which ``placed`` values are."""
    return literal(f"1 − {name}" if scale == "reverse log" else name)


def set_scale(ax: "Axes", which: str, name: str, scale: str) -> None:
    """Sets scale and label of the x or the y axis; a reversed scale is flipped, so that values still rise along it."""
    ax.set(**{f"{which}label": name_on(name, scale)})
    axis = ax.xaxis if which == "x" else ax.yaxis
    if scale in ("log", "reverse log"):
        set_log(ax, which)
    if scale == "reverse log":
        axis.set_inverted(True)


def set_log(ax: "Axes", which: str) -> None:
    """Makes the x or the y axis logarithmic, with ticks whose labels do not overlap."""
    from hpjax.results.ticks import set_log_ticks

    ax.set(**{f"{which}scale": "log"})
    set_log_ticks(ax.xaxis if which == "x" else ax.yaxis)


def set_categories(ax: "Axes", which: str, categories: Sequence[str]) -> None:
    """Puts the options of a choice at 0, 1, 2, …; along the x axis they are turned where they are long or many."""
    labels = list(map(literal, categories))
    if which == "y":
        ax.set_yticks(range(len(labels)), labels)
        return
    letters = len(labels) * max(map(len, labels), default=0)
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if letters > 24 else {}
    ax.set_xticks(range(len(labels)), labels, **turned)


def set_steps(ax: "Axes") -> None:
    """Labels the x axis as that of optimizer steps, at few whole numbers."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def limits_of(values: Any, table: TrialTable, metric: str, whole: Any = ()) -> tuple[float, float, bool]:
    """Returns the limits, ascending, between which to show values of a metric, and whether on a logarithmic axis.

    The axis of a metric that is minimized is logarithmic where all values are positive and the good ones would else lie
    in a line; so is that of the same metric on another split.

    Args:
      values: what is drawn.
      table: the trials.
      metric: the name of the metric.
      whole: values that must be inside, such as the best.
    """
    flip = table.objective.value
    scores, inside = flip(np.asarray(values, float)), flip(np.asarray(whole, float))
    own = metric.rpartition("/")[2] == table.objective.metric.rpartition("/")[2]
    logarithmic = own and table.objective.direction == "minimize" and plot_data.spans_decades(scores, inside)
    low, high = sorted(map(flip, plot_data.limits(scores, inside, logarithmic)))
    return low, high, logarithmic


def set_limits(ax: "Axes", values: Any, table: TrialTable, metric: str, whole: Any = ()) -> None:
    """Sets limits and scale of the y axis as ``limits_of`` has them."""
    low, high, logarithmic = limits_of(values, table, metric, whole)
    if logarithmic:
        set_log(ax, "y")
    ax.set_ylim(low, high)


def colors_of(values: Any, table: TrialTable, metric: str) -> dict[str, Any]:
    """Returns how values of a metric are coloured, as arguments ``cmap`` and ``norm``; the best is the darkest."""
    from matplotlib.colors import LogNorm, Normalize

    low, high, logarithmic = limits_of(values, table, metric)
    shades = "cividis" if table.objective.direction == "minimize" else "cividis_r"
    return {"cmap": shades, "norm": (LogNorm if logarithmic else Normalize)(low, high)}


def add_colorbar(drawn: Any, ax: "Axes", table: TrialTable, metric: str) -> None:
    """Adds the scale of colours beside axes; it is pointed at the end beyond which values are shown alike."""
    from matplotlib.colors import LogNorm

    figure = ax.get_figure()
    if figure is None:
        return
    end = "max" if table.objective.direction == "minimize" else "min"
    bar = figure.colorbar(drawn, ax=ax, label=metric_label(table, metric), extend=end)
    if isinstance(drawn.norm, LogNorm):
        from hpjax.results.ticks import set_log_ticks

        set_log_ticks(bar.ax.yaxis)


def add_legend(ax: "Axes") -> None:
    """Adds a legend above the axes, where no point can be taken for a part of it; without labels none."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        # The axes will have a larger part of the figure once they are laid out.
        inches = 1.07 * ax.get_position().width * ax.get_figure().get_size_inches()[0]  # type: ignore[union-attr]
        above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        columns = _columns_of(labels, inches)
        ax.legend(handles, labels, **above, ncols=columns, frameon=False, handlelength=1.6, columnspacing=1)


def _columns_of(labels: Sequence[str], inches: float) -> int:
    """Returns in how many columns the labels of a legend have a place; legends are filled column by column."""
    # Of letters of 7 points, with the sample before them and the space between columns.
    widths = [0.36 + 0.057 * len(label) for label in labels]
    for columns in range(len(labels), 1, -1):
        rows = ceil_div(len(labels), columns)
        if sum(max(widths[at : at + rows]) for at in range(0, len(labels), rows)) <= inches:
            return columns
    return 1


def share_legend(figure: "Figure", panels: "Sequence[Axes]") -> None:
    """Gives a figure one legend above its panels in place of one each, without the counts of each panel."""
    from matplotlib.legend_handler import HandlerTuple

    shown: dict[str, list[Any]] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            kinds = shown.setdefault(label.lstrip("0123456789 "), [])
            # The best trial is a line in one panel and a star in others.
            if type(handle) not in map(type, kinds):
                kinds.append(handle)
        if (legend := panel.get_legend()) is not None:
            legend.remove()
    if shown:
        handles: list[Any] = list(map(tuple, shown.values()))
        columns = 4 if figure.get_size_inches()[0] > WIDTHS["single"] else 2
        where: dict[str, Any] = {"loc": "outside upper left", "ncols": columns, "frameon": False}
        figure.legend(handles, list(shown), handler_map={tuple: HandlerTuple(None)}, **where)


def metric_label(table: TrialTable, metric: str) -> str:
    """Returns the label of an axis of a metric at the end of training."""
    return literal(plot_data.final_label(table, metric))


def best_label(table: TrialTable) -> str:
    """Returns what legends call the best trial, which ranks first by its value at the end and not by its best one."""
    return f"trial {table.ranking[0]}, best at the end"


def name_behind(ax: "Axes", behind: Any, size: float) -> None:
    """Adds to the legend how many trials ended earlier; ``size`` is that of their markers."""
    if behind.any():
        ax.plot([], [], "o", color=GREY, markersize=size, label=f"{behind.sum()} ended earlier")


def literal(name: str) -> str:
    """Returns a text with its dollar signs escaped, so that matplotlib does not read a formula between two."""
    return name.replace("$", r"\$")
