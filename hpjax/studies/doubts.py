"""What to doubt of the answer of a batch-scaling study, in sentences."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hpjax.core.format import count, metric, show

if TYPE_CHECKING:
    from hpjax.studies.batch_scaling_result import BatchScalingResult

# With fewer evaluations than this up to the target, steps are known no better than to a fifth.
FINE = 5


def doubts_of(answer: "BatchScalingResult") -> tuple[str, ...]:
    """Returns what to doubt of an answer, the gravest first."""
    return (
        *_missing_points(answer),
        *_few_trials(answer),
        *_undetermined_fit(answer),
        *_at_edges(answer),
        *_coarse_steps(answer),
    )


def _missing_points(answer: "BatchScalingResult") -> Iterator[str]:
    for size, ended in zip(answer.batch_sizes, answer.counts, strict=True):
        if size in answer.missing:
            yield (
                f"batch size {size}: no point. Of {count(ended.complete, 'complete trial')} none reached "
                f"{show(answer.target)}; {ended.diverged} diverged, {ended.incomplete} are incomplete. "
                "Give more steps, more trials or an easier target."
            )


def _few_trials(answer: "BatchScalingResult") -> Iterator[str]:
    for size, ended in zip(answer.batch_sizes, answer.counts, strict=True):
        if answer.complete is not None and ended.complete < answer.complete:
            complete = count(ended.complete, "complete trial")
            yield f"batch size {size}: {complete}, fewer than complete={answer.complete}. Add trials."


def _undetermined_fit(answer: "BatchScalingResult") -> Iterator[str]:
    if len(answer.points) < 3:
        return
    first, last = answer.points[0].batch_size, answer.points[-1].batch_size
    critical, (low, high) = answer.fit.critical_batch_size, answer.interval_of_critical
    if not first <= critical <= last:
        side = "smaller" if critical < first else "larger"
        yield (
            f"the critical batch size, {metric(critical)}, is outside of the batch sizes, which do not determine it. "
            f"Add {side} batch sizes."
        )
    elif low < first or high > last:
        side = "larger" if low >= first else "smaller" if high <= last else "smaller and larger"
        yield (
            f"the interval of the critical batch size, {metric(low)} to {metric(high)}, reaches beyond the batch "
            f"sizes. Add {side} batch sizes."
        )


def _at_edges(answer: "BatchScalingResult") -> Iterator[str]:
    for point in answer.points:
        for name, which in point.edges.items():
            yield (
                f"batch size {point.batch_size}: the best {name}, {show(point.hparams[name])}, is at the {which} end "
                "of its domain. Widen that domain if a value beyond makes sense."
            )


def _coarse_steps(answer: "BatchScalingResult") -> Iterator[str]:
    for point in answer.points:
        if point.evaluations < FINE:
            often = ", or evaluate more often." if point.evaluations < point.steps else "."
            yield (
                f"batch size {point.batch_size}: the target was met at evaluation {point.evaluations}, so that steps "
                f"are known to within {1 / point.evaluations:.0%}. Choose a harder target{often}"
            )
