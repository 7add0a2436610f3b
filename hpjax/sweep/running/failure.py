"""What becomes of the trials of a group that failed: they are recorded with the reason, and the others go on."""

import warnings
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from hpjax.core.format import count
from hpjax.results.store.rows import Change, Status
from hpjax.sweep.running.context import RunContext
from hpjax.sweep.running.events import GroupFailed
from hpjax.sweep.running.state import RunProgress, WaveState
from hpjax.sweep.running.wave import Wave


def nothing_left(waves: Sequence[Wave], group: int) -> bool:
    """Returns whether all waves of a round fail once a group does, so that the round has nothing to go on with."""
    return all(not wave.finished and (wave.failed or wave.group.number == group) for wave in waves)


def fail_group(
    context: RunContext, waves: Sequence[Wave], progress: RunProgress, failure: tuple[int, str]
) -> tuple[GroupFailed, RunProgress]:
    """Ends the waves of a group that failed, and records their trials as failed. Waves that are finished stay.

    Args:
      context: what the waves share.
      waves: all waves of the round.
      progress: how far the run is.
      failure: the number of the group, and why it failed, on one line.

    Returns:
      The event that tells of it, and how far the run is without these lanes.
    """
    group, reason = failure
    ended = [wave for wave in waves if wave.group.number == group and not wave.finished]
    done, spared = sum(wave.computed for wave in ended), sum(wave.spared_so_far for wave in ended)
    left = sum(wave.spared(np.flatnonzero(wave.live).tolist()) for wave in ended)
    taken = {lane: steps for wave in ended for lane, steps in wave.fail().items()}
    # A lane that diverged stays that: it has no final state that could be lost.
    lost = {(lane.trial, lane.replicate) for lane in context.store.lanes() if lane.status == Status.DIVERGED}
    changes = tuple(Change(*lane, Status.FAILED, steps) for lane, steps in taken.items() if lane not in lost)
    trials = sorted({trial for trial, _ in taken})
    with context.store.transaction():
        context.store.add_changes(changes)
        context.store.add_failures(dict.fromkeys({change.trial for change in changes}, reason))
    context.scores = context.scores.with_failed(trials)
    many = count(len(trials), "trial")
    warnings.warn(f"group {group} failed, and {many} with it: {reason}", RuntimeWarning, stacklevel=2)
    event = GroupFailed(
        reason=reason,
        spared=left,
        changes=changes,
        best=context.best,
        **ended[0].shared,
    )
    return event, progress._replace(done=max(progress.done - done, 0), spared=max(progress.spared - spared, 0))


def failed_waves(lanes: Iterable[Change], waves: Iterable[WaveState]) -> set[int]:
    """Returns the numbers of the waves of a checkpoint that failed.

    Args:
      lanes: the status of every lane.
      waves: the waves.
    """
    failed = {lane.trial for lane in lanes if lane.status == Status.FAILED}
    return {wave.number for wave in waves if not wave.finished and failed & {*wave.trials}}


def tried_again(context: RunContext, waves: Sequence[WaveState], failed: Collection[int]) -> tuple[WaveState, ...]:
    """Returns the waves of a checkpoint, of which those that failed begin anew; forgets what these recorded."""
    trials = {trial for wave in waves if wave.number in failed for trial in wave.trials}
    context.scores = context.scores.without(trials)
    with context.store.transaction():
        context.store.forget(failed, trials)
    context.store.artifacts.forget(trials)
    return tuple(wave.begun()._replace(evaluations=0) if wave.number in failed else wave for wave in waves)
