"""A segment that was dispatched, and its outcome: what became of the lanes of a wave, by trial and replicate. Pure."""

from typing import Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Array, Bools, Ints, ceil_div
from hpjax.core.objective import Objective
from hpjax.engine.device_lanes import LaneTable, SegmentResult
from hpjax.engine.lane import HEALTHY
from hpjax.results.store.rows import SECONDS, Change, Status
from hpjax.sweep.running.scores import Scores
from hpjax.sweep.running.state import WaveState


class DispatchedSegment(NamedTuple):
    """A segment that was dispatched, with results that are not read yet.

    Attributes:
      stop: the step at which the segment ends.
      evaluate: whether it ends with an evaluation.
      since: when it was dispatched, by ``time.perf_counter``.
      waited: seconds that dispatching waited for the batches of a data stream.
    """

    stop: int
    evaluate: bool
    since: float
    waited: float


class Outcome(NamedTuple):
    """What became of the lanes that were live when a segment began.

    Attributes:
      trials, replicates: the lanes that did not diverge, each int32 (healthy,).
      steps: optimizer steps that these took, int32 (healthy,).
      metrics: name to what was measured of them, float (healthy,); empty without an evaluation.
      lanes: the numbers of all lanes of the segment, int32 (live,).
      owners: the trials of all lanes of the segment, int32 (live,).
      taken: optimizer steps that all lanes of the segment took, int32 (live,).
      changes: lane number to what became of it, for lanes that diverged or completed.
      evaluated: whether the segment ended with an evaluation.
    """

    trials: Ints
    replicates: Ints
    steps: Ints
    metrics: dict[str, Any]
    lanes: Ints
    owners: Ints
    taken: Ints
    changes: dict[int, Change]
    evaluated: bool

    @classmethod
    def of(cls, table: LaneTable, microsteps: Ints, result: SegmentResult, evaluated: bool) -> "Outcome":
        """Returns the outcome of a segment for the lanes of a wave.

        Args:
          table: the lanes of the wave.
          microsteps: calls of ``step`` that make an optimizer step of each, int32 (lanes,).
          result: what the segment brought, for the lanes that were live when it began.
          evaluated: whether the segment ended with an evaluation.
        """
        # A diverged lane leaves no values, not even those of this evaluation: how many it would leave before the host
        # sees that it diverged depends on the length of the segments, and results must not.
        healthy = result.diverged == HEALTHY
        own = microsteps[result.lanes]
        # Optimizer steps, of several calls each where gradients accumulate. The one that diverged counts as a whole
        # one, since it may have done so in any of its calls.
        taken, lost_at = result.step // own, ceil_div(result.diverged, own)
        done = ((result.step >= table.budget[result.lanes]) & evaluated | result.done) & healthy
        changes = {}
        for status, which, steps in ((Status.DIVERGED, ~healthy, lost_at), (Status.COMPLETE, done, taken)):
            for at in np.flatnonzero(which):
                lane = int(result.lanes[at])
                trial, replicate = int(table.trial[lane]), int(table.replicate[lane])
                changes[lane] = Change(trial, replicate, status, int(steps[at]))
        return cls(
            trials=table.trial[result.lanes[healthy]],
            replicates=table.replicate[result.lanes[healthy]],
            steps=taken[healthy],
            metrics={name: values[healthy] for name, values in result.metrics.items()},
            lanes=result.lanes,
            owners=table.trial[result.lanes],
            taken=taken,
            changes=changes,
            evaluated=evaluated,
        )

    def curves(self, seconds: float) -> dict[str, Array]:
        """Returns what the database keeps of the evaluation: name to values of the healthy lanes, each (healthy,).

        Args:
          seconds: how long the run took so far.
        """
        owners = {"trial": self.trials, "replicate": self.replicates, "step": self.steps}
        return owners | {SECONDS: np.full(self.trials.shape, seconds, np.float32)} | self.metrics

    def scored(self, scores: Scores, objective: Objective) -> Scores:
        """Returns the scores of all trials after the segment."""
        if self.changes:
            scores = scores.with_changes(self.changes.values())
        if not self.evaluated:
            return scores
        owners = np.unique(self.owners).tolist()
        return scores.with_evaluation(objective, (self.trials, self.replicates), self.steps, self.metrics, owners)

    def after(self, state: WaveState, stop: int, live: Bools) -> WaveState:
        """Returns the state of the wave after the segment, without its lanes.

        Args:
          state: the state before it.
          stop: the step at which the segment ended.
          live: which lanes of the wave run on, bool (lanes,).
        """
        taken = state.taken.copy()
        taken[self.lanes] = self.taken
        lost = [change.trial for change in self.changes.values() if change.status == Status.DIVERGED]
        return state._replace(
            step=stop,
            evaluations=state.evaluations + self.evaluated,
            live=live.copy(),
            taken=taken,
            lost=state.lost | np.isin(state.trial, lost),
        )
