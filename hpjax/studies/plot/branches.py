"""Draws a study of branches: what larger batches lose, and the critical batch size over a training."""

from typing import TYPE_CHECKING

import numpy as np

from hpjax.results.drawing import add_legend, literal, new_figure, set_log
from hpjax.results.style import DOTS, GREY, RED, Width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hpjax.studies.branches_result import BranchesResult


def branches(answer: "BranchesResult", width: Width = "double") -> "Figure":
    """Draws what larger batches lose, and the critical batch size; see ``draw_branches`` and ``draw_critical``.

    Args:
      answer: the answer of a study of branches.
      width: that of the figure: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

    Raises:
      ImportError: matplotlib is missing; the message says how to install it.
      InputError: there is no such width.
    """
    with new_figure(2, 2 if width == "double" else 1, width) as (figure, panels):
        draw_branches(answer, panels[0])
        draw_critical(answer, panels[1])
    return figure


def draw_branches(answer: "BranchesResult", ax: "Axes") -> "Axes":
    """Draws by how much each batch size is worse than the smallest, a line a start, darker where it is earlier.

    Args:
      answer: the answer of a study of branches.
      ax: where to draw.

    Returns:
      ``ax``.
    """
    from matplotlib import colormaps

    colors = colormaps["cividis"](np.linspace(0, 0.9, len(answer.points)))
    highest = 0.0
    for point, color in zip(answer.points, colors, strict=True):
        means = point.excess.mean(axis=1)
        means = np.where(np.isfinite(means), means, np.nan)
        ax.plot(
            answer.batch_sizes, means, "o-", color=color, markersize=3, linewidth=1.2, label=f"after {point.examples:,}"
        )
        highest = max(highest, float(np.nanmax(means)))
    ax.axhline(answer.tolerance, color=GREY, linestyle="--", linewidth=1)
    set_log(ax, "x")
    ax.set_xticks(answer.batch_sizes, list(map(str, answer.batch_sizes)))
    # What lies far above the tolerance says nothing more.
    ax.set_ylim(top=min(highest * 1.1, 10 * answer.tolerance) if highest > answer.tolerance else None)
    ax.set(xlabel="batch size", ylabel=literal(f"how much worse {answer.result.objective.metric} is"))
    add_legend(ax)
    return ax


def draw_critical(answer: "BranchesResult", ax: "Axes") -> "Axes":
    """Draws the critical batch size against the examples seen, with intervals, and of three starts or more its law.

    An arrow says that no batch size lost more than the tolerance.

    Args:
      answer: the answer of a study of branches.
      ax: where to draw.

    Returns:
      ``ax``.
    """
    x = np.array([point.examples for point in answer.points], float)
    value, low, high = (np.array([point.critical[i] for point in answer.points]) for i in range(3))
    open_ = ~np.isfinite(high)
    above = np.where(open_, 0.25 * value, np.where(open_, value, high) - value)
    for kind, some in ((True, open_), (False, ~open_)):
        if some.any():
            ends = [(value - low)[some].tolist(), above[some].tolist()]
            ax.errorbar(x[some], value[some], ends, lolims=kind, **DOTS)
    if answer.has_law:
        along = np.geomspace(x[x > 0].min(), x.max(), 50)
        ax.plot(along, answer.law(along), color=RED, linewidth=1.2, label=f"power {answer.law.exponent.value:.2f}")
    if (x > 0).all():
        set_log(ax, "x")
    set_log(ax, "y")
    ax.set(xlabel="examples seen", ylabel="critical batch size")
    add_legend(ax)
    return ax
