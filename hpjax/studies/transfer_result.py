"""The answer of a transfer study: the best learning rate of each width and depth, and how far it moves."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array, Floats
from hpjax.core.errors import InputError, RunError, did_you_mean
from hpjax.results.analysis import Estimate
from hpjax.results.result import Result, load
from hpjax.results.store.rows import LOST
from hpjax.results.style import Width
from hpjax.studies import plot
from hpjax.studies.study import StudyResult
from hpjax.studies.transfer_report import doubts_of, report_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What the manifest calls such a study, and the hyperparameters that it reads.
KIND = "transfer"
RATE, WIDTH, DEPTH, MUP = "learning_rate", "width", "depth", "mup"
# What the values of ``mup`` are called.
PARAMETRIZATIONS = {True: "μP", False: "standard"}

CONFIDENCE, RESAMPLES = 0.95, 2000


class TransferPoint(NamedTuple):
    """The best learning rate of a model.

    Attributes:
      parametrization: ``"μP"`` or ``"standard"``; ``""`` where the study has one alone.
      width, depth: of the model; depth is None in a study without depths.
      rate: the best learning rate, with the ends of its 95 % interval over seeds.
      loss: the least mean over seeds of the objective's metric, at one of the rates.
      edge: ``"lowest"`` or ``"highest"`` where that rate is an end of those that were tried, else None.
      curve: float (rates, seeds), the objective's metric, infinite, in the direction that is worse, where it diverged.
    """

    parametrization: str
    width: int
    depth: int | None
    rate: Estimate
    loss: float
    edge: str | None
    curve: Floats


class Drift(NamedTuple):
    """How far the best learning rate moves.

    Attributes:
      parametrization: as of points.
      over: ``"width"`` or ``"depth"``.
      at: the depth, or the width, that is the same meanwhile; None where there is one alone.
      octaves: factors of two by which the best rate grows each time that the width, or the depth, doubles, by least
        squares over the points, with the ends of its 95 % interval over seeds.
    """

    parametrization: str
    over: str
    at: int | None
    octaves: Estimate


# Compared by identity, since arrays are not equal as a whole.
@dataclass(frozen=True, eq=False)
class TransferResult(StudyResult):
    """The answer of a transfer study; ``print`` it. See ``Transfer``, the question.

    ``Transfer.run`` gives it, ``read`` makes it from the result of any such sweep, and ``load`` from its directory.

    Attributes:
      result: the result of the sweep.
      rates: float (rates,), ascending.
      points: μP first, by depth and width.
      drifts: in the same order.

    Example:
      >>> space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1, num=5), width=hpx.Choice(32, 64))
      >>> program = hpx.supervised(
      ...     model=lambda h: nn.Sequential([nn.Dense(h.width), nn.relu, nn.Dense(10)]),
      ...     optimizer=lambda h: optax.adam(h.learning_rate),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels, data=hpx.data.digits(), batch_size=64, steps=20)
      >>> result = hpx.Sweep(program, space, sampler=hpx.Grid(), replicates=3).run(progress=False)
      >>> [point.width for point in TransferResult.read(result).points]
      [32, 64]
    """

    result: Result
    rates: Floats
    points: tuple[TransferPoint, ...]
    drifts: tuple[Drift, ...]

    @classmethod
    def read(cls, result: Result) -> "TransferResult":
        """Returns the answer that a result gives, of a study or of any other grid with ``learning_rate`` and ``width``.

        Args:
          result: the result of a grid over these, and perhaps ``depth`` and ``mup``, with two replicates or more.

        Raises:
          InputError: the result has no such hyperparameters, or too few rates or replicates.
        """
        field = "TransferResult.read"
        for name in (RATE, WIDTH):
            if name not in result.names:
                raise InputError(f"{field}.name", name, "must be a hyperparameter", did_you_mean(name, result.names))
        if result.lane_status.shape[1] < 2:
            allowed = "must have two or more, of which intervals are made"
            raise InputError(f"{field}.result", "1 replicate", allowed, "Write replicates=3.")
        names = [name for name in (MUP, DEPTH, WIDTH, RATE) if name in result.names]
        values, trials = result.grid(*names)
        rates = np.array(values[-1], float)
        if len(rates) < 3:
            remedy = "Write learning_rate=hpx.LogUniform(1e-4, 1e-1, num=13)."
            raise InputError(f"{field}.result", f"{len(rates)} rates", "must be three or more", remedy)
        scores = result.objective.scores(result.last(result.objective.metric))
        scores = np.where(np.isin(result.lane_status, LOST) | ~np.isfinite(scores), np.inf, scores)
        rng = np.random.default_rng(0)
        drawn = rng.integers(0, scores.shape[1], (RESAMPLES, scores.shape[1]))
        # The same seeds are drawn of all models, since they see the same batches.
        seeds = np.concatenate([np.arange(scores.shape[1])[None], drawn])
        points, best = [], {}
        for where in np.ndindex(trials.shape[:-1]):
            point = {name: values[axis][at] for axis, (name, at) in enumerate(zip(names, where, strict=False))}
            curve = scores[trials[where]]  # (rates, seeds)
            logs = _best_logs(np.log2(rates), curve[:, seeds].mean(axis=2).T)
            key = (_called(point), point.get(DEPTH), point[WIDTH])
            best[key] = logs
            points.append(_point(result, key, rates, curve, logs))
        order = sorted(points, key=lambda point: point.parametrization == PARAMETRIZATIONS[False])
        return cls(result, rates, tuple(order), tuple(_drifts(best)))

    @classmethod
    def load(cls, directory: str | Path) -> "TransferResult":
        """Returns the answer of the study that a run directory holds, finished or still running, without its program.

        Raises:
          RunError: it is no run directory, or its run belongs to no transfer study.
        """
        answer = recorded_answer(load(directory))
        if answer is None:
            raise RunError(
                f"{str(directory)!r} was not run as a transfer study. If it is a grid over learning_rate and width: "
                "hpx.studies.TransferResult.read(hpx.load(directory))."
            )
        return answer

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """What to doubt of the answer, in sentences."""
        return doubts_of(self)

    def table(self) -> dict[str, Array]:
        """Returns columns with a row for each point."""
        columns: dict[str, list[Any]] = {
            "parametrization": [point.parametrization for point in self.points],
            WIDTH: [point.width for point in self.points],
            DEPTH: [-1 if point.depth is None else point.depth for point in self.points],
            "rate": [point.rate.value for point in self.points],
            "rate_low": [point.rate.low for point in self.points],
            "rate_high": [point.rate.high for point in self.points],
            "loss": [point.loss for point in self.points],
        }
        return {name: np.array(values) for name, values in columns.items()}

    def report(self) -> str:
        """Returns the answer as text, with what to doubt of it."""
        return report_of(self)

    def figure(self, width: Width) -> "Figure":
        """Returns the answer as a figure; see ``hpx.studies.plot.transfer``."""
        return plot.transfer(self, width)


def recorded_answer(result: Result) -> TransferResult | None:
    """Returns the answer of the study that a result belongs to, None if it belongs to no transfer study."""
    record = result.manifest.sweep.study
    return TransferResult.read(result) if record is not None and record.kind == KIND else None


def _called(point: dict[str, Any]) -> str:
    return PARAMETRIZATIONS[bool(point[MUP])] if MUP in point else ""


def _best_logs(logs: Floats, means: Floats) -> Floats:
    """Returns the logarithm of the best rate of each of several curves, (curves,).

    It is the vertex of the parabola through the least value and its neighbours; the least one itself where it is at an
    end, or beside a rate that diverged.

    Args:
      logs: (rates,), ascending logarithms of the rates.
      means: (curves, rates), lower is better.
    """
    least, rows = np.argmin(means, axis=1), np.arange(len(means))
    inner = np.clip(least, 1, len(logs) - 2)
    x0, x1, x2 = (logs[inner + step] for step in (-1, 0, 1))
    y0, y1, y2 = (means[rows, inner + step] for step in (-1, 0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        # Newton's divided differences.
        first, second = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
        curvature = (second - first) / (x2 - x0)
        vertex = (x0 + x1) / 2 - first / (2 * curvature)
    use = (inner == least) & np.isfinite(y0 + y2) & (curvature > 0)
    found: Floats = np.where(use, np.clip(vertex, x0, x2), logs[least])
    return np.where(np.isfinite(means.min(axis=1)), found, np.nan)


def _estimate(values: Floats) -> Estimate:
    """Returns the first of several numbers, with the interval that the others, of resamples, have."""
    found = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(found):
        return Estimate(np.nan, np.nan, np.nan)
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values[0]), float(low), float(high))


def _point(
    result: Result, key: tuple[str, int | None, int], rates: Floats, curve: Floats, logs: Floats
) -> TransferPoint:
    """Returns the point of a model from its scores, (rates, seeds), and the logarithms of its best rates."""
    means = curve.mean(axis=1)
    least = int(np.argmin(means))
    edge = {0: "lowest", len(rates) - 1: "highest"}.get(least) if np.isfinite(means[least]) else None
    parametrization, depth, width = key
    value = result.objective.value
    return TransferPoint(
        parametrization, int(width), depth, _estimate(2**logs), float(value(means[least])), edge, value(curve)
    )


def _drifts(best: dict[tuple[str, int | None, int], Floats]) -> list[Drift]:
    """Returns the drifts over widths at each depth, and over depths at each width."""
    found = []
    for parametrization in sorted({key[0] for key in best}, key=lambda name: name == PARAMETRIZATIONS[False]):
        own = {key[1:]: logs for key, logs in best.items() if key[0] == parametrization}
        for over, axis in ((WIDTH, 1), (DEPTH, 0)):
            others = sorted({key[1 - axis] for key in own}, key=lambda size: size or 0)
            for other in others:
                line = {key[axis]: logs for key, logs in own.items() if key[1 - axis] == other}
                sizes = sorted(size for size in line if size is not None)
                if len(sizes) > 1:
                    x = np.log2(np.array(sizes, float))
                    y = np.stack([line[size] for size in sizes])  # (sizes, resamples)
                    slopes = ((x - x.mean()) @ (y - y.mean(axis=0))) / ((x - x.mean()) ** 2).sum()
                    at = other if len(others) > 1 else None
                    found.append(Drift(parametrization, over, at, _estimate(slopes)))
    return found
