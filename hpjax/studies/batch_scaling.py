"""A batch-scaling study: how many steps each batch size needs to a target, at the best of its hyperparameters."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.domains import Choice
from hpjax.core.errors import InputError, check_float, check_int
from hpjax.core.format import show
from hpjax.core.hparams import Hparams
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.core.objective import Objective, minimize
from hpjax.core.program import Metrics, Program, State
from hpjax.core.space import Point, Space
from hpjax.data.examples import Examples, examples_in
from hpjax.data.stream import Stream
from hpjax.samplers import Observation, Sampler, Sobol
from hpjax.studies.batch_scaling_result import BatchScaling, scaling
from hpjax.sweep.sweep import Sweep


def batch_scaling(
    program: Program,
    space: Space,
    batch_sizes: Sequence[int],
    target: float,
    directory: str | Path | None = None,
    *,
    trials: int | None = None,
    objective: Objective | None = None,
    steps: int | Callable[[int], int] | None = None,
    epochs: float | None = None,
    complete: int | None = None,
    name: str = "batch_size",
    progress: bool = True,
    **settings: Any,
) -> BatchScaling:
    """How many steps each batch size needs to a target: a search over the other hyperparameters for each of them.

    The protocol is that of C. Shallue et al., "Measuring the Effects of Data Parallelism on Neural Network Training",
    JMLR 2019, arXiv 1811.03600. For each batch size a quasi-random search over the space, independent of those of
    the others; of its complete trials the one that is the first to be strictly better than the target at an
    evaluation, ties to the lower id. A trial ends when it is. How finely steps are told apart is the program's
    ``eval_every``: make it a function of the batch size where steps differ much.

    All batch sizes train in one sweep, each as a group; where the program can take batches in microbatches of their
    greatest common divisor, and the plan says that one program for all of them is done earlier, so.

    Args:
      program: reads ``h.batch_size``, as ``hpx.supervised(batch_size=lambda h: h.batch_size, ...)`` does.
      space: the other hyperparameters, the learning rate at least. The best of each batch size should lie inside.
      batch_sizes: whole numbers, at most as many as the data has examples.
      target: of the objective's metric.
      directory: where the run is recorded, and goes on from; see ``Sweep.run``.
      trials: of each batch size; 64 where it is None, or all points of a sampler that has an end.
      objective: whose metric is to reach the target; ``hpx.minimize("valid/loss")`` where it is None.
      steps: the budget of a trial in optimizer steps, or a function of the batch size; by default the program's.
      epochs: the budget in passes over the training split instead.
      complete: how many complete trials of each batch size count, the first ones; all where it is None.
      name: of the hyperparameter that is the batch size.
      progress: whether to show how far it is.
      **settings: of ``Sweep``: ``sampler``, ``seed``, ``width``, ``devices``, ...

    Returns:
      Points, fits and figures; ``print`` it. A batch size at which no trial reached the target has no point.

    Raises:
      InputError: an argument that cannot be used, or the first trial meets the target before its first step.

    Example:
      >>> program = hpx.supervised(
      ...     model=nn.Dense(10), optimizer=lambda h: optax.sgd(h.learning_rate), data=hpx.data.digits(),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels, batch_size=lambda h: h.batch_size, steps=2_000,
      ...     eval_every=lambda h: max(1, 128 // h.batch_size))
      >>> space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 10))
      >>> study = hpx.studies.batch_scaling(program, space, [16, 64, 256], target=0.4, trials=8, progress=False)
      >>> study.batch_sizes
      (16, 64, 256)
    """
    sweep = batch_scaling_sweep(
        program,
        space,
        batch_sizes,
        target,
        trials=trials,
        objective=objective,
        steps=steps,
        epochs=epochs,
        complete=complete,
        name=name,
        **settings,
    )
    return scaling(sweep.run(directory, progress=progress), target, complete=complete, name=name)


def batch_scaling_sweep(
    program: Program,
    space: Space,
    batch_sizes: Sequence[int],
    target: float,
    *,
    trials: int | None = None,
    objective: Objective | None = None,
    steps: int | Callable[[int], int] | None = None,
    epochs: float | None = None,
    complete: int | None = None,
    name: str = "batch_size",
    **settings: Any,
) -> Sweep:
    """The sweep of a batch-scaling study, to plan it, or to run it by the command line; see ``batch_scaling``.

    ``hpx.studies.scaling(result, target)`` reads what comes of it.
    """
    objective = minimize("valid/loss") if objective is None else objective
    for what, value, kind in (
        ("program", program, Program),
        ("space", space, Space),
        ("objective", objective, Objective),
    ):
        if not isinstance(value, kind):
            allowed = f"must be of type {kind.__name__}"
            raise InputError(f"batch_scaling.{what}", value, allowed, "See the help of hpx.studies.batch_scaling.")
    if program.finishes:
        allowed = (
            "must be without early_stopping, or another finish: a trial has all of its budget, and ends at the target"
        )
        raise InputError("batch_scaling.program", "finish", allowed, "Leave it out.")
    sizes = _sizes(batch_sizes)
    check_float("batch_scaling.target", target, -np.inf)
    if complete is not None:
        check_int("batch_scaling.complete", complete)
    if name in space.names:
        allowed = "must not be in the space: each batch size has a search of its own"
        raise InputError("batch_scaling.space", name, allowed, "Leave it out, and give batch_sizes.")
    for taken in ("replicates", "folds", "rounds"):
        if taken in settings:
            allowed = "cannot be given: a trial is one run, and intervals come from the trials"
            raise InputError(f"batch_scaling.{taken}", settings[taken], allowed, "Use more trials.")
    sampler = settings.pop("sampler", None) or Sobol()
    points = sampler.size(space)
    trials = check_int("batch_scaling.trials", (points or 64) if trials is None else trials)
    if points is not None and trials != points:
        allowed = f"must be {points}, the number of points of {type(sampler).__name__}"
        raise InputError("batch_scaling.trials", trials, allowed, "Leave it out.")
    train = program.splits[0]
    if isinstance(train, Examples) and sizes[-1] > examples_in(train):  # of other arrays only the program knows
        allowed = f"must be at most {examples_in(train):,}, the examples of the training split"
        raise InputError("batch_scaling.batch_sizes", sizes[-1], allowed, "Leave it out, or give more data.")
    program = replace(
        program,
        react=_until(program, objective, target),
        describe={
            **program.describe,
            "study": "batch scaling",
            "target": repr(float(target)),
            "over": name,
            "complete": complete or "all",
        },
        steps=_budget(program, steps, epochs, name),
    )
    sweep = Sweep(
        program,
        space & Space(**{name: Choice(*sizes)}),
        trials=trials * len(sizes),
        sampler=EachBatchSize(name, sizes, space, sampler),
        objective=objective,
        **settings,
    )
    plan = sweep.plan()
    if not any(name in shapes.reads for shapes in plan.shapes):
        allowed = "is never read by it: all batch sizes would train the same"
        raise InputError("batch_scaling.program", name, allowed, f"Write batch_size=lambda h: h.{name}.")
    sweep = _quicker(sweep)
    _check_start(sweep, target)
    return sweep


@dataclass(frozen=True)
class EachBatchSize(Sampler):
    """A search of its own for each batch size: trial ``i`` has the one number ``i % len(batch_sizes)``.

    Args:
      name: of the hyperparameter.
      batch_sizes: its values.
      space: of the other hyperparameters.
      sampler: proposes these, for each batch size with a seed of its own.
    """

    name: str
    batch_sizes: tuple[int, ...]
    space: Space
    sampler: Sampler

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        """See ``Sampler.propose``; ``space`` has the batch size besides."""
        many = len(self.batch_sizes)
        found = []
        for i, size in enumerate(self.batch_sizes):
            seen = [each._replace(point=self._rest(each.point)) for each in history[i::many]]
            # As many as there are trials of this batch size among those asked for.
            count = len(range(start + (i - start) % many, start + n, many))
            own = int(np.random.SeedSequence((seed, size)).generate_state(1)[0])
            found.append(iter(self.sampler.ask(self.space, seen, count, own)))
        numbers = [number % many for number in range(start, start + n)]
        return [{**next(found[i]), self.name: self.batch_sizes[i]} for i in numbers]

    def ask(self, space: Space, history: Sequence[Observation], n: int, seed: int) -> list[Point]:
        """See ``Sampler.ask``; each search begins with the baseline itself."""
        return self.propose(space, history, len(history), n, seed)

    def _rest(self, point: Point) -> Point:
        return {name: value for name, value in point.items() if name != self.name}


def _sizes(batch_sizes: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(batch_sizes, Iterable) or isinstance(batch_sizes, str):
        raise InputError("batch_scaling.batch_sizes", batch_sizes, "must be a list", "Write [16, 64, 256].")
    sizes = sorted({check_int("batch_scaling.batch_sizes", size) for size in batch_sizes})
    if not sizes:
        raise InputError("batch_scaling.batch_sizes", batch_sizes, "must not be empty", "Write [16, 64, 256].")
    return tuple(sizes)


def _until(program: Program, objective: Objective, target: float) -> Callable[[State, Metrics, Hparams], Any]:
    """The program's own reaction to an evaluation; besides, a trial is over where it is better than the target."""
    score = objective.value  # of a value as of a score, since one is the other or its opposite

    def react(state: State, metrics: Metrics, h: Hparams) -> tuple[State, Any]:
        objective.check(metrics)
        state, done = program.react(state, metrics, h)
        return state, done | (score(metrics[objective.metric]) < score(target))

    return react


