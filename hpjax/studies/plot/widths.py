"""Draws what depends on the width of a model: best learning rates, and the size of activations."""

from typing import TYPE_CHECKING

import numpy as np

from hpjax.results.drawing import add_legend, limits_of, literal, new_figure, set_log, share_legend
from hpjax.results.style import DOTS, Width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hpjax.studies.coordinate_check import CoordinateCheck
    from hpjax.studies.transfer_result import TransferResult


def transfer(answer: "TransferResult", width: Width = "double") -> "Figure":
    """Draws the metric against the learning rate, a panel for each parametrization and depth; see ``draw_transfer``.

    Of one width, a panel has all depths.

    Args:
      answer: the answer of a transfer study.
      width: that of the figure: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

    Raises:
      ImportError: matplotlib is missing; the message says how to install it.
      InputError: there is no such width.
    """
    one_width = len({point.width for point in answer.points}) == 1
    kinds = list(dict.fromkeys((point.parametrization, None if one_width else point.depth) for point in answer.points))
    with new_figure(len(kinds), min(len(kinds), 2 if width == "double" else 1), width) as (figure, panels):
        for (parametrization, depth), panel in zip(kinds, panels, strict=True):
            draw_transfer(answer, panel, parametrization, depth)
        low, high = (f(panel.get_ylim()[at] for panel in panels) for at, f in enumerate((min, max)))
        logarithmic = any(panel.get_yscale() == "log" for panel in panels)
        for panel in panels:
            if logarithmic:
                set_log(panel, "y")
            panel.set_ylim(low, high)
        share_legend(figure, panels)
    return figure


def draw_transfer(answer: "TransferResult", ax: "Axes", parametrization: str = "", depth: int | None = None) -> "Axes":
    """Draws the mean over seeds of the metric against the learning rate, a line a model, darker where it is smaller.

    Dots are best rates with their intervals.

    Args:
      answer: the answer of a transfer study.
      ax: where to draw.
      parametrization, depth: of the points to draw; None for all depths.

    Returns:
      ``ax``.
    """
    from matplotlib import colormaps

    points = [each for each in answer.points if each.parametrization == parametrization and depth in (None, each.depth)]
    varied = [name for name in ("width", "depth") if len({getattr(point, name) for point in points}) > 1] or ["width"]
    colors = colormaps["cividis"](np.linspace(0, 0.9, len(points)))
    shown = []
    for point, color in zip(points, colors, strict=True):
        means = point.curve.mean(axis=1)
        means = np.where(np.isfinite(means), means, np.nan)
        label = ", ".join(f"{name} {getattr(point, name)}" for name in varied)
        ax.plot(answer.rates, means, "-", color=color, linewidth=1.2, label=label)
        if np.isfinite(point.rate.value):
            ends = [[point.rate.value - point.rate.low], [point.rate.high - point.rate.value]]
            ax.errorbar([point.rate.value], [point.loss], xerr=ends, **{**DOTS, "color": color})
        shown.append(means)
    set_log(ax, "x")
    # The worst rates would press the best ones into a line.
    objective, found = answer.result.objective, np.concatenate(shown)
    low, high, logarithmic = limits_of(found, answer.result, objective.metric, [point.loss for point in points])
    if logarithmic:
        set_log(ax, "y")
    ax.set_ylim(low, high)
    title = ", ".join(
        [*([parametrization] if parametrization else []), *([f"depth {depth}"] if depth is not None else [])]
    )
    ax.set(xlabel="learning rate", ylabel=literal(f"final {objective.metric}"), title=title)
    add_legend(ax)
    return ax


def coordinates(check: "CoordinateCheck", width: Width = "double") -> "Figure":
    """Draws the size of activations, and that of their updates, against the width of a model, a line a layer.

    Args:
      check: what ``hpx.mup.coordinate_check`` returned.
      width: that of the figure: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

    Raises:
      ImportError: matplotlib is missing; the message says how to install it.
      InputError: there is no such width.
    """
    with new_figure(2, 2 if width == "double" else 1, width) as (figure, panels):
        from matplotlib import colormaps

        colors = colormaps["cividis"](np.linspace(0, 0.9, len(check.layers)))
        for panel, values, label in zip(panels, (check.sizes, check.updates), ("size", "update"), strict=True):
            for layer, own, color in zip(check.layers, values, colors, strict=True):
                panel.plot(check.widths, own, "o-", markersize=3, linewidth=1.2, color=color, label=literal(layer))
            panel.set(xlabel="width", ylabel=f"{label} of activations (RMS)")
            for which in ("x", "y"):
                set_log(panel, which)
        share_legend(figure, panels)
    return figure
