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
        f"columns of batch sizes: by how much {metric} is worse than with batches of {answer.batch_sizes[0]}; "
        f"a batch size is critical where that passes {show(answer.tolerance)}"
    )
    if answer.has_law:
        lines.append(f"critical batch size = {answer.law}, with the examples seen as x")
    return "\n".join([*lines, *answer.doubts])


def doubts_of(answer: "BranchesResult") -> tuple[str, ...]:
    """Returns what to doubt of an answer, the gravest first."""
    return (*_lost(answer), *_at_edges(answer), *_censored(answer), *_few_seeds(answer))


def _lost(answer: "BranchesResult") -> Iterator[str]:
    if answer.lost:
        yield (
            f"seeds {', '.join(map(str, answer.lost))} are left out: branches with batches of {answer.batch_sizes[0]} "
            "diverged, with which the others are compared. Give lower learning rates."
        )
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


def _censored(answer: "BranchesResult") -> Iterator[str]:
    ends = [point.examples for point in answer.points if point.edge is not None]
    if ends and answer.has_law:
        places = ", ".join(f"{end:,}" for end in ends)
        yield (
            f"the law takes the batch sizes after {places} examples as found, near an end of those that were tried: "
            "the true ones may have another power."
        )


def _few_seeds(answer: "BranchesResult") -> Iterator[str]:
    seeds = len(answer.points[0].by_seed)
    if seeds < FEW:
        yield f"intervals are those of {seeds} seed{'s' * (seeds > 1)}. Give starts with three replicates or more."


def _size(size: float) -> str:
    return f"{size:.3g}"
