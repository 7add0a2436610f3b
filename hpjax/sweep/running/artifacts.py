"""The artifacts of a run: taken from chosen lanes at evaluations, and computed while the devices train on."""

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.core.hparams import Hparams
from hpjax.engine.artifacts import artifact_function, failure_of
from hpjax.engine.device_errors import translate_device_error
from hpjax.engine.device_lanes import DeviceLanes
from hpjax.engine.distributed import on_each, several
from hpjax.engine.shapes import Lane
from hpjax.results.store.artifacts import Artifacts
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.running.outcome import Outcome
from hpjax.sweep.running.scores import Scores


class TakenLane(NamedTuple):
    """A lane as it was at an evaluation, with what its artifacts need.

    Attributes:
      group: the number of its group.
      trial: its trial id.
      evaluation: the number of the evaluation within the trial, from 0.
      step: the optimizer steps that it had taken.
      lane: its state, on the host, as ``DeviceLanes.copy`` gives it.
      h: its hyperparameters; leaves of shape ().
    """

    group: int
    trial: int
    evaluation: int
    step: int
    lane: Lane
    h: Hparams


class ArtifactMaker:
    """What makes the artifacts of a run.

    An evaluation is read before the lanes of the best trials are known, and the next segment takes their memory. So
    these lanes are copied to the host between the two, and their artifacts are computed after the next segment was
    dispatched: whatever becomes of them, training has its memory, and the program that trains knows nothing of them.

    Args:
      programs: the sweep, and the data on the devices.
      kept: where the artifacts are kept.
    """

    def __init__(self, programs: GroupPrograms, kept: Artifacts) -> None:
        self._spec, self._valid, self._kept = programs.spec, programs.splits[1], kept
        self._choice = self._spec.artifacts
        self._taken: list[TakenLane] = []
        self._functions: dict[int, Callable[..., dict[str, jax.Array]]] = {}
        self._failed: set[int] = set()
        self._told: set[str] = set()

    def wants(self, group: int, trials: Collection[int]) -> bool:
        """Returns whether an evaluation of these trials of a group may have artifacts."""
        return group not in self._failed and self._choice.may_have(trials)

    def take(self, group: int, lanes: DeviceLanes, outcome: Outcome, scores: Scores, number: int) -> None:
        """Copies the chosen lanes, right after an evaluation was collected and before a segment is dispatched.

        Args:
          group: the number of the group.
          lanes: the lanes of the wave.
          outcome: what became of them.
          scores: the scores after the evaluation.
          number: the number of the evaluation.
        """
        mine = outcome.replicates == 0
        steps = dict(zip(outcome.trials[mine].tolist(), outcome.steps[mine].tolist(), strict=True))
        # With several hosts all of them gather a lane together, also where its artifacts failed on the one that writes.
        if not self._choice.may_have(steps) or (group in self._failed and not several()):
            return
        score, table = self._spec.objective.aggregate(scores.values[list(steps)]), lanes.table

        def take() -> None:
            for trial in self._choice.of(list(steps), score):
                at = int(np.flatnonzero((table.trial == trial) & (table.replicate == 0))[0])
                h: Hparams = jax.tree.map(lambda values, at=at: values[at], table.h)
                taken = TakenLane(group, trial, number, steps[trial], lanes.copy(at), h)
                if self._kept.writes or lanes.config.span is not None:  # whose hosts compute together
                    self._taken.append(taken)

        with self._guarding(group):
            on_each(take)
        if group not in self._functions:
            self._functions[group] = artifact_function(lanes.config, self._spec.seed)
        if lanes.config.shapes.lapack:
            self.make()  # decompositions of two programs at once may wait for each other forever on a CPU

    def make(self) -> None:
        """Computes the artifacts of the lanes that were taken, and keeps them.

        A function that fails is told in a warning; its group has no artifacts from there on.
        """
        taken, self._taken = self._taken, []
        for each in taken:
            if each.group not in self._failed:
                with self._guarding(each.group):
                    # Hosts that compute together end the artifacts of a group together, too.
                    keep = partial(self._keep, each)
                    keep() if self._spec.devices_per_lane == 1 else on_each(keep)

    def drop(self, group: int) -> None:
        """Forgets the lanes of a group that were taken and have no artifacts yet."""
        self._taken = [each for each in self._taken if each.group != group]

    def _keep(self, taken: TakenLane) -> None:
        """Computes the artifacts of a lane, and keeps them where this host writes."""
        found = self._computed(taken)
        if self._kept.writes:
            self._kept.add(taken.trial, taken.evaluation, taken.step, found)

    def _computed(self, taken: TakenLane) -> dict[str, Any]:
        """Returns the artifacts of a lane by name, on the host."""
        valid = self._valid
        if self._spec.devices_per_lane == 1:  # on one device of this host, each of which holds the split whole
            valid = jax.tree.map(lambda x: x.addressable_data(0), valid)
        lane: Any = taken.lane
        found = self._functions[taken.group](lane.state, np.int32(taken.trial), lane.step.one[0], valid, taken.h)
        return {name: np.asarray(array) for name, array in found.items()}

    @contextmanager
    def _guarding(self, group: int) -> Iterator[None]:
        """Has a failure in its body end the artifacts of a group, and nothing else."""
        try:
            yield
        except Exception as error:  # whatever the user's function raises, and a device or a disk that is full
            self._failed.add(group)
            self._tell(group, error)

    def _tell(self, group: int, error: Exception) -> None:
        """Warns that a group has no artifacts from here on; of what several groups fail by, once."""
        if isinstance(error, jax.errors.JaxRuntimeError):
            error = translate_device_error(error, group)
        reason = failure_of(self._spec.program.artifacts, error)
        if reason not in self._told:
            self._told.add(reason)
            warnings.warn(
                f"{reason}. Group {group} keeps no artifacts from here on, nor others where that happens; all train as "
                "before.",
                RuntimeWarning,
                stacklevel=2,
            )
