"""Advice: the hints of a plan, on what would make the sweep faster and on what is likely a mistake."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

from hpjax.core.arrays import ceil_div
from hpjax.core.format import count, duration
from hpjax.core.program import Program
from hpjax.core.space import point_key
from hpjax.engine.artifacts import failure_of, trace_artifacts
from hpjax.engine.machine import cores
from hpjax.engine.probe import DERIVED
from hpjax.engine.tracing import Verdict
from hpjax.schedulers import Scheduler
from hpjax.sweep.planning.arrange import capacity_of
from hpjax.sweep.planning.grouping import Grouping
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.planning.programs import mesh_of
from hpjax.sweep.planning.room import check_room, hints_of_room
from hpjax.sweep.spec import SweepSpec

# Above so many programs a hint names the continuous hyperparameters that are static.
FEW_GROUPS = 8
# A hint lists so many decisions.
FEW_DECISIONS = 4
# Seconds of a device call that is too long, and of one that is not: clouds give a machine that they take away half a
# minute, in which the call must end and a checkpoint be written.
LONG_CALL, SHORT_CALL = 30.0, 10.0


def hints(
    spec: SweepSpec, devices: list[jax.Device], found: Grouping, read: set[str], unseen: set[str]
) -> Iterator[str]:
    """Yields hints on what would make a sweep faster, and on what is likely a mistake.

    Args:
      spec: the sweep.
      devices: the devices that it trains on.
      found: its groups, and the shapes of their programs.
      read: the hyperparameters that the program reads.
      unseen: the fields whose numbers could not be checked.
    """
    groups, shapes, verdicts = found.groups, found.shapes, found.verdicts
    if unseen:
        first, *others = sorted(unseen)
        more = f" and {count(len(others), 'other')}" if others else ""
        what = f"{first}{more} {'are' if others else 'is'} computed inside a loop or a jitted function"
        yield f"{what}, where numbers cannot be checked beforehand."
    yield from dict.fromkeys(sentence for given in shapes for sentence in given.remarks)
    for name in verdicts.keys() - read:
        yield f"the program never reads {name}: all its values give the same result."
    checked = {(name, check.field) for given in shapes for name, check in given.checks}
    for name in sorted(name for name, field in checked if field == "Dense.active" and name != DERIVED):
        if (name, "Dense.inputs") not in checked:
            yield (
                f"{name} masks units, but no later layer is told how many of its inputs are active: it starts at the "
                "scale of the widest. "
                f"Write hpx.nn.Dense(..., inputs=h.{name})."
            )
    best = spec.objective.metric.replace("valid/", "valid/best_")
    if spec.program.finishes and all(best in given.metrics for given in shapes):
        yield (
            f"trials keep the parameters of their best evaluation, and rank by the last {spec.objective.metric}: "
            f"objective=hpx.{spec.objective.direction}({best!r}) ranks by what they keep."
        )
    many = [n for n, v in verdicts.items() if not v.traced and any(d.grid() is None for d in spec.space.domains(n))]
    if many and len(groups) > FEW_GROUPS:
        yield (
            f"{len(groups)} programs to compile, since {', '.join(many)} is continuous and cannot be traced. "
            f"Write {many[0]}=hpx.Choice(...) with few values, or make the program trace it."
        )
    yield from _hints_of_twins(verdicts)
    if spec.scheduler is not None:
        yield from _hints_of_decisions(spec.scheduler, found)
    if not spec.independent and max(len(g.trials) for g in groups) < spec.lanes_a_trial:
        yield (
            f"replicates outnumber trials{' of each group' * (len(groups) > 1)}, and only lanes of one replicate "
            'compute together, which are few. With randomness="independent" all lanes can.'
        )
    if any(leaf.dtype == jnp.bfloat16 for given in shapes for leaf in given.state if leaf.ndim > 0):
        yield (
            "arrays of the state are bfloat16, in which Adam's b2=0.999 becomes 1 and small updates vanish. Compute in "
            "bfloat16 with dtype, and keep param_dtype float32."
        )
    if spec.program.artifacts is not None:
        yield from _hints_of_artifacts(spec.program, found)
    if devices[0].platform == "cpu" and any(given.lapack for given in shapes):
        yield (
            "the program decomposes matrices (qr, svd, ...), and several of these at once can wait for each other "
            "forever where XLA has few threads. Set NPROC=16 in the environment before Python starts. Initializers "
            "need not: write hpx.nn.orthogonal(), in recurrent cells as recurrent_kernel_init."
        )
    if devices[0].platform == "cpu" and len(devices) < cores():
        yield (
            f"{cores()} cores, but {len(devices)} CPU device{'s' * (len(devices) > 1)}. One device a core is faster "
            "for small models: call hpx.setup() before the first use of JAX."
        )


# What a line that cannot trace a hyperparameter may call, and what traces it there.
TWINS = {
    "Dropout(": "hpx.nn.Dropout",
    "_schedule(": "the schedule of the same name in hpx.optim",
    "nesterov": "hpx.optim.sgd",
}


def _hints_of_twins(verdicts: Mapping[str, Verdict]) -> Iterator[str]:
    """Names what traces a hyperparameter that another library decides by in Python, so that it is static."""
    for name, verdict in verdicts.items():
        twin = next((twin for call, twin in TWINS.items() if call in verdict.reason), None)
        if not verdict.traced and twin is not None:
            yield f"{name} is static, a program for each of its values. With {twin} one program serves all."


def _hints_of_artifacts(program: Program, found: Grouping) -> Iterator[str]:
    """Says of the first group whose artifacts cannot be traced that there will be none, and why."""
    for g, shapes in zip(found.groups, found.shapes, strict=True):
        h = found.tracer._replace(folds=None).hparams(found.points[g.trials[0]], found.traced)
        try:
            trace_artifacts(program, shapes, found.tracer.valid, h, found.tracer.folds or 1)
        except Exception as error:  # whatever the user's function raises
            yield f"{failure_of(program.artifacts, error)}. Trials of group {g.number} will have no artifacts."
            return


def _hints_of_decisions(scheduler: Scheduler, found: Grouping) -> Iterator[str]:
    """Says where a scheduler decides later than it means to, since it can at evaluations only."""
    budget, every = max(length.steps * length.microsteps for length in found.lengths), found.groups[0].eval_every
    scheduler, step, late = scheduler.within(budget), 0, list[str]()
    # A scheduler that names the very next step means the next evaluation, wherever that is.
    while every > 1 and step + 1 < (wanted := scheduler.next(step)) < budget:
        step = min(ceil_div(wanted, every) * every, budget)
        if step != wanted:
            late.append(f"{f'at {step:,}' if step < budget else 'never'} for {wanted:,}")
    if late:
        listed = ", ".join([*late[:FEW_DECISIONS], *["…"] * (len(late) > FEW_DECISIONS)])
        name = type(scheduler).__name__
        yield f"{name} decides at evaluations, which come every {every:,} steps: {listed}."


def advised(spec: SweepSpec, plan: Plan, disturbing: Sequence[str] = ()) -> Plan:
    """Returns the plan with more hints, beside those that it has.

    Args:
      spec: the sweep.
      plan: its plan, whose groups are arranged.
      disturbing: the debugging switches of JAX that are on.

    Raises:
      InputError, ProgramError: its devices cannot be divided among lanes, or a lane is too large for them, so that it
        can be read, and cannot train.
    """
    mesh_of(spec)
    memory = capacity_of(spec, plan).memory
    check_room(spec, plan, memory)
    more = (
        *hints_of_room(spec, plan, memory),
        *_hints_of_repeats(spec, plan),
        *_hints_of_takeovers(plan),
        *_hints_of_calls(plan),
        *_hints_of_shard(spec, plan),
        *hints_of_switches(disturbing),
    )
    return replace(plan, hints=(*plan.hints, *more))


def hints_of_switches(disturbing: Sequence[str]) -> Iterator[str]:
    """Yields what becomes of the debugging switches of JAX that are on."""
    if disturbing:
        yield (
            f"{', '.join(disturbing)}: off while the sweep traces, compiles and computes, where it would end the run "
            "of all lanes. A lane that diverges is recorded with its step; to debug the program, call its functions "
            "outside of a sweep."
        )


def hints_of_script(file: Path | None) -> Iterator[str]:
    """Yields what to change of a file that begins to train while the command line executes it to find its sweep."""
    if file is not None:
        yield (
            f"{file.name} runs a sweep while hpjax executes it to find the one that it defines. "
            'Write sweep.run() under if __name__ == "__main__": to have it run as a script only.'
        )


def _hints_of_repeats(spec: SweepSpec, plan: Plan) -> Iterator[str]:
    """Says that a finite space has fewer points than trials were asked for, and how many trials repeat a point."""
    size, asked = spec.space.size, spec.trials
    if asked is not None and plan.trials < asked and plan.trials == size:
        yield (
            f"the space has {count(size, 'point')}, and each is tried once: the sweep ends after so many of the "
            f"{asked:,} trials that were asked for. Write replicates=2 for more seeds of each."
        )
    repeated = len(plan.points) - len(set(map(point_key, plan.points)))
    if repeated:
        same = "noise of its own only" if spec.independent else "the same random numbers, and the same results"
        finite = "" if size is None else f" The space has {count(size, 'point')}."
        yield (
            f"{repeated:,} of {count(len(plan.points), 'trial')} have the hyperparameters of another one, with {same}."
            f"{finite} Leave them out, or write replicates=2 for more seeds of each."
        )


def _hints_of_takeovers(plan: Plan) -> Iterator[str]:
    """Says which hyperparameters a running trial keeps, since they are in a state that has been trained."""
    kept = {name: array for takeover in plan.takeovers for name, array in takeover.kept.items()}
    for name, array in kept.items():
        yield (
            f"{name} decides how {array} begins, which training then changes: a trial that goes on from the state of "
            f"another takes over its {name}, too, and the scheduler cannot change it."
        )


def _hints_of_calls(plan: Plan) -> Iterator[str]:
    """Warns if a device call is too long to interrupt; of the first such group, since the others are likely alike."""
    for group in plan.own_groups:
        waves = plan.arrangements[group.number].waves
        seconds = plan.split_seconds(group)[0] / (plan.segments(group) * len(waves))
        longest = max(plan.budgets[trial] for wave in waves for trial in wave)
        steps = min(longest, group.eval_every, plan.segment or longest, plan.block or longest)
        if seconds > LONG_CALL and steps > 1:
            fewer = max(1, int(steps * SHORT_CALL / seconds))
            yield (
                f"a device call of {steps:,} steps takes about {duration(seconds)} in group {group.number}, by the "
                "estimate above, and a notice of preemption or Ctrl-C waits for its end. "
                f"Sweep(segment={fewer}) makes that about {duration(seconds / steps * fewer)}."
            )
            return


def _hints_of_shard(spec: SweepSpec, plan: Plan) -> Iterator[str]:
    """Warns that all shards must have one width, and if the trials of this shard fill little of it."""
    if plan.shard is None or spec.width is not None:
        return
    wide, capacity = max(plan.widths), capacity_of(spec, plan)
    yield (
        f"this machine makes the width {wide}, and shards of different widths are not merged. Where they run on "
        f"different machines, write width={wide} for all of them."
    )
    whole = own = 0
    for g, arrangement in zip(plan.groups, plan.arrangements, strict=True):
        whole += capacity.chunks(len(g.trials), arrangement.width)
        own += capacity.chunks(arrangement.trials, arrangement.width) if arrangement.trials else 0
    if own * plan.shard.of > 2 * whole:
        yield (
            f"this shard takes about {own / whole:.0%} of the time of the whole sweep: its trials do not fill the "
            f"width of the sweep, {wide}. Use fewer shards, or give all of them the same smaller width."
        )
