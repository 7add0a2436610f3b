"""From groups to widths, chunks and waves: how many lanes stand where, of a plan whose groups are known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from hpjax.core.errors import InputError
from hpjax.engine import layout, sharding
from hpjax.engine.device_lanes import rng_groups
from hpjax.engine.machine import fingerprint, processor
from hpjax.sweep.planning import width
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.planning.rate_cache import recall
from hpjax.sweep.planning.width import Rate
from hpjax.sweep.spec import KERNELS, Settings

# Bytes of a host's memory for the states of a wave, where its devices are CPUs: a run of any length takes no more.
HOST = 2**30


def with_widths(settings: Settings, plan: Plan) -> Plan:
    """``plan`` with width and kernels for each group: as it had, as the settings say, as was measured, or by rule."""
    given = settings.width
    for name, each in (("width", given), ("kernels", settings.kernels)):
        if isinstance(each, tuple) and not plan.widths and len(each) != len(plan.groups):
            allowed = f"must be one for all, or one for each of the {len(plan.groups)} groups"
            raise InputError(f"Sweep.{name}", each, allowed, "Leave it out, and the sweep chooses.")
    widths, rates, kernels = list(plan.widths), list(plan.rates), list(plan.kernels)
    for g in plan.groups[len(widths) :]:
        measured: tuple[Rate, ...] = ()
        if isinstance(given, int):
            widths.append(given)
        elif given is not None and g.number < len(given):
            widths.append(given[g.number])
        else:
            # Groups of later rounds by rule: what is measured by then must not decide their bits.
            measured = () if plan.widths else _recalled(settings, plan, g)
            most = width.best(measured).width if measured else None
            widths.append(_fit(settings, plan, g, most))
        rates.append(measured)
        kernels.append(_kernels(settings, g, measured))
    return replace(plan, widths=tuple(widths), rates=tuple(rates), kernels=tuple(kernels))


def _kernels(settings: Settings, group: Group, measured: tuple[Rate, ...]) -> str:
    given = settings.kernels
    if isinstance(given, tuple) and group.number < len(given):
        return given[group.number]
    if isinstance(given, str):
        return given
    return width.best(measured).kernels if measured else KERNELS[0]


def widened(settings: Settings, plan: Plan, others: Mapping[int, tuple[int, str]]) -> Plan:
    """``plan``, of the first round, with other widths for some groups, and with what was measured for all others.

    Args:
      settings: the sweep.
      plan: its plan.
      others: group to width and kernels.
    """
    plan = replace(with_widths(settings, replace(plan, widths=(), rates=(), kernels=())), chunks=(), waves=())
    each = [others.get(number, chosen) for number, chosen in enumerate(zip(plan.widths, plan.kernels, strict=True))]
    widths, kernels = zip(*each, strict=True)
    return with_waves(settings, replace(plan, widths=widths, kernels=kernels), 0)


def key_of(settings: Settings, plan: Plan, group: Group) -> str:
    """The fingerprint under which the widths of a group are remembered."""
    platform = sharding.devices(settings.devices)[0].platform
    most = width.most(platform, together_at_most(settings, group), plan.devices[0])
    given = settings.kernels
    kernels = given[group.number] if isinstance(given, tuple) and group.number < len(given) else given
    how = (settings.spread, settings.randomness, kernels, settings.folds, settings.stream is not None, processor())
    return fingerprint(plan.shapes[group.number].fingerprint, plan.devices, most, *how)


def _recalled(settings: Settings, plan: Plan, group: Group) -> tuple[Rate, ...]:
    # Shards, and several hosts, must have the same widths, whatever was measured on each machine.
    alone = plan.shard is None and jax.process_count() == 1
    return recall(key_of(settings, plan, group)).rates if alone else ()


def together_at_most(settings: Settings, group: Group) -> int:
    """How many lanes of a group may stand in one chunk: where each draws for itself all, else those of a replicate.

    Of a shard those of all trials: what the shards find together is one sweep, which has one width.
    """
    return len(group.trials) * (settings.lanes_a_trial if settings.randomness == "independent" else 1)


def _fit(settings: Settings, plan: Plan, group: Group, most: int | None) -> int:
    lanes, devices = together_at_most(settings, group), plan.devices[0]
    if most is not None:
        return width.balanced(most, lanes, devices)
    platform = sharding.devices(settings.devices)[0].platform
    return width.by_rule(platform, lanes, devices, plan.shapes[group.number].lane_bytes, sharding.memory())


def with_waves(settings: Settings, plan: Plan, first: int) -> Plan:
    """``plan`` with the waves of the trials from ``first`` on; a group keeps the chunks that it was compiled with."""
    mine = set(range(first, len(plan.lengths)))
    if plan.shard is not None:
        mine = plan.shard.trials([g.trials for g in plan.groups], plan.budgets)
    waves = []
    for g in plan.groups:
        known = g.number < len(plan.chunks)
        fitting = plan.chunks[g.number] if known else _fitting(settings, plan, g)
        fresh = tuple(trial for trial in g.trials if trial in mine)
        waves.append((*(plan.waves[g.number] if known else ()), *_cut_up(settings, plan, g, fresh, fitting)))
    return _sized(settings, plan, waves, first)


def _fitting(settings: Settings, plan: Plan, group: Group) -> int | None:
    """How many chunks of a group fit on a device, None for any number."""
    chunk, memory = plan.width_of(group.number) * plan.shapes[group.number].lane_bytes, sharding.memory()
    if memory is None and settings.scheduler is None:  # of which all waves are there together, and fit no better
        return width.chunks_that_fit(HOST // plan.devices[0], 0, chunk)
    return width.chunks_that_fit(memory, plan.data_bytes, chunk)


def _cut_up(
    settings: Settings, plan: Plan, group: Group, trials: tuple[int, ...], fitting: int | None
) -> list[tuple[int, ...]]:
    """Trials of a group in as few and as equal waves as so many chunks a device allow."""
    if not trials:
        return []
    most = layout.most_trials(partial(chunks_of, settings, plan, group.number), fitting, len(trials))
    return [trials[i : i + most] for i in range(0, len(trials), most)]


def _sized(settings: Settings, plan: Plan, waves: Sequence[tuple[tuple[int, ...], ...]], first: int) -> Plan:
    """``plan`` with these waves, of which those of a trial from ``first`` on are to train."""
    sizes = [
        plan.chunks[number]
        if number < len(plan.chunks)
        else max((chunks_of(settings, plan, number, len(wave)) for wave in own), default=1)
        for number, own in enumerate(waves)
    ]
    memory = sharding.memory()
    states = sum(
        sum(wave[0] >= first for wave in own) * size * plan.width_of(number) * plan.shapes[number].lane_bytes
        for number, (own, size) in enumerate(zip(waves, sizes, strict=True))
    )
    if settings.stream is not None:  # each wave has blocks of its own
        states += settings.stream.block_bytes * (sum(map(len, waves)) - 1)
    parks = settings.scheduler is not None and memory is not None and 2 * states + plan.data_bytes > memory
    return replace(plan, waves=tuple(waves), chunks=tuple(sizes), offloads=parks)


def narrowed(settings: Settings, plan: Plan, widths: Mapping[int, int]) -> Plan:
    """``plan`` with groups at widths of their own, group to width."""
    plan = replace(plan, narrowed={g: w for g, w in widths.items() if w != plan.widths[g]}, chunks=())
    return _sized(settings, plan, plan.waves, 0)


def pieces(settings: Settings, plan: Plan, group: Group, trials: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The trials of a wave that was made for other devices, in waves that fit on these."""
    return _cut_up(settings, plan, group, trials, _fitting(settings, plan, group))


def regrouped(settings: Settings, plan: Plan, waves: Sequence[tuple[Group, tuple[int, ...]]]) -> Plan:
    """``plan`` with these waves of its last round in place of its own."""
    mine = {trial for _, trials in waves for trial in trials}
    kept = [[wave for wave in own if wave[0] not in mine] for own in plan.waves]
    for g, trials in waves:
        kept[g.number].append(trials)
    return _sized(settings, replace(plan, chunks=()), [tuple(own) for own in kept], min(mine))


def chunks_of(settings: Settings, plan: Plan, group: int, trials: int) -> int:
    """How many chunks a device so many trials of a group need."""
    rng_group = rng_groups(
        np.repeat(np.arange(settings.lanes_a_trial, dtype=np.int32), trials), settings.randomness == "independent"
    )
    return layout.chunks_needed(rng_group, plan.width_of(group), plan.devices[0])
