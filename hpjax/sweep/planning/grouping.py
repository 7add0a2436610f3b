"""Groups trials that share a program, and traces each program abstractly; nothing compiles."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from hpjax.core.hparams import Hparams, with_fold
from hpjax.core.program import Program, TrialLength
from hpjax.core.space import Point
from hpjax.engine.probe import trace_test
from hpjax.engine.shapes import ProgramShapes
from hpjax.engine.takeover import Takeover, trace_takeover
from hpjax.engine.tracing import Tracer, Verdict, kinds_of, resolve_traced, shapes_of, with_user_lines
from hpjax.schedulers import Scheduler
from hpjax.sweep.planning.plan import Group
from hpjax.sweep.spec import SweepSpec


class Grouping(NamedTuple):
    """What abstract tracing found out about the trials so far.

    Attributes:
      tracer: traces the program abstractly.
      points: per trial, its hyperparameters.
      lengths: per trial, how long it takes.
      verdicts: per hyperparameter, whether it is traced, and why.
      groups: the trials that share a program, for each program.
      shapes: per group, the shapes of what its program gives.
    """

    tracer: Tracer
    points: tuple[Point, ...]
    lengths: tuple[TrialLength, ...]
    verdicts: dict[str, Verdict]
    groups: tuple[Group, ...]
    shapes: tuple[ProgramShapes, ...]

    @property
    def traced(self) -> frozenset[str]:
        """The names of the traced hyperparameters."""
        return frozenset(name for name, verdict in self.verdicts.items() if verdict.traced)


def group(hparams: Sequence[Hparams], eval_every: Sequence[int], traced: frozenset[str]) -> list[Group]:
    """Groups trials: two share a group exactly if their tree structures and ``eval_every`` are equal.

    Args:
      hparams: per trial, its hyperparameters as a pytree: traced values are leaves, static ones part of the structure.
      eval_every: per trial, calls of ``step`` between evaluations.
      traced: the names of the traced hyperparameters.

    Returns:
      Groups in the order of their first trials; each trial is in exactly one.
    """
    members: dict[tuple[Any, int], list[int]] = {}
    for trial, (h, every) in enumerate(zip(hparams, eval_every, strict=True)):
        members.setdefault((jax.tree.structure(h), every), []).append(trial)
    groups = []
    for number, ((_, every), trials) in enumerate(members.items()):
        h = hparams[trials[0]]
        static = {name: h[name] for name in h if name not in traced}
        groups.append(Group(number, static, every, tuple(trials)))
    return groups


def tracer_of(spec: SweepSpec) -> Tracer:
    """Returns what traces the program of a sweep abstractly, by the shapes of its data."""
    train, valid = spec.splits
    return Tracer(spec.program, kinds_of(spec.space), shapes_of(train), shapes_of(valid), spec.folds)


def grouped(
    spec: SweepSpec,
    points: Sequence[Point],
    lengths: Sequence[TrialLength],
    verdicts: dict[str, Verdict],
    known: Sequence[ProgramShapes] = (),
    traced: Mapping[int, ProgramShapes] = MappingProxyType({}),
) -> Grouping:
    """Groups trials so that the program of every group traces.

    Args:
      spec: the sweep.
      points: per trial, its hyperparameters.
      lengths: per trial, how long it takes.
      verdicts: per hyperparameter, whether it is traced. One that fails in a group becomes static, and all trials are
        grouped anew.
      known: the shapes of the first groups, whose programs were traced in earlier rounds.
      traced: trial id to what tracing it with these verdicts showed, of trials that need not be traced again.
    """
    tracer, verdicts, judged = tracer_of(spec), dict(verdicts), dict(verdicts)
    while True:
        names = frozenset(name for name, verdict in verdicts.items() if verdict.traced)
        hparams = [Hparams(point, names & point.keys()) for point in points]
        groups = group(hparams, [length.eval_every for length in lengths], names)
        shapes = list(known)
        for g in groups[len(known) :]:
            first = g.trials[0]
            found = traced.get(first) if verdicts == judged else None
            found = found or resolve_traced(tracer, spec.space, points[first], verdicts)
            if found is None:
                break
            shapes.append(found)
        else:
            # As records have them, so that functions of one name are told apart wherever a group is shown.
            groups = [replace(g, static=spec.space.recorded(g.static)) for g in groups]
            return Grouping(tracer, tuple(points), tuple(lengths), verdicts, tuple(groups), tuple(shapes))


def check_test(spec: SweepSpec, found: Grouping, first: int) -> None:
    """Traces what measures trained states on the test split, where this is other code, or has other shapes, than
    evaluations.

    Args:
      spec: the sweep.
      found: its groups.
      first: the number of the first group that was not checked before.

    Raises:
      InputError, ProgramError: it fails, or gives something else than numbers.
    """
    program, data = spec.program, spec.program.data
    if data is None or data.test is None:
        return
    split = shapes_of(data.test)
    if program.test is None and _of_examples(split) == _of_examples(found.tracer.valid):
        return
    for g in found.groups[first:]:
        h = found.tracer.hparams(found.points[g.trials[0]], found.traced)
        try:
            trace_test(program, found.shapes[g.number], h, split)
        except Exception as error:
            raise with_user_lines(error) from None


def _of_examples(split: Any) -> Any:
    """Returns the structure, the dtypes and the shapes of the examples of a split, whatever their number."""
    return jax.tree.map(lambda x: (x.shape[1:], str(x.dtype)), split)


def takeovers_of(spec: SweepSpec, found: Grouping, known: Sequence[Takeover] = ()) -> tuple[Takeover, ...]:
    """Returns per group what its trials do with the state of another one when they go on from it.

    Args:
      spec: the sweep.
      found: its groups.
      known: those of the first groups, which were traced in earlier rounds.
    """
    if spec.scheduler is None or type(spec.scheduler).replace is Scheduler.replace:
        return (Takeover(),) * len(found.groups)
    tracer, takeovers = found.tracer, list(known)
    for g in found.groups[len(known) :]:
        h = tracer.hparams(found.points[g.trials[0]], found.traced)
        takeovers.append(trace_takeover(spec.program, found.shapes[g.number], h, tracer.train, tracer.valid))
    return tuple(takeovers)


def lengths_of(program: Program, folds: int | None, points: Sequence[Point]) -> list[TrialLength]:
    """Returns how long each trial takes, after the program's own checks of its hyperparameters.

    Raises:
      InputError, ProgramError: hyperparameters cannot be used.
    """
    hparams = [Hparams(point) for point in points]
    if folds is not None:
        hparams = [with_fold(h, 0, folds) for h in hparams]
    try:
        lengths = [program.length(h) for h in hparams]
        program.validate(list(zip(hparams, lengths, strict=True)))
    except Exception as error:
        raise with_user_lines(error) from None
    return lengths
