"""Pictures of a result, drawn with matplotlib from the numbers of ``analysis``.

Example:
  >>> result = hpx.Sweep(program, space, trials=4).run(progress=False)
  >>> figure = hpx.plot.overview(result)
  >>> len(figure.axes)
  2
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import InputError, did_you_mean, missing
from hpjax.results import analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hpjax.results.result import Result

# From Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#9A9A9A"
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
}
SHOWN_CURVES = 300
_DOTS: dict[str, Any] = {"fmt": "o", "color": BLUE, "markersize": 4, "linewidth": 1, "capsize": 2}


def overview(result: "Result", names: Sequence[str] | None = None) -> "Figure":
    """The objective's curves, and its best value over training against each hyperparameter.

    Args:
      result: what to draw.
      names: hyperparameters; by default all that vary.

    Raises:
      InputError: no such hyperparameter.
      ImportError: matplotlib is missing.
    """
    for name in names or ():
        if name not in result.names:
            raise InputError("plot", name, "must be a hyperparameter", did_you_mean(name, result.names))
    chosen = list(names) if names else analysis.varied(result)
    columns = min(3, len(chosen) + 1)
    with _figure(columns, ceil_div(len(chosen) + 1, columns)) as (figure, panels):
        draw_curves(result, result.objective.metric, panels[0])
        for name, panel in zip(chosen, panels[1:], strict=False):
            draw_axis(result, name, result.objective.metric, panel)
        for panel in panels[len(chosen) + 1 :]:
            panel.set_visible(False)
    return figure


@contextmanager
def _figure(columns: int, rows: int) -> "Iterator[tuple[Figure, list[Axes]]]":
    """A figure of so many panels, in the style of this module while they are drawn."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise missing("hpx.plot", "matplotlib") from None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.9 * rows), layout="constrained")
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def draw_curves(result: "Result", metric: str, ax: "Axes") -> "Axes":
    """A metric over the steps: all lanes thin, those of the best trial in front."""
    trials, steps, values = analysis.curves(result, metric)
    shown = np.isin(trials, trials[:: result.lane_status.shape[1] * max(1, len(trials) // SHOWN_CURVES)])
    shown &= ~np.isin(trials, result.ranking[:1])
    ax.plot(steps[shown].T, values[shown].T, color=GREY, linewidth=0.6, alpha=0.4)
    _draw_best(result, trials, steps, values, ax)
    if result.ranking:
        ax.legend(frameon=False, fontsize=8)
    _limit(ax, result.last(metric)[result.ranking], result)
    ax.set(xlabel="step", ylabel=_plain(metric))
    return ax


def _draw_best(result: "Result", trials: Any, steps: Any, values: Any, ax: "Axes") -> None:
    """The curves of the best trial."""
    best = np.flatnonzero(np.isin(trials, result.ranking[:1]))
    for row in best:
        label = f"trial {trials[row]}, the best" if row == best[0] else ""
        ax.plot(steps[row], values[row], color=RED, linewidth=1.8 / len(best) ** 0.5, label=label)


def draw_axis(result: "Result", name: str, metric: str, ax: "Axes") -> "Axes":
    """A metric against one hyperparameter, the objective's at its best over training; diverged trials are marked."""
    trials, x, y, diverged, categories, scale = analysis.axis(result, name, metric)
    x, diverged = _placed(x, scale), _placed(diverged, scale)
    if categories:
        # Side by side, so that points of one category do not hide each other.
        x = x + np.random.default_rng(0).uniform(-0.15, 0.15, len(x))
        ax.set_xticks(range(len(categories)), map(_plain, categories))
    _limit(ax, y, result)
    inside = (y >= ax.get_ylim()[0]) & (y <= ax.get_ylim()[1])
    edge = 0.98 if result.objective.direction == "minimize" else 0.02
    ax.scatter(x[inside], y[inside], s=10, color=BLUE, alpha=0.6, linewidths=0)
    if not inside.all():
        beyond = np.full((~inside).sum(), edge)
        label = f"{(~inside).sum()} beyond"
        ax.plot(x[~inside], beyond, "^", color=GREY, markersize=3, transform=ax.get_xaxis_transform(), label=label)
    _scaled(ax, "x", name, scale)
    if metric == result.objective.metric and result.ranking:
        best = trials == result.ranking[0]
        ax.scatter(x[best], y[best], s=60, color=RED, marker="*", zorder=3)
    if len(diverged):
        ax.plot(
            diverged,
            np.full(len(diverged), edge),
            "x",
            color=ORANGE,
            markersize=4,
            transform=ax.get_xaxis_transform(),
            label=f"{len(diverged)} diverged",
        )
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=8)
    ax.set_ylabel(_plain(metric))
    return ax


def _placed(values: Any, scale: str) -> Any:
    """Where values of a hyperparameter stand on its axis: those whose distance to 1 matters, by that."""
    return 1 - values if scale == "reverse log" else values


def _scaled(ax: "Axes", which: str, name: str, scale: str) -> None:
    """Scale and label of an axis; what is drawn rises to the right and upwards."""
    ax.set(**{f"{which}label": _plain(f"1 − {name}" if scale == "reverse log" else name)})
    if scale in ("log", "reverse log"):
        ax.set(**{f"{which}scale": "log"})
    if scale == "reverse log":
        (ax.xaxis if which == "x" else ax.yaxis).set_inverted(True)


def draw_map(result: "Result", across: str, up: str, metric: str, ax: "Axes") -> "Axes":
    """A metric over two hyperparameters, such as the learning rate and weight decay; diverged trials are crosses."""
    found = analysis.map_of(result, across, up, metric)
    x, y = (_placed(values, scale) for values, scale in zip((found.x, found.y), found.scales, strict=True))
    lost = [_placed(values, scale) for values, scale in zip(found.diverged.T, found.scales, strict=True)]
    if len(found.z):
        low, high = _range(found.z, result)
        shades, beyond = ("cividis_r", "max") if result.objective.direction == "minimize" else ("cividis", "min")
        dots = ax.scatter(x, y, c=found.z, vmin=low, vmax=high, cmap=shades, s=18, linewidths=0)
        figure = ax.get_figure()
        if figure is not None:
            figure.colorbar(dots, ax=ax, label=_plain(metric), extend=beyond)
        best = found.trials == (result.ranking[0] if result.ranking else -1)
        ax.scatter(x[best], y[best], s=90, color=RED, marker="*", zorder=3, label="the best")
    if len(found.diverged):
        label = f"{len(found.diverged)} diverged"
        ax.plot(*lost, "x", color=ORANGE, markersize=4, label=label)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    for which, name, scale in zip("xy", (across, up), found.scales, strict=True):
        _scaled(ax, which, name, scale)
    return ax


def draw_rungs(result: "Result", ax: "Axes") -> "Axes":
    """The curves of a race, those that were stopped grey; at each rung stands how many trials trained up to it."""
    trials, steps, values = analysis.curves(result, result.objective.metric)
    found, last = analysis.rungs(result), result.last(result.objective.metric)
    ax.set_xscale("log")
    for row in np.flatnonzero(np.isin(trials, result.ranking)):
        trial = trials[row]
        color, wide = (GREY, 0.6) if found.stopped[trial] else (BLUE, 1.0)
        ax.plot(steps[row], values[row], color=color, linewidth=wide, alpha=0.6)
        if found.stopped[trial]:
            stop = np.full(last.shape[1], found.ended[trial])
            ax.plot(stop, last[trial], ".", color=GREY, markersize=3, alpha=0.6)
    _draw_best(result, trials, steps, values, ax)
    if result.ranking:
        ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    _limit(ax, analysis.reached(result, result.objective.metric)[result.ranking], result)
    ends = [*found.steps.tolist(), int(found.ended.max(initial=1))]
    for step, live in zip(ends, found.live, strict=True):
        ax.axvline(step, color=GREY, linewidth=0.6, linestyle=":")
        ax.annotate(f"{live} ", (step, 0.97), xycoords=("data", "axes fraction"), ha="right", va="top", fontsize=8)
    ax.minorticks_off()
    ax.set_xticks(ends, [f"{step:,}" for step in ends])
    ax.set(xlabel="step", ylabel=_plain(result.objective.metric))
    return ax


def draw_lineage(result: "Result", ax: "Axes") -> "Axes":
    """A population: a row a trial, the best below; lines lead from whose state was taken over to who took it.

    The ancestry of the best trial is red.
    """
    order = [*result.ranking, *(t for t in range(len(result)) if t not in set(result.ranking))]
    row = {trial: number for number, trial in enumerate(order)}
    for trial in order:
        ax.plot([0, result.lane_step[trial].max()], [row[trial]] * 2, color=GREY, linewidth=0.6, alpha=0.6)
    for each in result.lineage:
        ax.plot([each.step] * 2, [row[each.source], row[each.trial]], color=BLUE, linewidth=0.5, alpha=0.5)
        ax.plot(each.step, row[each.trial], "o", color=BLUE, markersize=1.5)
    if result.ranking:
        mine = analysis.ancestry(result, result.ranking[0])
        for at, (trial, begin, end) in enumerate(mine):
            ax.plot([begin, end], [row[trial]] * 2, color=RED, linewidth=1.8, label="" if at else "the best's ancestry")
            if at:
                ax.plot([begin] * 2, [row[mine[at - 1][0]], row[trial]], color=RED, linewidth=1.2)
        ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    ax.set(xlabel="step", ylabel="trials, by rank", ylim=(-0.7, len(order) - 0.3))
    return ax


def pictures(result: "Result") -> "dict[str, Figure]":
    """All figures that a result is good for, by name: ``overview``, ``map``, ``rungs`` and ``lineage``.

    The map is of learning rate and weight decay where the sweep has them, else of the first two numbers that vary.
    """
    found = {"overview": overview(result)}
    names = sorted(analysis.numbers(result), key=lambda name: name not in ("learning_rate", "weight_decay"))
    if len(names) > 1:
        found["map"] = _alone(draw_map, result, names[0], names[1], result.objective.metric)
    if (result.statuses == "stopped").any():
        found["rungs"] = _alone(draw_rungs, result)
    if result.lineage:
        found["lineage"] = _alone(draw_lineage, result)
    return found


def _alone(draw: "Callable[..., Axes]", *of: Any) -> "Figure":
    """What ``draw`` draws, in a figure of its own."""
    with _figure(1, 1) as (figure, panels):
        draw(*of, panels[0])
    return figure


def _range(values: Any, result: "Result") -> tuple[float, float]:
    """The ends of what to show of the objective's values, ascending."""
    flip = result.objective.value
    low, high = sorted(map(flip, analysis.limits(flip(values))))
    return low, high


def _limit(ax: "Axes", values: Any, result: "Result") -> None:
    ax.set_ylim(*_range(values, result))


def _plain(name: str) -> str:
    """A name as it is: what stands between dollars is no formula."""
    return name.replace("$", r"\$")
