"""The answer of a study of schedules as text, and what to doubt of it, in sentences."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hpjax.core.format import count, metric, show, table
from hpjax.results.analysis import pairs_needed

if TYPE_CHECKING:
    from hpjax.studies.schedules_result import FamilyPoint, SchedulesResult


def report_of(answer: "SchedulesResult") -> str:
    """Returns a report: a table with a row for each family, the largest gain first, and what to doubt."""
    metric_name = answer.result.objective.metric
    judging = answer.result.lane_status.shape[1] - answer.choosing
    head = (
        f"gain in {metric_name} over {answer.baseline}; {answer.choosing} seeds chose the best trial of each family, "
    )
    head += f"{judging} others judge it"
    # Those without a gain last.
    points = sorted(answer.points, key=lambda point: -np.nan_to_num(point.gain.value, nan=-np.inf))
    header = [answer.name, "gain", "95 %", "P(better)", metric_name, "trial", "hyperparameters"]
    return "\n".join([head, table(header, [_row(answer, point) for point in points]), *answer.doubts])


def _row(answer: "SchedulesResult", point: "FamilyPoint") -> list[str]:
    hparams = ", ".join(f"{name}={_number(value)}" for name, value in point.hparams.items())
    if point.family == answer.baseline or not np.isfinite(point.gain.value):
        compared = ["-", "-", "-"]
    else:
        gain = point.gain
        compared = [metric(gain.value), f"{metric(gain.low)} to {metric(gain.high)}", f"{point.better.value:.2f}"]
    return [point.family, *compared, metric(point.value), str(point.trial), hparams]


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else show(value)


def doubts_of(answer: "SchedulesResult") -> tuple[str, ...]:
    """Returns what to doubt of an answer, the gravest first."""
    return (
        *_missing_points(answer),
        *_lost_seeds(answer),
        *_few_seeds(answer),
        *_sparse_search(answer),
        *_at_edges(answer),
    )


def _missing_points(answer: "SchedulesResult") -> Iterator[str]:
    for family, diverged in zip(answer.families, answer.diverged, strict=True):
        if family in answer.missing:
            yield (
                f"{family}: no point, since no trial is complete on the seeds that choose; {diverged} diverged. "
                "Give lower learning rates, or more trials."
            )


def _lost_seeds(answer: "SchedulesResult") -> Iterator[str]:
    judging = answer.result.lane_status.shape[1] - answer.choosing
    for point in answer.points:
        if point.judges < judging and answer.baseline not in answer.missing:
            yield (
                f"{point.family}: judged on {point.judges} of {judging} seeds, since it or {answer.baseline} diverged "
                "on the others."
            )


def _few_seeds(answer: "SchedulesResult") -> Iterator[str]:
    replicates, needed = answer.result.lane_status.shape[1], pairs_needed()
    if replicates - answer.choosing < needed:
        yield (
            f"{count(replicates - answer.choosing, 'seed')} judge; {needed} tell a family that is better on three "
            f"seeds of four from one that is not. Write replicates={2 * needed} if intervals are too wide."
        )


def _sparse_search(answer: "SchedulesResult") -> Iterator[str]:
    base = next((point.lead for point in answer.points if point.family == answer.baseline), np.nan)
    others = [point for point in answer.points if point.family != answer.baseline]
    sparse = [point.family for point in others if max(point.lead, base) > abs(point.gain.value)]
    if sparse:
        yield (
            f"the luck of the search may decide about {', '.join(sparse)}: there the second-best trial, or that of "
            f"{answer.baseline}, is worse than the best by more than the gain. Add trials."
        )


def _at_edges(answer: "SchedulesResult") -> Iterator[str]:
    for point in answer.points:
        for name, which in point.edges.items():
            yield (
                f"{point.family}: the best {name}, {_number(point.hparams[name])}, is at the {which} end of its "
                "domain. Widen that domain if a value beyond makes sense."
            )
