"""The report of a plan: the text that ``print(sweep.plan())`` shows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpjax.core import format as text
from hpjax.engine.exchanges import Exchanges
from hpjax.engine.machine import keeps_compiled
from hpjax.sweep.planning.span_report import exchanged, span_lines
from hpjax.sweep.planning.width import Rate

if TYPE_CHECKING:
    from hpjax.sweep.planning.plan import Plan

COLUMNS = (
    "group",
    "static",
    "trials",
    "waves",
    "segments",
    "width",
    "chunks a device",
    "parameters a lane",
    "memory a device",
)
FOOTPRINT = (
    "group",
    "room for",
    "width",
    "state",
    "data",
    "temporaries",
    "bytes a lane-step",
    "on chip",
    "padding",
    "flops",
    "at best",
    "bound by",
    "operations a step",
    "collectives",
    "compiled in",
)
# Where work takes so many times as long as if nothing else ran, the plan says so.
BUSY = 1.5


def report(plan: "Plan") -> str:
    """Returns what a sweep will do: its size, the hyperparameters, the groups, what was measured, and hints."""
    hyperparameters = text.table(
        ("hyperparameter", "domain", "how", "why"),
        [(v.name, plan.domains[v.name], "traced" if v.traced else "static", v.reason) for v in plan.verdicts],
    )
    parts = [
        *_head(plan),
        "",
        hyperparameters,
        "",
        f"{text.count(len(plan.programs), 'compiled program')}{', one a group' * (not plan.paddings)}",
        text.table(COLUMNS, _groups(plan)),
        *_padded(plan),
        *_measured(plan),
        *_compiled(plan),
        *(f"\nhint: {hint}" for hint in (*_other_widths(plan), *plan.hints)),
    ]
    return "\n".join(parts)


def _head(plan: "Plan") -> list[str]:
    """Returns the lines on the size of the sweep, its devices, its data and its time."""
    count, kind = plan.devices
    seeds = plan.replicates // (plan.folds or 1)
    folds = f" ({text.count(seeds, 'seed')} × {plan.folds} folds)" if plan.folds else ""
    rounds = f" in {len(plan.rounds)} rounds, of which the first is planned here," if len(plan.rounds) > 1 else ""
    parts = " of one microbatch" if any(length.microsteps > 1 for length in plan.lengths) else ""
    work = f", {text.count(plan.lane_steps, 'lane-step')}{parts}"
    measured = all(each.lane_step is not None for each in plan.arrangements)
    return [
        f"{text.count(plan.trials, 'trial')}{rounds} × {text.count(plan.replicates, 'replicate')}{folds} = "
        f"{text.count(plan.trials * plan.replicates, 'lane')}{'' if plan.shard else work}",
        *([f"shard {plan.shard}: {len(plan.own):,} of {plan.trials:,} trials{work}"] if plan.shard else []),
        f"objective {plan.objective} · seed {plan.seed} · {plan.randomness} randomness",
        f"{text.count(count, f'{kind} device')}, data {text.size(plan.data_bytes)} a device",
        *span_lines(plan),
        *([f"data {plan.stream}"] if plan.stream else []),
        *([] if plan.target else [_times(plan, measured)]),
    ]


def _times(plan: "Plan", measured: bool) -> str:
    """Returns the line on the time that a sweep takes here."""
    return (
        f"about {text.duration(plan.run_seconds)} to run and {text.duration(plan.compile_seconds)} to compile, "
        + ("as measured" if measured else "as earlier runs here took" if plan.pace.known else "by a rough estimate")
        + (f"; other work slows this machine to {1 / plan.pace.busy:.0%}" if plan.pace.busy >= BUSY else "")
        + ("; what is compiled is kept" if keeps_compiled() else "")
    )


def _groups(plan: "Plan") -> list[tuple[str, ...]]:
    """Returns the rows of the table of groups."""
    apart = len({g.eval_every for g in plan.own_groups}) > 1
    rows: list[tuple[str, ...]] = []
    for g in plan.own_groups:
        own = plan.arrangements[g.number]
        rows.append(
            (
                str(g.number),
                f"{g}, eval_every={g.eval_every}" if apart else str(g),
                f"{own.trials:,}",
                f"{len(own.waves):,}",
                f"{plan.segments(g):,}",
                f"{own.width:,}",
                f"{own.chunks:,}",
                f"{plan.shapes[g.number].parameters:,}",
                text.size(plan.memory(g)),
            )
        )
    return rows


def _padded(plan: "Plan") -> list[str]:
    """Returns a line on each padded program."""
    lines = []
    for padding in plan.paddings:
        groups = ", ".join(map(str, sorted(padding.groups)))
        if plan.target is not None:  # the seconds are those of this machine
            lines.append(f"groups {groups} share a padded program")
            continue
        alone = padding.compiling * plan.pace.compiling + padding.training * plan.pace.running
        own = f", where programs of their own would take {text.duration(alone)}" if alone else ""
        training = sum(plan.group_seconds(plan.groups[number]) for number in padding.groups)
        compiling = (padding.padded.shapes.compile_seconds + padding.checking) * plan.pace.compiling
        taken = text.duration(compiling + training)
        lines.append(f"groups {groups} share a padded program, compiled, checked and run in {taken}{own}")
    return lines


def _measured(plan: "Plan") -> list[str]:
    """Returns a line on the speeds that were measured for each group, and one on those that were not."""
    rates = {g.number: plan.arrangements[g.number].measured.rates for g in plan.own_groups}
    lines = [f"group {number}: {speeds(own)}" for number, own in rates.items() if own]
    unknown = ", ".join(str(number) for number, own in rates.items() if not own)
    if lines and unknown:
        lines.append(f"not measured yet: group {unknown}; plan(measure=True) and hpjax plan --measure go on there")
    return lines


def _compiled(plan: "Plan") -> list[str]:
    """Returns what programs take of devices that are not there, and how long the sweep trains on these at best."""
    if plan.target is None:
        return []
    chip, rows = plan.target.chip, []
    for each, widest in zip(plan.footprints, plan.widest, strict=True):
        collectives = ", ".join(f"{n} {name}" for name, n in sorted(each.collectives.items()))
        rows.append(
            (
                str(each.group),
                f"{widest:,}",
                f"{each.width:,}",
                *map(text.size, each.memory),
                text.size(each.bytes),
                text.size(each.near_bytes),
                f"{each.padding:.0%}",
                text.rate(sum(each.flops)),
                f"{each.seconds(chip) * 1e6:.3g} µs",
                each.bound(chip),
                f"{each.step.kernels:,.0f}",
                collectives or "none",
                text.duration(each.compile_seconds),
            )
        )
    return [
        "",
        f"compiled for {plan.target.name}: {text.size(chip.limit)} of memory for arrays, "
        f"{text.rate(chip.bandwidth)}B/s, {text.rate(chip.float32)}FLOP/s in products of float32 ({chip.source})",
        text.table(FOOTPRINT, rows),
        *_exchanges(plan),
        f"at best {text.duration(plan.best_seconds)} to train, without evaluations",
    ]


def _exchanges(plan: "Plan") -> list[str]:
    """Returns a line on what the devices of a lane exchange in each step, for each program."""
    if plan.devices_per_lane == 1:
        return []
    lines = []
    for each in plan.footprints:
        parameters = 4 * plan.shapes[each.group].parameters
        lines.append(
            f"group {each.group}: {exchanged(Exchanges.of(each.step))}, for {text.size(parameters)} of parameters a "
            "lane in float32"
        )
    return lines


def speeds(rates: Sequence[Rate]) -> str:
    """Returns speeds by width, and by kernels where both were measured, as shares of that of the fastest."""
    either = len({rate.kernels for rate in rates}) > 1
    each = [f"{rate.width}{f' {rate.kernels}' if either else ''} → {rate.speed:.0%}" for rate in rates]
    return f"speed by width at most: {', '.join(each)}"


def _other_widths(plan: "Plan") -> list[str]:
    """Returns a hint for each group that trains at another width than was planned."""
    arrangements = enumerate(plan.arrangements)
    return [f"group {number} {each.why}: it trains at {each.width}." for number, each in arrangements if each.why]