def _budget(
    program: Program, steps: int | Callable[[int], int] | None, epochs: float | None, name: str
) -> int | Callable[[Hparams], int]:
    """Optimizer steps of a trial."""
    if steps is not None and epochs is not None:
        raise InputError("batch_scaling.epochs", epochs, "cannot go with steps", "Give one of them.")
    if epochs is not None:
        check_float("batch_scaling.epochs", epochs, 0)
        train = program.splits[0]
        if train is None or isinstance(train, Stream):
            allowed = "needs a training split of known size"
            raise InputError("batch_scaling.epochs", epochs, allowed, "Give steps, a function of the batch size.")
        examples = examples_in(train)
        return lambda h: max(1, ceil_div(round(epochs * examples), int(h[name])))
    if steps is None:
        return program.steps
    if callable(steps):
        return lambda h: steps(int(h[name]))
    return check_int("batch_scaling.steps", steps)


def _quicker(sweep: Sweep) -> Sweep:
    """The sweep, or the same in microbatches, where its plan says that all is done earlier so."""
    batches, sizes = sweep.program.batches, sweep.sampler.batch_sizes  # type: ignore[attr-defined]
    if batches is None or batches.microbatch is not None or not batches.alike or len(sizes) == 1:
        return sweep
    state = sweep.plan().shapes[0].state
    if isinstance(state, dict) and jax.tree.leaves(state.get("stats")):
        return sweep  # batch statistics would be those of microbatches
    own = sweep.program
    parts = batches.remade(int(np.gcd.reduce(sizes)))
    fields = ("init", "step", "batch", "microsteps", "validate", "batches")
    taken: dict[str, Any] = {field: getattr(parts, field) for field in fields}

    def eval_every(h: Hparams) -> int:
        """As often as before, counted in microbatches."""
        return own.length(h).eval_every * parts.length(h).microsteps

    other = replace(sweep, program=replace(own, **taken, eval_every=own.eval_every and eval_every))
    return other if _estimated(other) < _estimated(sweep) else sweep


