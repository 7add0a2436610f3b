"""The question of a batch-scaling study: how many steps does each batch size need to reach a target?"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.choice import Choice
from hpjax.core.errors import InputError, check_float, check_int
from hpjax.core.format import show
from hpjax.core.hparams import Hparams
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.core.objective import Objective, minimize
from hpjax.core.program import Metrics, Program, State
from hpjax.core.space import Space
from hpjax.data.examples import examples_in
from hpjax.data.stream import Stream
from hpjax.engine.distributed import on_writer
from hpjax.engine.partition import Rule
from hpjax.results.result import Result
from hpjax.results.store.manifest import StudyRecord, recorded_manifest
from hpjax.samplers import Sampler, Sobol
from hpjax.studies.batch_scaling_result import KIND, BatchScalingResult
from hpjax.studies.batch_sizes import checked_batch_sizes
from hpjax.studies.search import SearchPerBatchSize
from hpjax.studies.study import Study, check_kinds, names_read
from hpjax.sweep.planning.pace import Pace
from hpjax.sweep.planning.width import Measured
from hpjax.sweep.sweep import Sweep

# Trials of each batch size, if neither the user nor the sampler says how many.
TRIALS = 64


@dataclass(frozen=True)
class BatchScaling(Study[BatchScalingResult]):
    """The question of how many steps each batch size needs to reach a target, at its best other hyperparameters.

    The protocol is that of C. Shallue et al., "Measuring the Effects of Data Parallelism on Neural Network Training",
    JMLR 2019, arXiv 1811.03600. Each batch size has a quasi-random search over the space, independent of the other
    searches. Its best trial is the complete one that is first strictly better than the target at an evaluation; ties go
    to the lower id. A trial ends at the target. Steps are known as finely as the program is evaluated: make
    ``eval_every`` a function of the batch size if steps differ much.

    All batch sizes train in one sweep, with one compiled program for each. If the program can take its batches in
    microbatches of their greatest common divisor, and the plan estimates that one program for all batch sizes is
    faster in total, the sweep does that.

    Args:
      program: reads ``h.batch_size``, as ``hpx.supervised(batch_size=lambda h: h.batch_size, ...)`` does; without
        ``early_stopping``.
      space: the other hyperparameters, at least the learning rate. The best of each batch size should lie inside.
      batch_sizes: whole numbers, in examples, at most as many as the training split has.
      target: a value of the objective's metric.
      trials: trials of each batch size; if None, 64, or all points of a sampler that has an end.
      objective: its metric is to reach the target; ``hpx.minimize("valid/loss")`` by default.
      steps: the longest a trial may take in optimizer steps, or a function of the batch size; the program's by default.
      epochs: the longest a trial may take in passes over the training split, in place of ``steps``.
      complete: how many complete trials of each batch size count, the first ones; all if None.
      name: the hyperparameter that is the batch size.
      sampler: proposes the points of each batch size; ``hpx.Sobol()`` by default.
      seed: decides every random number of the study.
      width: lanes that one device computes at once; see ``Sweep``.
      devices: how many devices to use, all by default.
      devices_per_lane: how many devices share each lane, of all batch sizes, for those that are too large for one; see
        ``Sweep``. Batches are then not taken in microbatches, unless the program has these.
      partition: how these hold its state; see ``Sweep``.

    Raises:
      InputError: an argument cannot be used.

    Example:
      >>> program = hpx.supervised(
      ...     model=nn.Dense(10), optimizer=lambda h: optax.sgd(h.learning_rate), data=hpx.data.digits(),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels, batch_size=lambda h: h.batch_size, steps=2_000,
      ...     eval_every=lambda h: max(1, 128 // h.batch_size))
      >>> space = hpx.Space(learning_rate=hpx.LogUniform(1e-3, 10))
      >>> study = BatchScaling(program, space, [16, 64, 256], target=0.4, trials=8)
      >>> study.plan().trials
      24
      >>> answer = study.run(progress=False)
      >>> [point.batch_size for point in answer.points]
      [16, 64, 256]
      >>> bool(answer.points[0].steps > answer.points[-1].steps)
      True
    """

    program: Program
    space: Space
    batch_sizes: Sequence[int]
    target: float
    _: KW_ONLY
    trials: int | None = None
    objective: Objective = field(default_factory=lambda: minimize("valid/loss"))
    steps: int | Callable[[int], int] | None = None
    epochs: float | None = None
    complete: int | None = None
    name: str = "batch_size"
    sampler: Sampler = field(default_factory=Sobol)
    seed: int = 0
    width: int | tuple[int, ...] | None = None
    devices: int | None = None
    devices_per_lane: int = 1
    partition: Rule | Literal["fsdp"] | None = None

    def __post_init__(self) -> None:
        check_kinds(self, "program", "space", "objective", "sampler")
        if self.program.finishes:
            allowed = "must be without early_stopping or another finish, since a trial ends at the target"
            remedy = "Leave early_stopping out of hpx.supervised(...)."
            raise InputError("BatchScaling.program", "finish", allowed, remedy)
        object.__setattr__(self, "batch_sizes", checked_batch_sizes("BatchScaling", self.batch_sizes, self.program))
        target = check_float("BatchScaling.target", self.target, -np.inf, remedy="Write target=0.1.")
        object.__setattr__(self, "target", target)
        if self.complete is not None:
            object.__setattr__(self, "complete", check_int("BatchScaling.complete", self.complete))
        if self.name in self.space.names:
            allowed = "must not be in the space, since each batch size has a search of its own"
            remedy = f"Leave {self.name} out of the space, and write its values as batch_sizes=[16, 64, 256]."
            raise InputError("BatchScaling.space", self.name, allowed, remedy)
        points = self.sampler.size(self.space)
        if self.trials is not None and check_int("BatchScaling.trials", self.trials) != points and points is not None:
            allowed = f"must be {points}, the number of points of {type(self.sampler).__name__}"
            raise InputError(
                "BatchScaling.trials", self.trials, allowed, f"Leave trials out, or write trials={points}."
            )
        self._check_budget()

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep that finds the answer, for all else that a sweep can do, such as ``replay`` and the command line.

        A file for ``hpjax run`` has the line ``sweep = hpx.studies.BatchScaling(...).sweep``. Settings that the
        question does not have are changed with ``dataclasses.replace(study.sweep, segment=100)``, and
        ``study.read(result)`` reads the result.

        Raises:
          InputError, ProgramError, UnknownHyperparameterError: the program cannot run, or does not read the batch size.
        """
        trials = self.trials or self.sampler.size(self.space) or TRIALS
        sizes = tuple(self.batch_sizes)
        sweep = Sweep(
            replace(
                self.program,
                react=_until(self.program, self.objective, self.target),
                steps=self._budget,
            ),
            self.space & Space(**{self.name: Choice(*sizes)}),
            trials=trials * len(sizes),
            sampler=SearchPerBatchSize(self.name, sizes, self.space, self.sampler),
            objective=self.objective,
            seed=self.seed,
            width=self.width,
            devices=self.devices,
            devices_per_lane=self.devices_per_lane,
            partition=self.partition,
            study=self.as_record(),
        )
        if self.name not in names_read(sweep):
            allowed = "is never read by the program, so that all batch sizes would train the same"
            raise InputError("BatchScaling.program", self.name, allowed, f"Write batch_size=lambda h: h.{self.name}.")
        return _faster(sweep, sizes)

    def run(self, directory: str | Path | None = None, *, progress: bool = True) -> BatchScalingResult:
        """Trains every trial, and returns the answer.

        Args:
          directory: where the run is recorded; None keeps all in memory. An interrupted run of this study continues
            from its last checkpoint; a finished one is read, and nothing trains.
          progress: whether to show progress on standard error.

        Raises:
          InputError: the first trial meets the target before its first step; or as ``sweep`` does.
          RunError: the directory holds something else, or cannot be written.
        """
        path = None if directory is None else Path(directory).absolute()
        if path is None or not on_writer(lambda: recorded_manifest(path) is not None):
            _check_start(self.sweep, self.target)
        return self.read(self.sweep.run(path, progress=progress))

    def read(self, result: Result, target: float | None = None) -> BatchScalingResult:
        """Returns the answer that a result gives, of a sweep that this study made.

        Args:
          result: the result of ``study.sweep.run()`` or ``hpx.load(directory)``.
          target: an easier target than the study's own, which is the default.

        Raises:
          InputError: the target is harder than that at which the trials ended, or the result is of another kind.
        """
        target = self.target if target is None else target
        return BatchScalingResult.read(result, target, complete=self.complete, name=self.name)

    def as_record(self) -> StudyRecord:
        """Returns what the manifest says of the study."""
        return StudyRecord(KIND, self.target, self.name, self.complete)

    def _check_budget(self) -> None:
        """Raises unless ``steps`` and ``epochs`` can be used."""
        if self.epochs is None:
            if self.steps is not None and not callable(self.steps):
                object.__setattr__(self, "steps", check_int("BatchScaling.steps", self.steps))
            return
        if self.steps is not None:
            remedy = "Leave out steps, or epochs."
            raise InputError("BatchScaling.epochs", self.epochs, "cannot be combined with steps", remedy)
        epochs = check_float("BatchScaling.epochs", self.epochs, 0, remedy="Write epochs=10.")
        object.__setattr__(self, "epochs", epochs)
        train = self.program.splits[0]
        if train is None or isinstance(train, Stream):
            remedy = "Write steps=lambda batch_size: 100_000 // batch_size."
            raise InputError("BatchScaling.epochs", self.epochs, "needs a training split of known size", remedy)

    @property
    def _budget(self) -> int | Callable[[Hparams], int]:
        """The optimizer steps of a trial, or a function that gives them, for ``Program.steps``."""
        steps, epochs, name = self.steps, self.epochs, self.name
        if epochs is not None:
            examples = round(epochs * examples_in(self.program.splits[0]))
            return lambda h: max(1, ceil_div(examples, int(h[name])))
        if callable(steps):
            return lambda h: steps(int(h[name]))
        return self.program.steps if steps is None else steps


def _until(program: Program, objective: Objective, target: float) -> Callable[[State, Metrics, Hparams], Any]:
    """Returns a ``react`` that calls the program's own, and ends a trial once it is strictly better than the target."""
    score = objective.value  # turns a value into a score as well, since one is the other or its negative

    def react(state: State, metrics: Metrics, h: Hparams) -> tuple[State, Any]:
        objective.check(metrics)
        state, done = program.react(state, metrics, h)
        return state, done | (score(metrics[objective.metric]) < score(target))

    return react


def _faster(sweep: Sweep, sizes: Sequence[int]) -> Sweep:
    """Returns the sweep, or the same sweep in microbatches if the plan estimates that it takes less time in total."""
    whole = sweep.program
    if sweep.devices_per_lane > 1:
        return sweep  # its devices would sum their gradients after each microbatch, not once a step
    if whole.batches is None or whole.batches.microbatch is not None or not whole.batches.alike or len(sizes) == 1:
        return sweep
    if any(name[:1] == ("stats",) for name in sweep.plan().shapes[0].names):
        return sweep  # batch statistics would be those of microbatches
    parts = whole.with_microbatch(int(np.gcd.reduce(sizes)))
    if parts is None:
        return sweep

    def eval_every(h: Hparams) -> int:
        """Returns the same distance between evaluations, counted in microbatches."""
        return whole.length(h).eval_every * parts.length(h).microsteps

    other = replace(sweep, program=replace(parts, eval_every=whole.eval_every and eval_every))
    return other if _estimated_seconds(other) < _estimated_seconds(sweep) else sweep


def _estimated_seconds(sweep: Sweep) -> float:
    """Returns the estimated seconds of the whole sweep on one device, without what was measured on this machine.

    Measured widths and the pace appear with the first run. If they decided how batches are taken, the second call of
    ``run`` could decide otherwise than the first, and refuse to continue its directory.
    """
    plan = sweep.plan()
    arrangements = tuple(replace(each, measured=Measured()) for each in plan.arrangements)
    alone = replace(plan, arrangements=arrangements, devices=(1, plan.devices[1]), pace=Pace())
    return alone.run_seconds + alone.compile_seconds


def _check_start(sweep: Sweep, target: float) -> None:
    """Raises if the first trial meets the target without a step."""
    program, objective = sweep.program, sweep.objective
    h = Hparams(sweep.sampler.ask(sweep.space, [], 1, sweep.seed)[0], ())
    _, valid = sweep.spec.splits

    def evaluate_initial(key: jax.Array, valid: Any) -> Any:
        state = program.init(purpose_key(key, "init"), h)
        return program.evaluate(step_key(purpose_key(key, "evaluate"), 0), state, valid, h)

    metric = objective.metric.removeprefix("valid/")
    value = float(jax.jit(evaluate_initial)(lane_key(sweep.seed, 0), valid)[metric])
    if objective.value(value) < objective.value(target):
        allowed = f"is met before the first step, at which {objective.metric} is {show(round(value, 4))}"
        # A tenth better. Two digits are enough to keep it better.
        harder = value - abs(value) / 10 if objective.direction == "minimize" else value + abs(value) / 10
        raise InputError("BatchScaling.target", target, allowed, f"Write target={show(float(f'{harder:.2g}'))}.")
