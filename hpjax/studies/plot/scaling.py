"""Draws a batch-scaling study."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.format import metric
from hpjax.results.drawing import add_legend, literal, new_figure
from hpjax.results.style import BLUE, DOTS, GREY, ORANGE, RED, Width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hpjax.studies.batch_scaling_result import BatchScalingResult


def scaling(
    answer: "BatchScalingResult",
    learning_rate: str = "learning_rate",
    momentum: str = "momentum",
    width: Width = "double",
) -> "Figure":
    """Draws against the batch size: steps to the target, the best learning rate, and the best effective one.

    Args:
      answer: the answer of a batch-scaling study.
      learning_rate, momentum: the names of these hyperparameters; the panel of one that the sweep lacks is left out.
      width: that of the figure: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

    Returns:
      A figure with a panel for each.

    Raises:
      ImportError: matplotlib is missing; the message says how to install it.
      InputError: there is no such width.
    """
    names = answer.result.names
    momenta = [None, *([momentum] if momentum in names else [])] if learning_rate in names else []
    count = 1 + len(momenta)
    with new_figure(count, count if width == "double" else 1, width) as (figure, panels):
        draw_scaling(answer, panels[0])
        for each, panel in zip(momenta, panels[1:], strict=True):
            draw_rates(answer, panel, learning_rate, each)
    return figure


def draw_scaling(answer: "BatchScalingResult", ax: "Axes") -> "Axes":
    """Draws steps to the target against the batch size on logarithmic axes, with a line of perfect scaling.

    Bars reach up to the end of the 95 % bootstrap interval, or as arrows if it is infinite. With three points or more
    there is the fit, grey where its returns diminish: left of that scaling is perfect, right of it a larger batch is of
    no use. Crosses mark batch sizes at which no trial reached the target.

    Args:
      answer: the answer of a batch-scaling study.
      ax: where to draw.

    Returns:
      ``ax``.
    """
    _logarithmic(ax, answer.batch_sizes)
    ax.set(xlabel="batch size", ylabel=literal(f"steps to {answer.goal}"))
    sizes, steps = (np.array([getattr(p, name) for p in answer.points], float) for name in ("batch_size", "steps"))
    ends = np.array([answer.batch_sizes[0] / 1.5, answer.batch_sizes[-1] * 1.5])
    ax.set_xlim(*ends)
    if len(steps):
        high = np.array([point.interval[1] for point in answer.points])
        finite = np.isfinite(high)
        ax.plot(ends, steps[0] * sizes[0] / ends, "--", color=GREY, linewidth=1, label="perfect scaling")
        # As lists: of arrays with one element Matplotlib asks NumPy for a number, of which NumPy before 2.4 warns.
        above = (high - steps)[finite].tolist()
        ax.errorbar(sizes[finite], steps[finite], [[0.0] * len(above), above], **DOTS)
        if not finite.all():
            ax.errorbar(sizes[~finite], steps[~finite], 0.3 * steps[~finite], lolims=True, **DOTS)
        ax.set_ylim(steps.min() / 1.8, max(steps.max(), high[finite].max(initial=0)) * 1.8)
    if len(steps) >= 3:
        along, fit = np.geomspace(ends[0], ends[1], 200), answer.fit
        ax.plot(along, fit.steps(along), color=RED, linewidth=1.4, label="fit", zorder=1)
        ax.axvspan(*fit.diminishing, color=GREY, alpha=0.12, linewidth=0)
        ax.axvline(fit.critical_batch_size, color=RED, linewidth=0.8, linestyle=":")
        where, across = (fit.critical_batch_size, 0.99), ("data", "axes fraction")
        label = f" critical {metric(fit.critical_batch_size)}"
        ax.annotate(label, where, xycoords=across, color=RED, fontsize=7, va="top", annotation_clip=True)
    if answer.missing:
        upper: dict[str, Any] = {"color": ORANGE, "transform": ax.get_xaxis_transform(), "label": "not reached"}
        ax.plot(answer.missing, np.full(len(answer.missing), 0.93), "x", **upper)
    add_legend(ax)
    return ax


def draw_rates(
    answer: "BatchScalingResult", ax: "Axes", learning_rate: str = "learning_rate", momentum: str | None = None
) -> "Axes":
    """Draws the best learning rate against the batch size, with fits of three laws; circles mark edges of the space.

    Args:
      answer: the answer of a batch-scaling study.
      ax: where to draw.
      learning_rate: the name of that hyperparameter.
      momentum: the name of the momentum, for the effective learning rate, learning rate / (1 − momentum).

    Returns:
      ``ax``.
    """
    sizes = np.array([point.batch_size for point in answer.points], float)
    rates = answer.best_rates(learning_rate, momentum)
    edges = np.array([learning_rate in point.edges for point in answer.points], bool)
    _logarithmic(ax, answer.batch_sizes)
    ax.set(xlabel="batch size", ylabel=f"best {learning_rate}" + (f" / (1 − {momentum})" if momentum else ""))
    if np.isfinite(rates).sum() >= 3:
        along = np.geomspace(sizes[0], sizes[-1], 200)
        styles = {"linear": (GREY, "--"), "square root": (ORANGE, "-."), "surge": (RED, "-")}
        for fit in answer.fit_rates(learning_rate, momentum):
            color, dashes = styles[fit.law]
            ax.plot(along, fit.rate(along), color=color, linestyle=dashes, linewidth=1.2, label=fit.law)
    ax.plot(sizes, rates, "o", color=BLUE, markersize=4)
    if edges.any():
        ax.plot(sizes[edges], rates[edges], "o", color="none", markeredgecolor=RED, markersize=9, label="at an edge")
    add_legend(ax)
    return ax


def _logarithmic(ax: "Axes", batch_sizes: Sequence[int]) -> None:
    """Makes both axes logarithmic, with ticks at batch sizes, six at most, and at 1, 2, 5, 10, … steps."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(batch_sizes[:: ceil_div(len(batch_sizes), 6)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_minor_formatter(NullFormatter())
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
