"""Restores the waves of a checkpoint, at the widths that their groups had, in as many waves as fit on these devices."""

from collections.abc import Container
from itertools import count

from hpjax.core.errors import RunError
from hpjax.sweep.planning.arrange import split, with_widths
from hpjax.sweep.planning.plan import Group
from hpjax.sweep.running.context import RunContext
from hpjax.sweep.running.failure import failed_waves, tried_again
from hpjax.sweep.running.state import RunState, WaveState


def restored(context: RunContext, saved: RunState, mine: Container[int]) -> list[tuple[Group, WaveState, bool]]:
    """Returns the waves of a checkpoint by their numbers: group, state, and whether it failed and stays so.

    The plan of the context gets the widths of the checkpoint.

    Args:
      context: what the waves share.
      saved: the state of the run.
      mine: the trials of its round.

    Raises:
      RunError: the checkpoint is not of this sweep.
    """
    spec, group_of = context.spec, {t: g for g in context.plan.groups for t in g.trials}
    planned = context.plan.widths
    if len(saved.widths) != len(planned):
        raise RunError(f"the checkpoint is not of this sweep: it has {len(saved.widths)} groups, not {len(planned)}.")
    # The width belongs to the bits: a group that ran out of memory, or that took a better width, goes on at the width
    # that it then had, also where there is more memory now.
    changed = {g: int(width) for g, width in enumerate(saved.widths) if width != planned[g]}
    why = "goes on at another width than planned, as its checkpoint says"
    context.plan = with_widths(spec, context.plan, changed, why)
    numbers = count(1 + max(wave.number for wave in saved.waves))
    before, failed = saved.waves, failed_waves(context.store.lanes(), saved.waves)
    if spec.scheduler is None:  # else they stay failed: it compared the others without them
        before, failed = tried_again(context, saved.waves, failed), set()
    found: list[tuple[Group, WaveState, bool]] = []
    for wave in before:
        group = group_of.get(wave.trials[0])
        if group is None or any(trial not in mine or group_of[trial] is not group for trial in wave.trials):
            raise RunError(
                f"the checkpoint is not of this sweep: wave {wave.number} has trials of several groups or rounds. "
                "Delete the newest folder in checkpoints/ to go on from the one before."
            )
        whole = (wave.trials,)
        fitting = whole if wave.finished else split(spec, context.plan, group.number, wave.trials)
        for i, trials in enumerate(fitting):
            own = wave.of(trials, wave.number if i == 0 else next(numbers))
            found.append((group, own, wave.number in failed))
    return sorted(found, key=lambda each: each[1].number)
