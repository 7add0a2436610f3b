"""Padding: which groups share one padded program, since that is faster in all than a program for each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from hpjax.engine.padding.program import PaddedProgram, padded_program
from hpjax.engine.padding.values import NotPaddableError
from hpjax.engine.shapes import ProgramShapes
from hpjax.schedulers import Scheduler
from hpjax.sweep.planning.grouping import Grouping, tracer_of
from hpjax.sweep.planning.plan import Group, Padding, Plan
from hpjax.sweep.spec import SweepSpec


def paddings_of(spec: SweepSpec, found: Grouping, platform: str, devices: int) -> tuple[list[Padding], list[str]]:
    """Returns the groups that share padded programs, and hints on those that could not.

    Groups may share a program if their programs have the same operations, as those of layers of different sizes have.
    They do where the plan's estimates say that one program, which computes for each of them as much as for the
    largest, takes less time in all. That includes its compilation, and that of the program of one of the groups, with
    which it is compared before the run trains. Values of hyperparameters with ``static=True`` keep groups of their own.

    Args:
      spec: the sweep.
      found: its groups.
      platform: the platform of the devices.
      devices: how many devices there are.
    """
    if spec.devices_per_lane > 1:
        return [], []  # a padded state has other sizes, which other devices divide
    if (spec.scheduler is not None and type(spec.scheduler).replace is not Scheduler.replace) or (
        spec.program.artifacts is not None
    ):
        return [], []  # states move between trials, or are given to the user's functions, as they are

    def training(groups: Sequence[Group], shapes: ProgramShapes) -> float:
        """Returns what training takes of groups that share a program of these shapes."""
        return sum(_calls(spec, found, g) * _call_seconds(shapes, g, platform) for g in groups) / devices

    def checking(groups: Sequence[Group]) -> float:
        """Returns what compiling a program takes with which that of several groups is compared; they are alike."""
        return found.shapes[groups[0].number].compile_seconds if len(groups) > 1 else 0.0

    def seconds(groups: Sequence[Group], shapes: ProgramShapes) -> float:
        """Returns what these groups take, compilation included."""
        return shapes.compile_seconds + checking(groups) + training(groups, shapes)

    made, hints = [], []
    for alike in _alike(spec, found):
        alike.sort(key=lambda g: _call_seconds(found.shapes[g.number], g, platform))
        for some in _partition(alike, lambda part: seconds(part, found.shapes[part[-1].number])):
            alone = sum(training([g], found.shapes[g.number]) for g in some)
            compiling = sum(found.shapes[g.number].compile_seconds for g in some)
            try:
                padded = _padded(spec, found, some)
            except NotPaddableError as error:
                hints.append(f"groups {_listed(some)} have programs of their own, since {error}")
                continue
            if seconds(some, padded.shapes) < compiling + alone:
                made.append(Padding(tuple(g.number for g in some), padded, checking(some), compiling, alone))
    return made, hints


def padded_as(spec: SweepSpec, plan: Plan, groups: Sequence[Sequence[int]]) -> Plan:
    """Returns the plan of a first round with the paddings that a run recorded, or as it is where it cannot have them.

    Args:
      spec: the sweep.
      plan: the plan of its first round.
      groups: for each padding the numbers of its groups.
    """
    if [list(own) for own in groups] == [list(padding.groups) for padding in plan.paddings]:
        return plan
    verdicts = {verdict.name: verdict for verdict in plan.verdicts}
    found = Grouping(tracer_of(spec), plan.points, plan.lengths, verdicts, plan.groups, plan.shapes)
    if any(number >= len(plan.groups) for own in groups for number in own):
        return plan
    try:
        made = tuple(Padding(tuple(own), _padded(spec, found, [found.groups[n] for n in own])) for own in groups)
    except NotPaddableError:
        return plan
    return replace(plan, paddings=made)


def _padded(spec: SweepSpec, found: Grouping, groups: Sequence[Group]) -> PaddedProgram:
    tracer = found.tracer
    hparams = [tracer.hparams(found.points[g.trials[0]], found.traced) for g in groups]
    shapes = [found.shapes[g.number] for g in groups]
    try:
        return padded_program(spec.program, hparams, shapes, tracer.train, tracer.valid)
    except NotPaddableError:
        raise
    except Exception as error:  # of the rules, or of JAX: each group has its own program, as it would without padding
        raise NotPaddableError(f"a padded one fails: {type(error).__name__}: {error}".split("\n")[0]) from error


def _alike(spec: SweepSpec, found: Grouping) -> Iterator[list[Group]]:
    """Yields the groups whose programs have the same operations, where there are several."""
    kept = [n for n in spec.space.names if any(domain.static for domain in spec.space.domains(n))]
    sets: dict[Any, list[Group]] = {}
    for g in found.groups:
        shapes, point = found.shapes[g.number], found.points[g.trials[0]]
        key = (g.eval_every, frozenset(point), *(repr(point.get(name)) for name in kept), shapes.operations)
        sets.setdefault(key, []).append(g)
    yield from (groups for groups in sets.values() if len(groups) > 1)


def _partition(groups: Sequence[Group], seconds: Callable[[Sequence[Group]], float]) -> list[list[Group]]:
    """Returns groups that are best put together, of those that are ordered by how long a step takes.

    Args:
      groups: the groups.
      seconds: returns what groups that follow each other take together.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]  # of the first n groups, and where the last set of them begins
    for end in range(1, len(groups) + 1):
        best.append(min((best[begin][0] + seconds(groups[begin:end]), begin) for begin in range(end)))
    parts, end = [], len(groups)
    while end:
        begin = best[end][1]
        parts.append(list(groups[begin:end]))
        end = begin
    return [part for part in parts if len(part) > 1]


def _calls(spec: SweepSpec, found: Grouping, group: Group) -> int:
    """Returns the calls of ``step`` of all lanes of a group."""
    lengths = [found.lengths[trial] for trial in group.trials]
    return spec.lanes_a_trial * sum(length.steps * length.microsteps for length in lengths)


def _call_seconds(shapes: ProgramShapes, group: Group, platform: str) -> float:
    """Returns the seconds of a call of ``step``, with its part of the evaluations."""
    return shapes.step.seconds(platform) + shapes.evaluation.seconds(platform) / group.eval_every


def _listed(groups: Sequence[Group]) -> str:
    return ", ".join(str(number) for number in sorted(g.number for g in groups))
