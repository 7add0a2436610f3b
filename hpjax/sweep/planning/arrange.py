"""Arranges the groups of a plan on its devices: widths as given, as measured before, or by rule; chunks and waves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax

from hpjax.core.errors import InputError
from hpjax.data.stream import Stream
from hpjax.engine import sharding
from hpjax.engine.chips import chip_of
from hpjax.engine.machine import fingerprint, processor
from hpjax.sweep.planning import width
from hpjax.sweep.planning.arrangement import Arrangement, Capacity, Waves
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.rate_cache import recall
from hpjax.sweep.planning.width import Measured, Rate
from hpjax.sweep.spec import KERNELS, KERNELS_OF, SweepSpec, of_group


def capacity_of(spec: SweepSpec, plan: Plan) -> Capacity:
    """Returns what decides how many lanes of a sweep fit on its devices."""
    device = sharding.devices(spec.devices)[0]
    chip = chip_of(device.device_kind)
    return Capacity(
        platform=device.platform,
        devices=plan.devices[0],
        spans=plan.spans,
        # Of this host's devices, or as published of those that are only described.
        memory=chip.limit if chip is not None and isinstance(spec.devices, tuple) else sharding.memory(),
        near=0 if chip is None else chip.near,
        data_bytes=plan.data_bytes,
        replicates=spec.lanes_a_trial,
        independent=spec.independent,
        racing=spec.scheduler is not None,
    )


def arranged(spec: SweepSpec, plan: Plan) -> Plan:
    """Arranges the trials of the round that was planned last.

    Groups that earlier rounds arranged keep their width and chunks, since their programs are compiled for these.

    Raises:
      InputError: ``Sweep.width`` or ``Sweep.kernels`` is a tuple that does not have one value for each group.
    """
    if not plan.arrangements:
        for name, asked in (("width", spec.width), ("kernels", spec.kernels)):
            if isinstance(asked, tuple) and len(asked) != len(plan.groups):
                allowed = f"must be one for all, or one for each of the {len(plan.groups)} groups"
                remedy = f"Write {name}={asked[0]!r} for all groups, or leave it out and the sweep chooses."
                raise InputError(f"Sweep.{name}", asked, allowed, remedy)
    capacity, mine = capacity_of(spec, plan), set(range(plan.last_round_begin, len(plan.lengths)))
    if plan.shard is not None:
        mine = plan.shard.trials([g.trials for g in plan.groups], plan.budgets)
    found = []
    for g in plan.groups:
        trials = tuple(trial for trial in g.trials if trial in mine)
        if g.number < len(plan.arrangements):
            found.append(plan.arrangements[g.number].with_trials(capacity, trials))
            continue
        # The width of a group that a later round brings follows from the rule, never from measurements: what was
        # measured meanwhile would give a run that is resumed another width, and so other bits.
        measured = Measured() if plan.arrangements else _remembered(spec, plan, g)
        lane_bytes, number = plan.lane_bytes(g.number), g.number
        requested = of_group(spec.width, number), of_group(spec.kernels, number)
        wide, kernels = _chosen(requested, capacity, most_trials(plan, number), lane_bytes, measured.rates)
        found.append(Arrangement.of(capacity, lane_bytes, trials, wide, kernels, measured))
    return _with(spec.stream, capacity, plan, found)


def rearranged(spec: SweepSpec, plan: Plan, chosen: Mapping[int, tuple[int, str]] | None = None) -> Plan:
    """Arranges the first round anew, with the speeds that have been measured by now.

    Args:
      spec: the sweep.
      plan: the plan of its first round.
      chosen: group number to the width and the kernels that the group gets whatever was measured.
    """
    plan = arranged(spec, replace(plan, arrangements=()))
    capacity, found = capacity_of(spec, plan), list(plan.arrangements)
    for number, (wide, kernels) in (chosen or {}).items():
        own, lane_bytes = found[number], plan.lane_bytes(number)
        trials = [trial for wave in own.waves for trial in wave]
        found[number] = Arrangement.of(capacity, lane_bytes, trials, wide, kernels, own.measured)
    return _with(spec.stream, capacity, plan, found)


def with_widths(spec: SweepSpec, plan: Plan, widths: Mapping[int, int], why: str) -> Plan:
    """Returns the plan with other widths, group number to width, and why that is; the waves stay."""
    capacity, found = capacity_of(spec, plan), list(plan.arrangements)
    for number, wide in widths.items():
        found[number] = found[number].with_width(capacity, wide, why)
    return _with(spec.stream, capacity, plan, found)


def with_choice(spec: SweepSpec, plan: Plan, group: int, wide: int, kernels: str) -> Plan:
    """Returns the plan with another width and other kernels for a group; the waves stay."""
    capacity, found = capacity_of(spec, plan), list(plan.arrangements)
    own = replace(found[group], kernels=kernels)
    found[group] = own.with_width(capacity, wide, own.why)
    return _with(spec.stream, capacity, plan, found)


def with_measured(plan: Plan, group: int, measured: Measured) -> Plan:
    """Returns the plan with what was measured of a group, whose width stays."""
    found = list(plan.arrangements)
    found[group] = replace(found[group], measured=measured)
    return replace(plan, arrangements=tuple(found))


def halved(spec: SweepSpec, plan: Plan, group: int) -> Plan:
    """Returns the plan with half the width for a group that ran out of memory."""
    capacity, found = capacity_of(spec, plan), list(plan.arrangements)
    found[group] = found[group].halved(capacity)
    return _with(spec.stream, capacity, plan, found)


def split(spec: SweepSpec, plan: Plan, group: int, trials: Sequence[int]) -> Waves:
    """Splits the trials of a wave that was made for other devices into waves that fit on these."""
    return plan.arrangements[group].split(capacity_of(spec, plan), plan.lane_bytes(group), trials)


def with_waves(spec: SweepSpec, plan: Plan, waves: Sequence[tuple[int, tuple[int, ...]]]) -> Plan:
    """Returns the plan with other waves in its last round, each a group number and the wave's trials."""
    moved = {trial for _, trials in waves for trial in trials}
    capacity, found = capacity_of(spec, plan), []
    for number, arrangement in enumerate(plan.arrangements):
        kept = [wave for wave in arrangement.waves if wave[0] not in moved]
        own = [trials for group, trials in waves if group == number]
        found.append(arrangement.with_waves(capacity, (*kept, *own)))
    return _with(spec.stream, capacity, plan, found)