def _estimated(sweep: Sweep) -> float:
    """Seconds for all of it on one device, by the work alone: the same before and after widths are measured, so that a
    directory is gone on with as it was begun.
    """
    plan = sweep.plan()
    arrangements = tuple(replace(each, rates=()) for each in plan.arrangements)
    alone = replace(plan, arrangements=arrangements, devices=(1, plan.devices[1]))
    return alone.run_seconds + alone.compile_seconds


def _check_start(sweep: Sweep, target: float) -> None:
    """Raises where the first trial meets the target without a step."""
    program, objective = sweep.program, sweep.objective
    h = Hparams(sweep.sampler.ask(sweep.space, [], 1, sweep.seed)[0], ())
    _, valid = sweep.spec.splits

    def look(key: jax.Array, valid: Any) -> Any:
        state = program.init(purpose_key(key, "init"), h)
        return program.evaluate(step_key(purpose_key(key, "evaluate"), 0), state, valid, h)

    metric = objective.metric.removeprefix("valid/")
    value = float(jax.jit(look)(lane_key(sweep.seed, 0), valid)[metric])
    if objective.value(value) < objective.value(target):
        allowed = f"is met before the first step, at which {objective.metric} is {show(round(value, 4))}"
        better = "lower" if objective.direction == "minimize" else "higher"
        raise InputError("batch_scaling.target", target, allowed, f"Choose a {better} one.")
