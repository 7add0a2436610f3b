"""The outcome of a segment: what the lanes of a wave came to, by trial and replicate."""

from typing import Any, NamedTuple

import numpy as np

from hpjax.core.arrays import Ints, ceil_div
from hpjax.engine.device_lanes import Cohort, SegmentResult
from hpjax.engine.lane import HEALTHY
from hpjax.results.store.rows import Change


class Outcome(NamedTuple):
    """What a segment brought.

    Attributes:
      trials, replicates: the lanes that did not diverge, each int32 (healthy,).
      steps: optimizer steps that these took, int32 (healthy,).
      metrics: name to what was measured of them, float (healthy,); empty without an evaluation.
      taken: optimizer steps that each lane of the segment took, int32 (live,).
      changes: lane number to what it came to, for lanes that diverged or completed.
    """

    trials: Ints
    replicates: Ints
    steps: Ints
    metrics: dict[str, Any]
    taken: Ints
    changes: dict[int, Change]

    @classmethod
    def of(cls, cohort: Cohort, microsteps: Ints, result: SegmentResult, evaluated: bool) -> "Outcome":
        """Returns the outcome for the lanes of a cohort.

        Args:
          cohort: the lanes of the wave.
          microsteps: calls of ``step`` that make an optimizer step of each, int32 (lanes,).
          result: of the segment, for the lanes that were live when it began.
          evaluated: whether it ended with an evaluation.
        """
        # A lane that diverged is not recorded any more: at which evaluation it would be depends on the segments.
        healthy = result.diverged == HEALTHY
        own = microsteps[result.lanes]
        # Optimizer steps, of several calls each where gradients accumulate; one that diverged may not be whole.
        taken, lost_at = result.step // own, ceil_div(result.diverged, own)
        done = ((result.step >= cohort.budget[result.lanes]) & evaluated | result.done) & healthy
        changes = {}
        for status, which, steps in (("diverged", ~healthy, lost_at), ("complete", done, taken)):
            for at in np.flatnonzero(which):
                lane = int(result.lanes[at])
                trial, replicate = int(cohort.trial[lane]), int(cohort.replicate[lane])
                changes[lane] = Change(trial, replicate, status, int(steps[at]))
        return cls(
            cohort.trial[result.lanes[healthy]],
            cohort.replicate[result.lanes[healthy]],
            taken[healthy],
            {name: values[healthy] for name, values in result.metrics.items()},
            taken,
            changes,
        )
