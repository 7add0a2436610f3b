"""The answer of a comparison of optimizers as text, and what to doubt of it, in sentences."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hpjax.core.format import count, metric, show, table
from hpjax.results.analysis import pairs_needed

if TYPE_CHECKING:
    from hpjax.studies.optimizers_result import OptimizerPoint, OptimizersResult

# A space is too large, or of no use, if more than this share of its trials diverged.
DIVERGED_SHARE = 0.5


def report_of(answer: "OptimizersResult") -> str:
    """Returns a report: a table with a row for each optimizer, the best one first, and what to doubt."""
    objective, judging = answer.result.objective, answer.result.lane_status.shape[1] - answer.choosing
    head = f"{answer.choosing} seeds chose the best trial of each optimizer, {judging} others judge it"
    header = ["optimizer", objective.metric, "behind by", "95 %", "P(best is better)"]
    if answer.target is not None:
        studies, trials = answer.studies
        head += (
            f"; steps to {objective.metric} {show(answer.target)}: the median of {studies} tuning studies of "
            f"{count(trials, 'trial')}"
        )
        header += ["steps to target", "95 %", "seconds", "reached by"]
    rows = [_row(answer, point) for point in answer.points]
    return "\n".join([head, table([*header, "hyperparameters"], rows), *answer.doubts])


def _row(answer: "OptimizersResult", point: "OptimizerPoint") -> list[str]:
    hparams = ", ".join(f"{name}={_number(value)}" for name, value in point.hparams.items())
    best = point is answer.points[0] or not np.isfinite(point.gain.value)
    behind = (
        ["-", "-", "-"]
        if best
        else [
            metric(point.gain.value),
            f"{metric(point.gain.low)} to {metric(point.gain.high)}",
            f"{point.beaten.value:.2f}",
        ]
    )
    steps = []
    if answer.target is not None:
        steps = ["-", "-", "-", f"{point.reached} of {len(answer.times()[point.optimizer])}"]
        if np.isfinite(point.steps.value):
            ends = " to ".join("∞" if np.isinf(end) else f"{end:,.0f}" for end in point.steps[1:])
            steps[:3] = [f"{point.steps.value:,.0f}", ends, metric(point.seconds)]
    return [point.optimizer, metric(point.value), *behind, *steps, hparams]


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else show(value)


def doubts_of(answer: "OptimizersResult") -> tuple[str, ...]:
    """Returns what to doubt of an answer, the gravest first."""
    return (*_missing(answer), *_unreached(answer), *_at_edges(answer), *_diverged(answer), *_few_seeds(answer))


def _missing(answer: "OptimizersResult") -> Iterator[str]:
    for point in answer.points:
        if point.trial is None:
            yield (
                f"{point.optimizer}: no trial is complete on the seeds that choose; {point.diverged} diverged. Give "
                "lower learning rates, or more trials."
            )


def _unreached(answer: "OptimizersResult") -> Iterator[str]:
    lost = [point.optimizer for point in answer.points if np.isinf(point.steps.value)]
    if len(lost) == len(answer.points):
        yield f"no optimizer reaches the target {show(answer.target)} in half of its studies. Read an easier one."
    elif lost:
        yield f"{', '.join(lost)}: the target is not reached in half of the tuning studies."


def _at_edges(answer: "OptimizersResult") -> Iterator[str]:
    for point in answer.points:
        for name, which in point.edges.items():
            yield (
                f"{point.optimizer}: the best {name}, {_number(point.hparams[name])}, is at the {which} end of its "
                "domain, so that a wider one may make this optimizer better."
            )


def _diverged(answer: "OptimizersResult") -> Iterator[str]:
    many = len(answer.result.hparams) // len(answer.points)
    for point in answer.points:
        if point.trial is not None and point.diverged > DIVERGED_SHARE * many:
            yield f"{point.optimizer}: {point.diverged} of {many} trials diverged: much of its search was of no use."


def _few_seeds(answer: "OptimizersResult") -> Iterator[str]:
    judging, needed = answer.result.lane_status.shape[1] - answer.choosing, pairs_needed()
    if judging < needed:
        yield (
            f"{count(judging, 'seed')} judge; {needed} tell an optimizer that is better on three seeds of four from "
            f"one that is not. Write replicates={2 * needed} if intervals are too wide."
        )
