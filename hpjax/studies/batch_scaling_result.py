"""What a batch-scaling study found: steps to the target against the batch size, fits, intervals, and what to doubt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError, RunError, check_float, check_int, did_you_mean
from hpjax.core.format import count, metric, show, table
from hpjax.results.result import Result, column
from hpjax.studies.fits import RateFit, StepsFit, fit_rates, fit_steps, slopes

# The share of a domain, on its own scale, that counts as an edge.
EDGE = 0.05
# With fewer evaluations up to the target, steps are known no better than to a fifth.
FINE = 5


class Ended(NamedTuple):
    """How the trials of a batch size ended.

    Attributes:
      complete: those that took their budget or reached the target; the first ones, where only so many count.
      infeasible: those that diverged.
      incomplete: those that were stopped, or are running.
      reached: those of the complete ones that reached the target.
    """

    complete: int
    infeasible: int
    incomplete: int
    reached: int


class ScalingPoint(NamedTuple):
    """A batch size at which a trial reached the target.

    Attributes:
      batch_size: in examples.
      steps: optimizer steps to the target, of the best trial.
      evaluations: made up to then, which tell how finely steps are known.
      interval: of these, 95 % by the bootstrap over trials; from the best trial upwards, infinite where too few reached
        the target.
      trial: the id of the best one.
      hparams: its hyperparameters.
      edges: those of them that stand at an edge of the space, each with ``"lowest"`` or ``"highest"``.
    """

    batch_size: int
    steps: int
    evaluations: int
    interval: tuple[float, float]
    trial: int
    hparams: Mapping[str, Any]
    edges: Mapping[str, str]


# Compared by identity, since arrays are not equal as a whole.
@dataclass(frozen=True, eq=False)
class BatchScaling:
    """What a batch-scaling study found; made by ``batch_scaling`` and ``scaling``.

    Attributes:
      result: of the sweep.
      target: of the objective.
      name: of the hyperparameter that is the batch size.
      batch_sizes: all of them, ascending.
      ended: for each, how its trials ended.
      points: of those at which a trial reached the target, ascending.
      tried: for each, the steps to the target of the complete trials that count, infinite where one did not reach it.
      complete: how many complete trials of each were to count, None for all.
    """

    result: Result
    target: float
    name: str
    batch_sizes: tuple[int, ...]
    ended: tuple[Ended, ...]
    points: tuple[ScalingPoint, ...]
    tried: tuple[Floats, ...]
    complete: int | None = None

    @property
    def missing(self) -> tuple[int, ...]:
        """The batch sizes at which no trial reached the target."""
        there = {point.batch_size for point in self.points}
        return tuple(size for size in self.batch_sizes if size not in there)

    @cached_property
    def slopes(self) -> Floats:
        """d log steps / d log batch size between neighbouring points; −1 is perfect scaling."""
        return slopes(*self._steps)

    @cached_property
    def fit(self) -> StepsFit:
        """Steps = S_min (1 + B_crit/B).

        Raises:
          InputError: there are fewer than three points.
        """
        return fit_steps(*self._steps)

    @property
    def regimes(self) -> tuple[str, ...]:
        """Of each point ``"perfect scaling"``, ``"diminishing returns"`` or ``"maximal data parallelism"``, by the
        slope of the fit: below −0.9, between, above −0.1.

        Raises:
          InputError: there are fewer than three points.
        """
        low, high = self.fit.diminishing
        names = ("perfect scaling", "diminishing returns", "maximal data parallelism")
        return tuple(names[int(size >= low) + int(size > high)] for size in self._steps[0])

    def critical_interval(self, draws: int = 200) -> tuple[float, float]:
        """95 % of B_crit by the bootstrap over trials; a draw in which fewer than three points are left is left out.

        Raises:
          InputError: there are fewer than three points.
        """
        check_int("critical_interval.draws", draws)
        fit_steps(*self._steps)
        rng = np.random.default_rng(0)
        sizes, tried = np.array(self.batch_sizes), self.tried
        found = []
        for _ in range(draws):
            steps = np.array([rng.choice(each, len(each)).min() if len(each) else np.inf for each in tried])
            if np.isfinite(steps).sum() >= 3:
                found.append(fit_steps(sizes, steps).critical_batch_size)
        if not found:
            return np.nan, np.nan
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)

    def best(self, learning_rate: str = "learning_rate", momentum: str | None = None) -> Floats:
        """The learning rate of each point's best trial, (points,); with ``momentum`` the effective, rate / (1 − m).

        NaN where that trial has none, of an alternative of the space.
        """
        for name in (learning_rate, momentum):
            if name is not None and name not in self.result.names:
                raise InputError("best", name, "must be a hyperparameter", did_you_mean(name, self.result.names))
        rates, momenta = (
            np.array([float(point.hparams.get(name, np.nan)) for point in self.points])
            for name in (learning_rate, momentum or learning_rate)
        )
        return rates if momentum is None else rates / (1 - momenta)

    def fit_rates(self, learning_rate: str = "learning_rate", momentum: str | None = None) -> tuple[RateFit, ...]:
        """Linear, square-root and surge laws of ``best``, from the least error to the greatest.

        Raises:
          InputError: there are fewer than three points.
        """
        return fit_rates(self._steps[0], self.best(learning_rate, momentum))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to doubt, in sentences."""
        edges = [
            f"batch size {point.batch_size}: the best {name}, {show(point.hparams[name])}, stands at the "
            f"{which} end of its domain. Widen that where it can be."
            for point in self.points
            for name, which in point.edges.items()
        ]
        missing = [
            f"batch size {size}: no point. Of {count(ended.complete, 'complete trial')} none reached "
            f"{show(self.target)}; {ended.infeasible} diverged, {ended.incomplete} are incomplete."
            for size, ended in zip(self.batch_sizes, self.ended, strict=True)
            if size in self.missing
        ]
        few = [
            f"batch size {size}: {count(ended.complete, 'complete trial')} of the {self.complete} that were to count."
            for size, ended in zip(self.batch_sizes, self.ended, strict=True)
            if self.complete is not None and ended.complete < self.complete
        ]
        outside = []
        if len(self.points) >= 3:
            sizes, _ = self._steps
            low, high = self._interval
            if not sizes[0] <= self.fit.critical_batch_size <= sizes[-1]:
                outside = ["the critical batch size is outside of the batch sizes, which do not determine it."]
            elif low < sizes[0] or high > sizes[-1]:
                outside = ["the interval of the critical batch size reaches beyond the batch sizes: try more of them."]
        coarse = [
            f"batch size {point.batch_size}: the target was met at evaluation {point.evaluations}, so that steps are "
            f"known to within {1 / point.evaluations:.0%}. Choose a harder target"
            + (", or evaluate more often." if point.evaluations < point.steps else ".")
            for point in self.points
            if point.evaluations < FINE
        ]
        return (*missing, *few, *outside, *edges, *coarse)

    def table(self) -> dict[str, NDArray[Any]]:
        """A column per quantity, a row per batch size; NaN where there is no point."""
        place = {point.batch_size: point for point in self.points}
        here = [place.get(size) for size in self.batch_sizes]
        columns: dict[str, list[Any]] = {
            self.name: list(self.batch_sizes),
            "steps": [point.steps if point else np.nan for point in here],
            "steps_low": [point.interval[0] if point else np.nan for point in here],
            "steps_high": [point.interval[1] if point else np.nan for point in here],
            "examples": [point.steps * point.batch_size if point else np.nan for point in here],
            "trial": [point.trial if point else -1 for point in here],
        }
        names = [name for name in self.result.names if name != self.name]
        best = [point.hparams if point else {} for point in here]
        columns |= {name: [getattr(each, name) for each in self.ended] for name in Ended._fields}
        found = {name: np.array(cells) for name, cells in columns.items()}
        return found | {name: column(name, best) for name in names}

    def plot(self, path: str | Path | None = None) -> Any:
        """Steps against batch size, and where there is a learning rate the best one; see ``hpjax.studies.plot``.

        Args:
          path: where to save the picture, if anywhere.

        Returns:
          The ``matplotlib`` figure; needs ``pip install 'hpjax[plot]'``.
        """
        from hpjax.studies import plot

        figure = plot.scaling(self)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __str__(self) -> str:
        columns = self.table()
        enough = len(self.points) >= 3
        regimes = dict(zip((p.batch_size for p in self.points), self.regimes, strict=True)) if enough else {}
        shown = ["steps", "steps_high", "examples", "trial"]
        names = [name for name in self.result.names if name != self.name]
        points = {point.batch_size: point for point in self.points}
        header = [self.name, *shown, *names, *Ended._fields, "regime"]
        rows = []
        for i, size in enumerate(self.batch_sizes):
            there = size not in self.missing
            cells = [f"{columns[name][i]:,.0f}" if there else "-" for name in shown]
            own = [show(points[size].hparams.get(name, "-")) if there else "-" for name in names]
            rows.append([f"{size:,}", *cells, *own, *map(str, self.ended[i]), regimes.get(size, "-")])
        lines = [f"steps to {self.goal}"]
        lines.append(table(header, rows))
        if enough:
            low, high = self._interval
            fit = self.fit
            lines.append(
                f"critical batch size {metric(fit.critical_batch_size)} (95 %: {metric(low)} to {metric(high)}); "
                f"limits of the fit {metric(fit.minimum_steps)} steps, {metric(fit.minimum_examples)} examples"
            )
            lines.append(f"slopes from point to point: {', '.join(f'{slope:.2f}' for slope in self.slopes)}")
            momenta = [None, *(["momentum"] if "momentum" in self.result.names else [])]
            for momentum in momenta if "learning_rate" in self.result.names else []:
                if np.isfinite(self.best(momentum=momentum)).sum() >= 3:
                    laws = ", ".join(f"{fit.law} {metric(fit.error)}" for fit in self.fit_rates(momentum=momentum))
                    what = "learning_rate / (1 − momentum)" if momentum else "learning_rate"
                    lines.append(f"best {what} by law, with the error of its logarithm: {laws}")
        else:
            lines.append(f"no fit: {count(len(self.points), 'point')} of the 3 that it needs")
        return "\n".join([*lines, *self.warnings])

    @property
    def goal(self) -> str:
        """What is to be reached, as text."""
        objective = self.result.objective
        return f"{objective.metric} {'below' if objective.direction == 'minimize' else 'above'} {show(self.target)}"

    @cached_property
    def _interval(self) -> tuple[float, float]:
        return self.critical_interval()

    @property
    def _steps(self) -> tuple[Floats, Floats]:
        return np.array([p.batch_size for p in self.points], float), np.array([p.steps for p in self.points], float)


