"""Draws the scores of optimizers over several tasks: performance profiles, and steps to the target of each task."""

from typing import TYPE_CHECKING

import numpy as np

from hpjax.results.drawing import add_legend, literal, new_figure
from hpjax.results.style import Width
from hpjax.studies.plot.dots import draw_dots
from hpjax.studies.plot.optimizers import draw_steps, hues

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hpjax.studies.optimizers_tasks import OptimizerScores

# Inches.
HEIGHT = 1.9


def profiles(scores: "OptimizerScores", width: Width = "double") -> "Figure":
    """Draws performance profiles and scores of optimizers, and their steps to the target of each task.

    Args:
      scores: those of optimizers over tasks.
      width: that of the figure: ``"single"``, 3.3 inches, or ``"double"``, 6.8 inches, columns of a paper.

    Raises:
      ImportError: matplotlib is missing; the message says how to install it.
      InputError: there is no such width.
    """
    columns = 2 if width == "double" else 1
    with new_figure(len(scores.answers) + 2, columns, width, HEIGHT) as (figure, panels):
        draw_profiles(scores, panels[0])
        draw_scores(scores, panels[1])
        for panel, (task, answer) in zip(panels[2:], scores.answers.items(), strict=True):
            draw_steps(answer, panel)
            panel.set_xlabel(literal(f"{task}: steps to the target"))
    return figure


def draw_profiles(scores: "OptimizerScores", ax: "Axes") -> "Axes":
    """Draws for each optimizer the share of tasks on which it takes at most so many times the steps of the fastest.

    Args:
      scores: those of optimizers over tasks.
      ax: where to draw.

    Returns:
      ``ax``.
    """
    colors = hues(list(scores.ratios))
    for i, (name, ratios) in enumerate(scores.ratios.items()):
        # Where the share rises, and where the axis ends.
        places = np.array([1.0, *sorted(ratio for ratio in ratios if 1 < ratio <= scores.worst), scores.worst])
        shares = [np.mean(np.array(ratios) <= place) for place in places]
        # Wider behind and narrower in front, so that lines that coincide are seen.
        wide = 3.5 - 2.5 * i / max(len(scores.ratios) - 1, 1)
        ax.step(places, shares, where="post", color=colors[name], linewidth=wide, label=literal(name))
    ax.set(xlim=(1, scores.worst), ylim=(-0.05, 1.05), xlabel="times the steps of the fastest", ylabel="share of tasks")
    add_legend(ax)
    return ax


def draw_scores(scores: "OptimizerScores", ax: "Axes") -> "Axes":
    """Draws a dot for the score of each optimizer, the best on top, and a bar for its interval.

    Args:
      scores: those of optimizers over tasks.
      ax: where to draw.

    Returns:
      ``ax``.
    """
    names = list(scores.scores)[::-1]
    draw_dots(ax, names, [scores.scores[name] for name in names])
    ax.set(xlim=(-0.05, 1.05), xlabel="score: area under the profile")
    return ax
