"""The answer of a study of branches: the critical batch size at points of a training, and how it grows."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hpjax.core.arrays import Array, Floats
from hpjax.core.errors import InputError, RunError, check_float, did_you_mean
from hpjax.results.analysis import Estimate
from hpjax.results.result import Result, load
from hpjax.results.store.rows import LOST
from hpjax.results.style import Width
from hpjax.studies import plot
from hpjax.studies.branches_report import doubts_of, report_of
from hpjax.studies.power_law import PowerLaw, fit_power_law
from hpjax.studies.study import StudyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What the manifest calls such a study, and the hyperparameters that it reads.
KIND = "branches"
START, SEED, SIZE, RATE = "start", "start_seed", "batch_size", "learning_rate"

CONFIDENCE, RESAMPLES = 0.95, 2000


class BranchPoint(NamedTuple):
    """The critical batch size at a point of a training.

    Attributes:
      examples: that the training had seen.
      critical: in examples, with the ends of its 95 % interval over seeds. Where no batch size lost more than the
        tolerance it is the largest, and the upper end infinite.
      by_seed: float (seeds,), the same of each seed alone, at most the largest batch size.
      excess: float (batch sizes, seeds), by how much each branch is worse than that with the smallest batch of its
        seed, infinite where it diverged.
      edge: ``"lowest"`` where the second batch size lost more than the tolerance, ``"highest"`` where none did.
    """

    examples: int
    critical: Estimate
    by_seed: Floats
    excess: Floats
    edge: str | None


# Compared by identity, since arrays are not equal as a whole.
@dataclass(frozen=True, eq=False)
class BranchesResult(StudyResult):
    """The answer of a study of branches; ``print`` it. See ``Branches``, the question.

    ``Branches.run`` gives it, ``read`` makes it from the result of any such sweep, and ``load`` from its directory.

    Attributes:
      result: the result of the sweep.
      tolerance: by how much the metric might be worse.
      batch_sizes: ascending.
      points: by the examples that the training had seen, ascending.
      lost: the seeds of which a branch with the smallest batch diverged, which are left out.

    Example:
      >>> space = hpx.Space(
      ...     learning_rate=1e-2, batch_size=hpx.Choice(8, 32, 128), start=hpx.Choice(0), start_seed=hpx.Choice(0, 1))
      >>> program = hpx.supervised(
      ...     model=nn.Dense(10), optimizer=lambda h: optax.adam(h.learning_rate), data=hpx.data.digits(),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels, batch_size=lambda h: h.batch_size, microbatch=8,
      ...     steps=lambda h: 256 // h.batch_size)
      >>> result = hpx.Sweep(program, space, sampler=hpx.Grid()).run(progress=False)
      >>> [point.examples for point in BranchesResult.read(result, tolerance=0.1).points]
      [0]
    """

    result: Result
    tolerance: float
    batch_sizes: tuple[int, ...]
    points: tuple[BranchPoint, ...]
    lost: tuple[int, ...] = ()

    @classmethod
    def read(cls, result: Result, tolerance: float) -> "BranchesResult":
        """Returns the answer that a result gives, of a study or of any other grid over starts, seeds and batch sizes.

        Args:
          result: of a grid over ``start``, the examples seen before, ``start_seed`` and ``batch_size``.
          tolerance: by how much the metric may be worse; it may differ from that of the study.

        Raises:
          InputError: the result has no such hyperparameters, or one batch size alone.
        """
        field = "BranchesResult.read"
        tolerance = check_float(f"{field}.tolerance", tolerance, 0.0)
        for name in (START, SEED, SIZE):
            if name not in result.names:
                raise InputError(f"{field}.name", name, "must be a hyperparameter", did_you_mean(name, result.names))
        (starts, seeds, sizes), trials = result.grid(START, SEED, SIZE)
        if len(sizes) < 2:
            remedy = "Write batch_sizes=[8, 32, 128]."
            raise InputError(f"{field}.result", f"batch sizes {sizes}", "must be two or more", remedy)
        scores = result.objective.scores(result.last(result.objective.metric))[:, 0]
        scores = np.where(np.isin(result.lane_status[:, 0], LOST) | ~np.isfinite(scores), np.inf, scores)
        # A seed is one training: where nothing is left to compare its branches with, it is left out of all starts.
        kept = np.isfinite(scores[trials[:, :, 0]]).all(axis=0)
        if not kept.any():
            allowed = "must have a seed of which no branch with the smallest batch diverged"
            raise InputError(f"{field}.result", f"{len(seeds)} seeds", allowed, "Give lower learning rates.")
        trials = trials[:, kept]
        # The same seeds are drawn of all starts.
        drawn = np.random.default_rng(0).integers(0, kept.sum(), (RESAMPLES, kept.sum()))
        points = []
        for start, own in zip(starts, trials, strict=True):
            excess = (scores[own] - scores[own[:, :1]]).T  # (sizes, seeds)
            points.append(_point(int(start), np.array(sizes, float), excess, drawn, tolerance))
        lost = tuple(int(seeds[at]) for at in np.flatnonzero(~kept))
        return cls(result, tolerance, tuple(int(size) for size in sizes), tuple(points), lost)

    @classmethod
    def load(cls, directory: str | Path) -> "BranchesResult":
        """Returns the answer of the study that a run directory holds, finished or still running, without its program.

        Raises:
          RunError: it is no run directory, or its run belongs to no study of branches.
        """
        answer = recorded_answer(load(directory))
        if answer is None:
            raise RunError(
                f"{str(directory)!r} was not run as a study of branches. If it is a grid over start, start_seed and "
                "batch_size: hpx.studies.BranchesResult.read(hpx.load(directory), tolerance=0.01)."
            )
        return answer

    @cached_property
    def law(self) -> PowerLaw:
        """The critical batch size as a power of the examples seen, by ``fit_power_law`` with the values of each seed.

        A start before the first step, at 0 examples, is left out.

        Raises:
          InputError: there are fewer than three other starts.
        """
        points = [point for point in self.points if point.examples > 0]
        return fit_power_law([point.examples for point in points], [point.by_seed for point in points])

    @property
    def has_law(self) -> bool:
        """Whether there are points enough for ``law``."""
        return sum(point.examples > 0 for point in self.points) >= 3

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """What to doubt of the answer, in sentences."""
        return doubts_of(self)

    def table(self) -> dict[str, Array]:
        """Returns columns with a row for each point."""
        columns = {"examples": [point.examples for point in self.points]}
        ends = {"critical": 0, "critical_low": 1, "critical_high": 2}
        found = {name: np.array(values) for name, values in columns.items()}
        found |= {name: np.array([point.critical[at] for point in self.points]) for name, at in ends.items()}
        excess = np.array([point.excess.mean(axis=1) for point in self.points])
        return found | {f"excess_{size}": excess[:, i] for i, size in enumerate(self.batch_sizes)}

    def report(self) -> str:
        """Returns the answer as text, with what to doubt of it."""
        return report_of(self)

    def figure(self, width: Width) -> "Figure":
        """Returns the answer as a figure; see ``hpx.studies.plot.branches``."""
        return plot.branches(self, width)


def recorded_answer(result: Result) -> BranchesResult | None:
    """Returns the answer of the study that a result belongs to, None if it belongs to no study of branches."""
    record = result.manifest.sweep.study
    if record is None or record.kind != KIND or record.target is None:
        return None
    return BranchesResult.read(result, record.target)


def _point(start: int, sizes: Floats, excess: Floats, drawn: Array, tolerance: float) -> BranchPoint:
    """Returns the point of a start.

    Args:
      start: examples that the training had seen.
      sizes: the batch sizes, ascending.
      excess: (sizes, seeds).
      drawn: seeds of each resample, int (resamples, seeds).
      tolerance: by how much a branch may be worse.
    """
    mean = excess.mean(axis=1, keepdims=True)
    resampled = excess[:, drawn].mean(axis=2)  # (sizes, resamples)
    (value,), found = critical_sizes(sizes, mean, tolerance), critical_sizes(sizes, resampled, tolerance)
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    over = np.flatnonzero(~(mean[:, 0] <= tolerance))
    edge = "highest" if not len(over) else "lowest" if over[0] == 1 else None
    ends = Estimate(float(value), float(low), np.inf if high >= sizes[-1] else float(high))
    return BranchPoint(start, ends, critical_sizes(sizes, excess, tolerance), excess, edge)


def critical_sizes(sizes: Floats, excess: Floats, tolerance: float) -> Floats:
    """Returns where excess losses pass a tolerance, straight between batch sizes on a logarithmic axis.

    Args:
      sizes: (sizes,), the batch sizes, ascending.
      excess: (sizes, many), 0 at the first size.
      tolerance: above 0.

    Returns:
      Float (many,): the last of the sizes where none is above the tolerance.
    """
    over = ~(excess <= tolerance)  # NaN, too
    over[0] = False
    first = np.where(over.any(axis=0), over.argmax(axis=0), len(sizes) - 1)
    last, columns = first - 1, np.arange(excess.shape[1])
    low, high = excess[last, columns], excess[first, columns]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (tolerance - low) / (high - low)
    share = np.where(np.isfinite(share), share, 0.0)  # of a branch that diverged
    found: Floats = np.where(
        over.any(axis=0), sizes[last] * (sizes[first] / sizes[last]) ** np.clip(share, 0, 1), sizes[-1]
    )
    return found
