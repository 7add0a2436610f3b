"""The trials of a sweep as arrays, which analysis, plots, exports and studies read. Knows no files and no models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpjax.core.arrays import Array, Ints
from hpjax.core.domains import Range
from hpjax.core.errors import InputError, did_you_mean
from hpjax.core.format import show
from hpjax.core.objective import Objective
from hpjax.results import columns
from hpjax.results.store.rows import LOST, STATUS_DTYPE, Status


class CloneRecord(NamedTuple):
    """A trial that continued from the state of another.

    Attributes:
      trial: the id of the trial.
      step: the optimizer steps that the source had taken.
      source: the id of the trial whose state it cloned.
      hparams: the hyperparameters with which it continued, name to value.
    """

    trial: int
    step: int
    source: int
    hparams: dict[str, Any]


class Alternative(NamedTuple):
    """The domains of one alternative of a space, as far as a record has them.

    Attributes:
      names: the names of its hyperparameters.
      ranges: name to range, for those whose values are numbers between two ends.
      options: name to options as they print, for choices.
    """

    names: frozenset[str]
    ranges: Mapping[str, Range]
    options: Mapping[str, tuple[str, ...]]

    def holds(self, hparams: Mapping[str, Any]) -> bool:
        """Returns whether a point, name to value, belongs to this alternative."""
        return self.names == hparams.keys() and all(self._contains(*item) for item in hparams.items())

    def _contains(self, name: str, value: Any) -> bool:
        if name in self.options:
            return show(value) in self.options[name]
        ends = self.ranges.get(name)
        return ends is not None and isinstance(value, int | float) and ends.low <= value <= ends.high


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TrialTable:
    """The trials of a sweep as arrays; the first axis is always the trial's id.

    Attributes:
      names: the hyperparameters of the space.
      metrics: the names of the metrics.
      objective: the metric by which trials are ranked, and its direction.
      scales: hyperparameter to ``"linear"``, ``"log"``, ``"reverse log"`` or ``"category"``.
      alternatives: the domains of each alternative of the space.
      hparams: per trial, name to value; callables by their names. Where a scheduler changed them, the last ones.
      first_hparams: the same at the trial's beginning.
      lineage: the trials that went on from the states of others, in the order in which they did.
      rounds, groups, waves: int32 (trials,), the round, the group and the wave of each trial.
      widths: int32 (trials,), lanes that a device computed in parallel; not as planned where memory was
        short, or a better width was measured.
      lane_status: ``<U11`` (trials, replicates), plain strings, each equal to a ``Status``.
      lane_step: int64 (trials, replicates), the optimizer step at which each lane's status last changed; for a
        running lane that of its last evaluation.
      recorded: metric, ``"step"`` or ``"seconds"`` to its values: (trials, replicates, evaluations), floats padded
        with NaN.
      tested: trial to its metrics on the test split, for the trials that were evaluated on it.
      failures: trial to the reason for which its group failed, for the trials that did.
    """

    names: tuple[str, ...]
    metrics: tuple[str, ...]
    objective: Objective
    scales: Mapping[str, str]
    alternatives: tuple[Alternative, ...]
    hparams: list[dict[str, Any]]
    first_hparams: list[dict[str, Any]]
    lineage: list[CloneRecord]
    rounds: Ints
    groups: Ints
    waves: Ints
    widths: Ints
    lane_status: NDArray[np.str_]
    lane_step: NDArray[np.int64]
    recorded: Mapping[str, Array]
    tested: dict[int, dict[str, float]]
    failures: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.hparams)

    @property
    def statuses(self) -> NDArray[np.str_]:
        """The worst status of each trial's replicates, ``<U11`` (trials,).

        From the worst: ``other_shard``, ``failed``, ``diverged``, ``running``, ``stopped``, ``complete``.
        """
        worst = np.full(len(self), Status.COMPLETE, STATUS_DTYPE)
        for status in (Status.STOPPED, Status.RUNNING, Status.DIVERGED, Status.FAILED, Status.OTHER_SHARD):
            worst[(self.lane_status == status).any(axis=1)] = status
        return worst

    @property
    def varied(self) -> list[str]:
        """The hyperparameters that take more than one value, in the order of the space."""
        return columns.varied(self.names, self.hparams)

    def curves(self, metric: str) -> Array:
        """Returns a metric over all evaluations: (trials, replicates, evaluations), padded with NaN.

        ``curves("step")`` gives the optimizer step of each evaluation, ``curves("seconds")`` when it was recorded:
        seconds since the run began, without those in which it was interrupted; of a merged sweep those of each shard.
        Evaluations count within a trial, from 0.

        Raises:
          InputError: the sweep has no such metric.
        """
        if metric not in self.recorded:
            raise InputError("metric", metric, "must be a metric of the run", did_you_mean(metric, self.recorded))
        return self.recorded[metric]

    def last(self, metric: str) -> Array:
        """Returns a metric at each lane's last evaluation, (trials, replicates); NaN if it diverged or failed."""
        steps = self.curves("step")
        values = self.curves(metric)
        if values.shape[-1] == 0:
            return np.full(self.lane_status.shape, np.nan)
        index = np.maximum(steps.shape[-1] - 1 - np.argmax(~np.isnan(steps[..., ::-1]), axis=-1), 0)
        last = np.take_along_axis(values, index[..., None], axis=-1)[..., 0]
        return np.where(np.isin(self.lane_status, LOST), np.nan, last)

    @cached_property
    def ranking(self) -> list[int]:
        """The ids of the trials from best to worst by the objective, without those that diverged or failed."""
        return self.ranked(self.objective)

    def ranked(self, by: Objective) -> list[int]:
        """Returns the ids of the trials from best to worst by any objective, as ``ranking`` has them."""
        return by.rank(self.last(by.metric), self.lane_status, self.lane_step)

    def descent(self, trial: int) -> list[tuple[int, int, dict[str, Any]]]:
        """Returns which trials trained the weights of one: (id, first optimizer step, hyperparameters), oldest first.

        The list has one entry, unless a trial went on from the state of another.
        """
        found: list[tuple[int, int, dict[str, Any]]] = []
        until = np.inf
        while own := [t for t in self.lineage if t.trial == trial and t.step < until]:
            found.append((trial, own[-1].step, own[-1].hparams))
            trial, until = own[-1].source, own[-1].step
        return [(trial, 0, self.first_hparams[trial]), *reversed(found)]

    def ranges(self, trial: int) -> dict[str, Range]:
        """Returns the range of each hyperparameter of a trial that is a number, by name, as it was sampled from.

        Of a union of spaces it is the alternative that the trial belongs to.
        """
        mine = self.first_hparams[trial]
        return next((dict(each.ranges) for each in self.alternatives if each.holds(mine)), {})

    def table(self) -> dict[str, Array]:
        """Returns a column, (trials,), for each hyperparameter and metric, and for trial, round, group, status, step.

        Metrics are averaged over replicates. Columns of integers, floats and bools have these dtypes, others hold
        objects. A hyperparameter that a trial lacks is NaN in a column of numbers, and None in others. ``gap`` is the
        objective's metric on the validation split less that on the training split, where the sweep has both. Metrics
        on the test split are NaN for the trials that were not tested.
        """
        table: dict[str, Array] = {"trial": np.arange(len(self))}
        for name in self.names:
            table[name] = columns.column(name, self.hparams)
        table |= {name: self.last(name).mean(axis=1) for name in self.metrics}
        valid = self.objective.metric
        train = f"train/{valid.removeprefix('valid/')}"
        if valid != train and train in self.metrics:
            table["gap"] = table[valid] - table[train]
        for trial, metrics in self.tested.items():
            for name, value in metrics.items():
                table.setdefault(name, np.full(len(self), np.nan))[trial] = value
        return table | {
            "round": self.rounds,
            "group": self.groups,
            "status": self.statuses,
            "step": self.lane_step.min(axis=1),
        }

    def grid(self, *names: str) -> tuple[tuple[list[Any], ...], Array]:
        """Returns the trials of a grid by their hyperparameters, to index any array with one entry per trial.

        Args:
          *names: hyperparameters that together tell all trials apart; by default all that vary.

        Returns:
          The values of each hyperparameter, numbers in ascending order, others in the order of the trials; and the
          trial ids, an int array with one axis per hyperparameter.

        Raises:
          InputError: two trials have the same values, or a combination of values has no trial.

        Example:
          >>> space = hpx.Space(rate=hpx.LogUniform(1e-3, 0.1, num=3), scale=hpx.Choice(1.0, 0.5))
          >>> result = hpx.Sweep(program, space, sampler=hpx.Grid()).run(progress=False)
          >>> (rates, scales), trials = result.grid("rate", "scale")
          >>> rates, scales, result.last("valid/loss")[trials].shape
          ([0.001, 0.01, 0.1], [0.5, 1.0], (3, 2, 1))
        """
        return columns.grid(names or self.varied, self.names, self.hparams)
