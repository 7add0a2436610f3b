"""The answer of a study of branches as text, and what to doubt of it, in sentences."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hpjax.core.format import show, table

if TYPE_CHECKING:
    from hpjax.studies.branches_result import BranchesResult

# Seeds below which an interval says little.
FEW = 3


def report_of(answer: "BranchesResult") -> str:
    """Returns a report: a table with a row for each start, how the critical batch size grows, and what to doubt."""
    metric = answer.result.objective.metric
    header = ["examples seen", "critical batch size", "95 %", *(f"batch {size}" for size in answer.batch_sizes[1:])]
    rows = [
        [
            f"{point.examples:,}",
            ("≥ " if point.edge == "highest" else "") + _size(point.critical.value),
            f"{_size(point.critical.low)} to {_size(point.critical.high)}",
            *(f"{excess:+.3f}" for excess in point.excess.mean(axis=1)[1:]),
        ]
        for point in answer.points
    ]
    lines = [table(header, rows)]
    lines.append(
        f"columns of batch sizes: {metric} less that with batches of {answer.batch_sizes[0]}; "
        f"a batch is critical where it passes {show(answer.tolerance)}"
    )
    if len(answer.points) >= 3:
        lines.append(f"critical batch size = {answer.law}, with the examples seen as x")
    return "\n".join([*lines, *answer.doubts])


def doubts_of(answer: "BranchesResult") -> tuple[str, ...]:
    """Returns what to doubt of an answer, the gravest first."""
    return (*_lost(answer), *_at_edges(answer), *_few_seeds(answer))


def _lost(answer: "BranchesResult") -> Iterator[str]:
    for point in answer.points:
        if not np.isfinite(point.excess).all():
            lost = np.flatnonzero(~np.isfinite(point.excess).all(axis=1))
            sizes = [answer.batch_sizes[i] for i in lost]
            yield (
                f"after {point.examples:,} examples branches diverged with batches of "
                f"{', '.join(map(str, sizes))}: they count as worse than any tolerance."
            )


def _at_edges(answer: "BranchesResult") -> Iterator[str]:
    for point in answer.points:
        if point.edge == "highest":
            yield f"after {point.examples:,} examples no batch size lost more than the tolerance. Give larger ones."
        if point.edge == "lowest":
            yield (
                f"after {point.examples:,} examples the second batch size lost more than the tolerance already, "
                "so that the critical one may be smaller than found. Give smaller ones."
            )


def _few_seeds(answer: "BranchesResult") -> Iterator[str]:
    seeds = len(answer.points[0].by_seed)
    if seeds < FEW:
        yield f"intervals are those of {seeds} seed{'s' * (seeds > 1)}. Give starts with three replicates or more."


def _size(size: float) -> str:
    return f"{size:.3g}"
