"""Restores the waves of a checkpoint, at the widths that their groups had, in as many waves as fit on these devices."""

from collections.abc import Container, Iterable
from itertools import count, product

from hpjax.core.arrays import Ints
from hpjax.core.errors import RunError
from hpjax.engine import distributed
from hpjax.engine.device_lanes import rng_groups
from hpjax.engine.lane_shards import Assembly, LaneArrays, needs
from hpjax.engine.layout import arrange
from hpjax.sweep.planning.arrange import split, with_widths
from hpjax.sweep.planning.plan import Group
from hpjax.sweep.planning.programs import lane_ids
from hpjax.sweep.running.context import RunContext
from hpjax.sweep.running.failure import failed_waves, tried_again
from hpjax.sweep.running.state import RunState, WaveState

# Group and state of a wave, and whether it failed and stays so.
Restored = tuple[Group, WaveState, bool]


def restored(context: RunContext, saved: RunState, mine: Container[int]) -> list[Restored]:
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
        raise _other(f"it has {len(saved.widths)} groups, not {len(planned)}")
    # The width belongs to the bits: a group that ran out of memory, or that took a better width, goes on at the width
    # that it then had, also where there is more memory now.
    changed = {g: int(width) for g, width in enumerate(saved.widths) if width != planned[g]}
    why = "goes on at another width than planned, as its checkpoint says"
    context.plan = with_widths(spec, context.plan, changed, why)
    numbers = count(1 + max(wave.number for wave in saved.waves))
    before, failed = saved.waves, failed_waves(context.store.lanes(), saved.waves)
    if spec.scheduler is None:  # else they stay failed: it compared the others without them
        before, failed = tried_again(context, saved.waves, failed), set()
    found: list[Restored] = []
    for wave in before:
        group = group_of.get(wave.trials[0])
        if group is None or any(trial not in mine or group_of[trial] is not group for trial in wave.trials):
            raise _other(f"wave {wave.number} has trials of several groups or rounds")
        whole = (wave.trials,)
        fitting = whole if wave.finished else split(spec, context.plan, group.number, wave.trials)
        for i, trials in enumerate(fitting):
            own = wave.of(trials, wave.number if i == 0 else next(numbers))
            found.append((group, own, wave.number in failed))
    return sorted(found, key=lambda each: each[1].number)


def with_lanes(context: RunContext, waves: list[Restored], states: Iterable[RunState]) -> list[Restored]:
    """Returns restored waves with the lanes that this host's devices will hold, which may be others than it wrote.

    All hosts must call it.

    Args:
      context: what the waves share; its plan has the waves.
      waves: group, state and whether it failed, as ``restored`` gives them.
      states: the state of the run as this host has it, and then as each other one had it; read as far as needed.

    Raises:
      RunError: the checkpoint is not of this sweep, or lacks lanes.
    """
    found: list[Restored] = []
    distributed.on_each(lambda: found.extend(_filled(context, waves, states)))
    return found


def _filled(context: RunContext, waves: list[Restored], states: Iterable[RunState]) -> list[Restored]:
    """Returns what ``with_lanes`` does, on one host."""
    lanes = [_lanes(context, group, state) for group, state, _ in waves]
    for part in states:
        of_trial = {trial: wave for wave in part.waves for trial in wave.trials}
        for (group, state, _), (trial, wanted) in zip(waves, lanes, strict=True):
            if wanted and (own := of_trial.get(state.trials[0])) is not None:
                found = own.of(state.trials, state.number)
                _check(found, trial, context.programs.config(context.plan, group.number).arrays)
                for shard, assembly in product(found.lanes, wanted):
                    assembly.add(shard)
        lacking = [w[1].number for w, (_, own) in zip(waves, lanes, strict=True) if not all(a.complete for a in own)]
        if not lacking:
            break
    else:
        raise _other(f"lanes of wave {lacking[0]} are missing")
    return [
        (group, state._replace(lanes=tuple(assembly.shard() for assembly in wanted)), failed)
        for (group, state, failed), (_, wanted) in zip(waves, lanes, strict=True)
    ]


def _lanes(context: RunContext, group: Group, state: WaveState) -> tuple[Ints, list[Assembly]]:
    """Returns the trial of each lane of a wave, and what puts together the lanes that this host's devices will hold."""
    programs, plan = context.programs, context.plan
    config, (trial, replicate) = programs.config(plan, group.number), lane_ids(plan, state.trials)
    _check(state, trial, config.arrays)
    if not state.lanes:
        return trial, []
    like, spans, chunks = config.arrays, len(programs.mesh.devices), plan.arrangements[group.number].chunks
    layout = arrange(rng_groups(replicate, config.independent), state.live, config.width, spans, chunks)
    return trial, [Assembly(lanes, part, like) for lanes, part in needs(layout, programs.mesh)]


def _check(state: WaveState, trial: Ints, like: LaneArrays) -> None:
    """Raises ``RunError`` unless a wave of a checkpoint has these lanes, of such arrays."""
    try:
        state.check(trial, like)
    except RunError as error:
        raise _other(error) from None


def _other(why: str | RunError) -> RunError:
    return RunError(
        f"the checkpoint is not of this sweep: {why}. Delete the newest folder in checkpoints/, and run the same "
        "command to go on from the one before."
    )
