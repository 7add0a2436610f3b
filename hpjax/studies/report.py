"""The answer of a batch-scaling study as text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hpjax.core.format import count, metric, show, table

if TYPE_CHECKING:
    from hpjax.studies.batch_scaling_result import BatchScalingResult


def report_of(answer: "BatchScalingResult") -> str:
    """Returns a report: a table with a row for each batch size, what the fits say, and what to doubt."""
    points = len(answer.points)
    fits = _fits(answer) if points >= 3 else [f"no fit: {count(points, 'point')} of 3 needed"]
    return "\n".join([f"steps to {answer.goal}", _points(answer), *fits, *answer.doubts])


def _points(answer: "BatchScalingResult") -> str:
    columns = answer.table()
    numbers = ["steps", "steps_high", "examples", "trial"]
    points = {point.batch_size: point for point in answer.points}
    rows = []
    for i, (size, counts) in enumerate(zip(answer.batch_sizes, answer.counts, strict=True)):
        point = points.get(size)
        cells = [f"{columns[name][i]:,.0f}" if point else "-" for name in numbers]
        own = [show(point.hparams.get(name, "-")) if point else "-" for name in answer.other_names]
        regime = answer.fit.regime(size) if point and len(points) >= 3 else "-"
        rows.append([f"{size:,}", *cells, *own, *map(str, counts), regime])
    return table([answer.name, *numbers, *answer.other_names, *answer.counts[0]._fields, "regime"], rows)


def _fits(answer: "BatchScalingResult") -> Iterator[str]:
    (low, high), fit = answer.interval_of_critical, answer.fit
    yield (
        f"critical batch size {metric(fit.critical_batch_size)} (95 %: {metric(low)} to {metric(high)}); "
        f"limits of the fit {metric(fit.minimum_steps)} steps, {metric(fit.minimum_examples)} examples"
    )
    yield f"slopes from point to point: {', '.join(f'{slope:.2f}' for slope in answer.slopes)}"
    momenta = [None, "momentum"] if "momentum" in answer.result.names else [None]
    for momentum in momenta if "learning_rate" in answer.result.names else []:
        if np.isfinite(answer.best_rates(momentum=momentum)).sum() >= 3:
            laws = ", ".join(f"{law.law} {metric(law.error)}" for law in answer.fit_rates(momentum=momentum))
            rate = "learning_rate / (1 − momentum)" if momentum else "learning_rate"
            yield f"best {rate} by law, with the error of its logarithm: {laws}"