def scaling(result: Result, target: float, *, complete: int | None = None, name: str = "batch_size") -> BatchScaling:
    """Reads the result of a sweep over batch sizes as a batch-scaling study; see ``batch_scaling``.

    Args:
      result: with one replicate a trial; of ``batch_scaling_sweep(...).run()``, ``hpx.load(directory)``, or any other.
      target: of the objective's metric; of a study its own, or an easier one.
      complete: how many complete trials of each batch size count, the first ones; all where it is None.
      name: of the hyperparameter that is the batch size.

    Raises:
      InputError: the result has no such hyperparameter, several replicates, or trials that ended before the target.
    """
    check_float("scaling.target", target, -np.inf)
    if complete is not None:
        check_int("scaling.complete", complete)
    ended_at = result.manifest.sweep.program.get("target")
    score = result.objective.value  # of a value as of a score, since one is the other or its opposite
    if ended_at is not None and score(target) < score(float(ended_at)):
        allowed = f"is beyond that at which the trials ended, {ended_at}: most had no time to reach it"
        raise InputError("scaling.target", target, allowed, "Run a study of it.")
    if name not in result.names:
        raise InputError("scaling.name", name, "must be a hyperparameter", did_you_mean(name, result.names))
    if result.lane_status.shape[1] != 1:
        allowed = "must have one replicate a trial"
        raise InputError("scaling.result", f"{result.lane_status.shape[1]} replicates", allowed, "Use more trials.")
    to_target = steps_to(result, target)
    sizes = np.array([hparams[name] for hparams in result.hparams])
    batch_sizes = tuple(sorted({int(size) for size in sizes}))
    ended, points, tried = [], [], []
    for size in batch_sizes:
        own = np.flatnonzero(sizes == size)
        statuses = result.statuses[own]
        # By what it is called, and not by whether it reached the target: one that diverged later does not count.
        done = own[statuses == "complete"][:complete]
        steps = to_target[done]
        diverged = int((statuses == "diverged").sum())
        incomplete = int((~np.isin(statuses, ["complete", "diverged"])).sum())
        ended.append(Ended(len(done), diverged, incomplete, int(np.isfinite(steps).sum())))
        tried.append(steps)
        if np.isfinite(steps).any():
            best = int(done[np.argmin(steps)])  # the first of equals
            interval, edges = bootstrap_of_least(steps), _edges(result, best, name)
            evaluations = int(np.sum(result.curves("step")[best, 0] <= to_target[best]))
            hparams = result.hparams[best]
            points.append(ScalingPoint(size, int(to_target[best]), evaluations, interval, best, hparams, edges))
    return BatchScaling(result, float(target), name, batch_sizes, tuple(ended), tuple(points), tuple(tried), complete)


