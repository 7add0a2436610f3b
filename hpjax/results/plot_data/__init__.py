"""The numbers that pictures of a sweep show; ``plot`` draws them."""

from hpjax.results.plot_data.curves import Curves, Quantiles, curves, quantiles
from hpjax.results.plot_data.ends import ended_earlier, final_label, limits, reached, spans_decades
from hpjax.results.plot_data.history import (
    Cost,
    Rungs,
    Schedule,
    Schedules,
    ancestry,
    cost,
    rungs,
    schedules,
)
from hpjax.results.plot_data.points import (
    Axis,
    Contour,
    Map,
    Parallel,
    axis,
    coding,
    contour,
    map_of,
    numbers,
    parallel,
)

__all__ = [
    "Axis",
    "Contour",
    "Cost",
    "Curves",
    "Map",
    "Parallel",
    "Quantiles",
    "Rungs",
    "Schedule",
    "Schedules",
    "ancestry",
    "axis",
    "coding",
    "contour",
    "cost",
    "curves",
    "ended_earlier",
    "final_label",
    "limits",
    "map_of",
    "numbers",
    "parallel",
    "quantiles",
    "reached",
    "rungs",
    "schedules",
    "spans_decades",
]