def rate_key(spec: SweepSpec, plan: Plan, group: Group) -> str:
    """Returns the fingerprint under which the speeds of a group's program are remembered on this machine."""
    capacity = capacity_of(spec, plan)
    most = width.most(capacity.platform, capacity.lanes_together(most_trials(plan, group.number)), capacity.spans)
    kernels = of_group(spec.kernels, group.number)
    how = (spec.spread, spec.randomness, kernels, spec.folds, spec.stream is not None, processor())
    span = plan.devices_per_lane, str(plan.partitions[group.number])
    return fingerprint(plan.trained(group.number).fingerprint, plan.devices, most, *span, *how)


def _remembered(spec: SweepSpec, plan: Plan, group: Group) -> Measured:
    """Returns what this machine remembers of the widths of a group's program; nothing where that may not decide."""
    # Shards, and several hosts, must have the same widths, whatever was measured on each machine.
    alone = plan.shard is None and jax.process_count() == 1
    asked = of_group(spec.width, group.number)
    return recall(rate_key(spec, plan, group)) if alone and asked is None else Measured()


def _chosen(
    requested: tuple[int | None, str | None], capacity: Capacity, trials: int, lane_bytes: int, rates: Sequence[Rate]
) -> tuple[int, str]:
    """Returns the width and the kernels of a group: as asked for, else the best that was measured, else by rule.

    Args:
      requested: the width and the kernels that the sweep asks for, each None for none.
      capacity: what there is room for.
      trials: how many trials the group has.
      lane_bytes: bytes of the state of each lane.
      rates: the speeds that were measured.
    """
    # All trials count, also those of other shards: the shards together are one sweep, and it has one width.
    lanes = capacity.lanes_together(trials)
    if rates:
        best = width.best(rates)
        found = width.balanced(best.width, lanes, capacity.spans), best.kernels
    else:
        room = capacity.memory, capacity.near
        by_rule = width.by_rule(capacity.platform, lanes, capacity.spans, lane_bytes, *room)
        found = by_rule, KERNELS_OF.get(capacity.platform, KERNELS[0])
    return requested[0] or found[0], requested[1] or found[1]


def most_trials(plan: Plan, group: int) -> int:
    """Returns how many trials the largest of the groups has that share the program of a group."""
    return max(len(plan.groups[number].trials) for number in plan.together(group))


def _alike_together(plan: Plan, arrangements: Sequence[Arrangement]) -> list[Arrangement]:
    """Returns arrangements of which those that share a program, and have one width, have equally many chunks."""
    found = list(arrangements)
    for padding in plan.paddings:
        for number in padding.groups:
            alike = [found[n].chunks for n in padding.groups if found[n].width == found[number].width]
            found[number] = replace(found[number], chunks=max(alike))
    return found


def _with(stream: Stream | None, capacity: Capacity, plan: Plan, arrangements: Sequence[Arrangement]) -> Plan:
    """Returns the plan with these arrangements, and decides whether the waves of its last round offload.

    They do under a scheduler, if the states of all these waves and the copy that moving lanes makes do not fit.
    """
    waves = [sum(wave[0] >= plan.last_round_begin for wave in each.waves) for each in arrangements]
    arrangements = _alike_together(plan, arrangements)
    groups = zip(range(len(plan.groups)), arrangements, waves, strict=False)
    states = sum(each.state_bytes(plan.lane_bytes(g), count) for g, each, count in groups)
    if stream is not None:  # each wave has blocks of its own; those of one are in data_bytes
        states += stream.block_bytes * (sum(waves) - 1)
    memory = capacity.memory
    offloads = capacity.racing and memory is not None and 2 * states + capacity.data_bytes > memory
    return replace(plan, arrangements=tuple(arrangements), offloads=offloads)