def recorded(result: Result) -> BatchScaling | None:
    """The study that a result is of, as its manifest says; None where it is of none."""
    about = result.manifest.sweep.program
    if about.get("study") != "batch scaling":
        return None
    try:
        complete = None if about["complete"] == "all" else int(about["complete"])
        return scaling(result, float(about["target"]), complete=complete, name=about["over"])
    except (KeyError, ValueError) as error:
        raise RunError(f"the manifest does not say what the batch-scaling study is of: {error}") from None


def steps_to(result: Result, target: float) -> Floats:
    """Per trial, the step of its first evaluation that is strictly better than the target, else infinite: (trials,)."""
    values = result.curves(result.objective.metric)[:, 0]
    # In the type of the values: a lane that compares there ends at the very evaluation that is found here.
    better = result.objective.scores(values) < result.objective.scores(np.array(target, values.dtype))
    steps = result.curves("step")[:, 0]
    if better.shape[1] == 0:
        return np.full(len(result), np.inf)
    first = np.take_along_axis(steps, better.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(better.any(axis=1), first, np.inf)


def bootstrap_of_least(values: Sequence[float] | Floats, level: float = 0.95) -> tuple[float, float]:
    """The interval of the least of values under resampling with replacement, exactly, without drawing.

    The least of ``n`` draws from the sorted values is above number ``j`` with probability (1 − j/n)ⁿ.

    B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    ordered = np.sort(np.asarray(values, float))
    n = len(ordered)
    at_most = 1 - (1 - np.arange(1, n + 1) / n) ** n
    low, high = ((1 - level) / 2, (1 + level) / 2)
    return float(ordered[np.argmax(at_most >= low)]), float(ordered[np.argmax(at_most >= high)])


def _edges(result: Result, trial: int, name: str) -> dict[str, str]:
    """The hyperparameters of a trial that stand within a twentieth of their domain of its ends."""
    found = {}
    for each, (low, high, scale) in result.ranges(trial).items():
        if each == name:
            continue
        margin = 0.0 if scale == "category" else EDGE
        first, last, own = _on(scale, np.array([low, high, float(result.hparams[trial][each])]))
        place = (own - first) / (last - first)
        if not margin < place < 1 - margin:
            found[each] = "lowest" if place < 0.5 else "highest"
    return found


def _on(scale: str, values: Floats) -> Floats:
    """Values on the scale on which their domain is uniform."""
    return np.log(values) if scale == "log" else -np.log1p(-values) if scale == "reverse log" else values
