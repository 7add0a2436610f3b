"""Arranges the groups of a plan on its devices: widths as given, as measured before, or by rule; chunks and waves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax

from hpjax.core.errors import InputError
from hpjax.engine import sharding
from hpjax.engine.machine import fingerprint, processor
from hpjax.sweep.planning import width
from hpjax.sweep.planning.arrangement import Arrangement, Capacity, Waves
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.rate_cache import recall
from hpjax.sweep.planning.width import Rate
from hpjax.sweep.spec import KERNELS, SweepSpec, of_group


def capacity_of(spec: SweepSpec, plan: Plan) -> Capacity:
    """Returns what decides how many lanes of a sweep fit on its devices."""
    return Capacity(
        platform=sharding.devices(spec.devices)[0].platform,
        devices=plan.devices[0],
        memory=sharding.memory(),
        data_bytes=plan.data_bytes,
        replicates=spec.lanes_a_trial,
        independent=spec.independent,
        racing=spec.scheduler is not None,
    )


def arranged(spec: SweepSpec, plan: Plan, first: int = 0) -> Plan:
    """Arranges the trials from ``first`` on; groups that are arranged already keep their programs.

    Raises:
      InputError: ``Sweep.width`` or ``Sweep.kernels`` has not one value for each group.
    """
    if not plan.arrangements:
        for name, asked in (("width", spec.width), ("kernels", spec.kernels)):
            if isinstance(asked, tuple) and len(asked) != len(plan.groups):
                allowed = f"must be one for all, or one for each of the {len(plan.groups)} groups"
                raise InputError(f"Sweep.{name}", asked, allowed, "Leave it out, and the sweep chooses.")
    capacity, mine = capacity_of(spec, plan), set(range(first, len(plan.lengths)))
    if plan.shard is not None:
        mine = plan.shard.trials([g.trials for g in plan.groups], plan.budgets)
    found = []
    for g in plan.groups:
        trials = tuple(trial for trial in g.trials if trial in mine)
        if g.number < len(plan.arrangements):
            found.append(plan.arrangements[g.number].with_trials(capacity, trials))
            continue
        # Groups of later rounds go by rule: what is measured by then must not decide their bits.
        rates = () if plan.arrangements else _remembered(spec, plan, g)
        lane_bytes, (wide, kernels) = plan.shapes[g.number].lane_bytes, _chosen(spec, capacity, plan, g, rates)
        found.append(Arrangement.of(capacity, lane_bytes, trials, wide, kernels, rates))
    return _with(spec, capacity, plan, found, first)


def rearranged(spec: SweepSpec, plan: Plan, chosen: Mapping[int, tuple[int, str]] | None = None) -> Plan:
    """Arranges the first round anew, by what is measured by now.

    Args:
      spec: the sweep.
      plan: its plan.
      chosen: group to width and kernels, for groups that are to have others.
    """
    plan = arranged(spec, replace(plan, arrangements=()))
    capacity, found = capacity_of(spec, plan), list(plan.arrangements)
    for number, (wide, kernels) in (chosen or {}).items():
        own, lane_bytes = found[number], plan.shapes[number].lane_bytes
        trials = [trial for wave in own.waves for trial in wave]
        found[number] = Arrangement.of(capacity, lane_bytes, trials, wide, kernels, own.rates)
    return _with(spec, capacity, plan, found, 0)


def with_widths(spec: SweepSpec, plan: Plan, widths: Mapping[int, int]) -> Plan:
    """Gives groups other widths, group to width; their waves stay."""
    capacity, found = capacity_of(spec, plan), list(plan.arrangements)
    for number, wide in widths.items():
        found[number] = found[number].with_width(capacity, wide)
    return _with(spec, capacity, plan, found, 0)


def halved(spec: SweepSpec, plan: Plan, group: int) -> Plan:
    """Gives a group that ran out of memory half its width."""
    capacity, found = capacity_of(spec, plan), list(plan.arrangements)
    found[group] = found[group].halved(capacity)
    return _with(spec, capacity, plan, found, 0)


def split(spec: SweepSpec, plan: Plan, group: int, trials: Sequence[int]) -> Waves:
    """Splits a wave that was made for other devices into waves that fit on these."""
    return plan.arrangements[group].split(capacity_of(spec, plan), plan.shapes[group].lane_bytes, trials)


def with_waves(spec: SweepSpec, plan: Plan, waves: Sequence[tuple[int, tuple[int, ...]]]) -> Plan:
    """Replaces the waves of the last round by these, each a group and its trials."""
    mine = {trial for _, trials in waves for trial in trials}
    capacity, found = capacity_of(spec, plan), []
    for number, arrangement in enumerate(plan.arrangements):
        kept = [wave for wave in arrangement.waves if wave[0] not in mine]
        own = [trials for group, trials in waves if group == number]
        found.append(arrangement.with_waves(capacity, (*kept, *own)))
    return _with(spec, capacity, plan, found, min(mine))


def rate_key(spec: SweepSpec, plan: Plan, group: Group) -> str:
    """Returns the fingerprint under which the speeds of a group's program are remembered on this machine."""
    capacity = capacity_of(spec, plan)
    most = width.most(capacity.platform, capacity.lanes_together(len(group.trials)), capacity.devices)
    kernels = of_group(spec.kernels, group.number)
    how = (spec.spread, spec.randomness, kernels, spec.folds, spec.stream is not None, processor())
    return fingerprint(plan.shapes[group.number].fingerprint, plan.devices, most, *how)


def _remembered(spec: SweepSpec, plan: Plan, group: Group) -> tuple[Rate, ...]:
    # Shards, and several hosts, must have the same widths, whatever was measured on each machine.
    alone = plan.shard is None and jax.process_count() == 1
    asked = of_group(spec.width, group.number)
    return recall(rate_key(spec, plan, group)).rates if alone and asked is None else ()


def _chosen(spec: SweepSpec, capacity: Capacity, plan: Plan, group: Group, rates: Sequence[Rate]) -> tuple[int, str]:
    """Returns the width and the kernels of a group."""
    # Of a shard the lanes of all trials: what the shards find together is one sweep, which has one width.
    lanes, lane_bytes = capacity.lanes_together(len(group.trials)), plan.shapes[group.number].lane_bytes
    asked = of_group(spec.width, group.number), of_group(spec.kernels, group.number)
    if rates:
        best = width.best(rates)
        found = width.balanced(best.width, lanes, capacity.devices), best.kernels
    else:
        by_rule = width.by_rule(capacity.platform, lanes, capacity.devices, lane_bytes, capacity.memory)
        found = by_rule, KERNELS[0]
    return asked[0] or found[0], asked[1] or found[1]


def _with(spec: SweepSpec, capacity: Capacity, plan: Plan, arrangements: Sequence[Arrangement], first: int) -> Plan:
    """Returns the plan with these arrangements, of which the waves from trial ``first`` on are to train.

    Waves that wait for a scheduler do so on the host, where the states of all and a copy to move lanes do not fit.
    """
    states = sum(
        each.state_bytes(plan.shapes[number].lane_bytes, sum(wave[0] >= first for wave in each.waves))
        for number, each in enumerate(arrangements)
    )
    if spec.stream is not None:  # each wave has blocks of its own
        states += spec.stream.block_bytes * (sum(len(each.waves) for each in arrangements) - 1)
    memory = capacity.memory
    offloads = capacity.racing and memory is not None and 2 * states + capacity.data_bytes > memory
    return replace(plan, arrangements=tuple(arrangements), offloads=offloads)
