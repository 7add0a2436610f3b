"""The answer of a transfer study as text, and what to doubt of it, in sentences."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hpjax.core.format import count, metric, table

if TYPE_CHECKING:
    from hpjax.studies.transfer_result import TransferPoint, TransferResult

# A rate of which the interval is wider, in octaves, is known badly.
WIDE = 1.0


def report_of(answer: "TransferResult") -> str:
    """Returns a report: a table with a row for each model, how far the best rate moves, and what to doubt."""
    header = ["", "width", "depth", "best learning rate", "95 %", answer.result.objective.metric]
    rows = [
        [
            point.parametrization,
            str(point.width),
            "-" if point.depth is None else str(point.depth),
            _rate(point.rate.value),
            f"{_rate(point.rate.low)} to {_rate(point.rate.high)}",
            metric(point.loss),
        ]
        for point in answer.points
    ]
    kept = [i for i in range(len(header)) if any(row[i] not in ("", "-") for row in rows)]
    shown = table([header[i] for i in kept], [[row[i] for i in kept] for row in rows])
    drifts = [
        f"{drift.parametrization or 'the best rate'}: {drift.octaves.value:+.2f} octaves "
        f"({drift.octaves.low:+.2f} to {drift.octaves.high:+.2f}) a doubling of the {drift.over}"
        + ("" if drift.at is None else f" at {'depth' if drift.over == 'width' else 'width'} {drift.at}")
        for drift in answer.drifts
    ]
    return "\n".join([shown, *drifts, *answer.doubts])


def doubts_of(answer: "TransferResult") -> tuple[str, ...]:
    """Returns what to doubt of an answer, the gravest first."""
    return (*_lost(answer), *_at_edges(answer), *_wide(answer), *_few_sizes(answer))


def _lost(answer: "TransferResult") -> Iterator[str]:
    for point in answer.points:
        if not np.isfinite(point.loss):
            yield f"{_named(point)}: on some seed each rate diverged, so that none is best. Give lower rates."


def _at_edges(answer: "TransferResult") -> Iterator[str]:
    for point in answer.points:
        if point.edge is not None:
            yield (
                f"{_named(point)}: the best rate is the {point.edge} that was tried, so that it may lie beyond. Give "
                f"{'lower' if point.edge == 'lowest' else 'higher'} rates."
            )


def _wide(answer: "TransferResult") -> Iterator[str]:
    wide = [_named(p) for p in answer.points if p.rate.low > 0 and np.log2(p.rate.high / p.rate.low) > WIDE]
    if wide:
        seeds = count(answer.result.lane_status.shape[1], "seed")
        yield f"{', '.join(wide)}: {seeds} know the best rate to more than a factor of two only. Add replicates."


def _few_sizes(answer: "TransferResult") -> Iterator[str]:
    for over in dict.fromkeys(drift.over for drift in answer.drifts):
        sizes = {getattr(point, over) for point in answer.points}
        if len(sizes) < 3:
            yield f"the drift over {over} is a line through {len(sizes)} points. Give a third {over}."


def _named(point: "TransferPoint") -> str:
    depth = "" if point.depth is None else f", depth {point.depth}"
    return f"{point.parametrization} width {point.width}{depth}".strip()


def _rate(value: float) -> str:
    return f"{value:.2g}"
