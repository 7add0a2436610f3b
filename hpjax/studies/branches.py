"""The question of a study of branches: how large may a batch be, at points of a training, before it costs examples?"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.choice import Choice
from hpjax.core.errors import InputError, UnknownHyperparameterError, check_float, check_int
from hpjax.core.hparams import Hparams
from hpjax.core.objective import Objective, minimize
from hpjax.core.program import Metrics, Program, State, TrialLength
from hpjax.core.space import Space
from hpjax.engine.state_tree import names_of
from hpjax.results.result import Result
from hpjax.results.store.manifest import StudyRecord
from hpjax.results.trial import Trial
from hpjax.samplers import Manual
from hpjax.studies.batch_sizes import checked_batch_sizes
from hpjax.studies.branches_result import KIND, RATE, SEED, SIZE, START, BranchesResult
from hpjax.studies.study import Study, check_kinds, names_read
from hpjax.sweep.sweep import Sweep
from hpjax.training.start import started
from hpjax.training.state import TrainingState


@dataclass(frozen=True)
class Branches(Study[BranchesResult]):
    """The question of how large a batch may be, at points of a training, before it costs more examples.

    From each of several states of one training, branches go on with batches of every size, the learning rate scaled
    with a power of it, for equally many examples. The critical batch size of a state is the largest that loses no more
    than a tolerance against the smallest one. So W. Merrill et al., "Critical Batch Size Revisited", 2025, arXiv
    2505.23971, measure it while it grows, without a model of the noise and without training to a target.

    All states, seeds and batch sizes are lanes of one program.

    Args:
      program: reads ``h.batch_size`` and ``h.learning_rate``, and takes microbatches, or can take them; without early
        stopping or ``keep="best"``. A schedule of the learning rate goes on where the state left it: a constant rate,
        after a warmup, asks about the batch size alone.
      starts: trials of one result, that trained the same for more and more steps at one batch size, each of its
        replicates a seed: ``hpx.Space(learning_rate=3e-3, batch_size=8, steps=hpx.Choice(100, 400, 1600))`` with
        ``steps=lambda h: h.steps``.
      batch_sizes: whole numbers, in examples. The smallest is what the others are compared with.
      examples: that each branch trains on, at least the largest batch size. A branch takes so many steps that it has
        seen as many or more.
      tolerance: by how much the metric may be worse.
      power: of the batch size, relative to that of the starts, with which the learning rate grows: 0.5, the rule for
        Adam and its kin, or 1 for SGD.
      objective: its metric is compared at the end of a branch; ``hpx.minimize("valid/loss")`` by default.
      seed: decides the batches of the branches, others for each start and each of its seeds, and the same for all batch
        sizes. By default one more than that of the starts, whose first batches they would else see again.
      width: lanes that one device computes at once; see ``Sweep``.
      devices: how many devices to use, all by default.

    Raises:
      InputError: an argument cannot be used.

    Example:
      >>> program = hpx.supervised(
      ...     model=nn.Dense(10), optimizer=lambda h: optax.adam(h.learning_rate), data=hpx.data.digits(),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels, batch_size=lambda h: h.batch_size,
      ...     steps=lambda h: h.steps)
      >>> space = hpx.Space(learning_rate=1e-2, batch_size=8, steps=hpx.Choice(10, 40))
      >>> base = hpx.Sweep(program, space, sampler=hpx.Grid(), replicates=3).run(progress=False)
      >>> study = Branches(program, [base[0], base[1]], [8, 32, 128], examples=256, tolerance=0.05)
      >>> len(study.plan().groups), study.plan().trials
      (1, 18)
      >>> [point.examples for point in study.run(progress=False).points]
      [80, 320]
    """

    program: Program
    starts: Sequence[Trial]
    batch_sizes: Sequence[int]
    _: KW_ONLY
    examples: int
    tolerance: float
    power: float = 0.5
    objective: Objective = field(default_factory=lambda: minimize("valid/loss"))
    seed: int | None = None
    width: int | tuple[int, ...] | None = None
    devices: int | None = None

    def __post_init__(self) -> None:
        check_kinds(self, "program", "objective")
        if self.program.finishes:
            allowed = "must be without early_stopping, keep or another finish, since branches are compared at their end"
            raise InputError("Branches.program", "finish", allowed, "Leave early_stopping and keep out.")
        if self.program.batches is None:
            allowed = "must take batches of arrays, as hpx.supervised(batch_size=lambda h: h.batch_size, ...) does"
            raise InputError("Branches.program", "its batches", allowed, "Write it with hpx.supervised.")
        object.__setattr__(self, "starts", _checked_starts(self.starts))
        sizes = checked_batch_sizes("Branches", self.batch_sizes, self.program, least=2)
        object.__setattr__(self, "batch_sizes", sizes)
        check_int("Branches.examples", self.examples, least=self.batch_sizes[-1])
        object.__setattr__(self, "tolerance", check_float("Branches.tolerance", self.tolerance, 0.0))
        before = self.starts[0].result.manifest.sweep.seed
        if self.seed == before:
            allowed = "is that of the starts, whose first batches the branches would see again"
            raise InputError("Branches.seed", self.seed, allowed, f"Write seed={before + 1}.")
        object.__setattr__(self, "seed", before + 1 if self.seed is None else self.seed)
        object.__setattr__(self, "power", check_float("Branches.power", self.power, -np.inf))

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep that finds the answer, for all else that a sweep can do, such as ``replay`` and the command line.

        Raises:
          InputError, ProgramError, UnknownHyperparameterError: the program cannot run, does not read the batch size, or
            has a state of other shapes than the starts.
        """
        points = self._points()
        space = Space(**{name: Choice(*dict.fromkeys(point[name] for point in points)) for name in points[0]})
        sweep = Sweep(
            self._branching(),
            space,
            sampler=Manual(points),
            objective=self.objective,
            seed=0 if self.seed is None else self.seed,  # it has one by now
            width=self.width,
            devices=self.devices,
            study=self.as_record(),
        )
        try:
            read = names_read(sweep)
        except UnknownHyperparameterError as error:
            for name in _differing(self.starts):
                if f"h.{name}" in str(error):
                    allowed = "says how long the starts train, and more than steps reads it, as a schedule that ends"
                    remedy = "Train with a constant rate after a warmup: branches go on behind the end."
                    raise InputError("Branches.program", name, allowed, remedy) from None
            raise
        for name in (SIZE, RATE):
            if name not in read:
                allowed = "is never read by the program, so that branches would not differ as they should"
                raise InputError("Branches.program", name, allowed, f"Read h.{name} in hpx.supervised(...).")
        return sweep

    def read(self, result: Result) -> BranchesResult:
        """Returns the answer that a result gives, of a sweep that this study made.

        Args:
          result: the result of ``study.sweep.run()`` or ``hpx.load(directory)``.

        Raises:
          InputError: the result is of another kind.
        """
        return BranchesResult.read(result, self.tolerance)

    def as_record(self) -> StudyRecord:
        """Returns what the manifest says of the study."""
        return StudyRecord(KIND, self.tolerance, SIZE, None)

    def _points(self) -> list[dict[str, Any]]:
        """Returns the hyperparameters of each branch."""
        first, length = self.starts[0].hparams, _differing(self.starts)
        kept = {name: value for name, value in first.items() if name not in length}
        return [
            kept
            | {
                START: trial.step * first[SIZE],
                SEED: replicate,
                SIZE: size,
                RATE: first[RATE] * (size / first[SIZE]) ** self.power,
            }
            for trial in self.starts
            for replicate in range(self._replicates)
            for size in self.batch_sizes
        ]

    @property
    def _replicates(self) -> int:
        return int(self.starts[0].result.lane_status.shape[1])

    def _branching(self) -> Program:
        """Returns the program, in microbatches, whose lanes begin with the state of a start and see ``examples``."""
        states = [trial.restore(replicate) for trial in self.starts for replicate in range(self._replicates)]
        _check_state(states[0])  # all are of one program
        program = _in_microbatches(self.program, self.batch_sizes, states[0])
        stacked, many = jax.tree.map(lambda *arrays: jnp.stack(arrays), *states), self._replicates
        seen = np.array([trial.step * trial.hparams[SIZE] for trial in self.starts])
        shared = jax.tree_util.tree_leaves_with_path(program.shared.get("params", {}))
        frozen = {names_of(path): array for path, array in shared}

        def number(h: Hparams) -> Any:
            return jnp.argmax(jnp.asarray(seen) == h[START]) * many + h[SEED]

        def init(key: jax.Array, h: Hparams) -> State:
            state = program.init(key, h)
            if not isinstance(state, TrainingState) or state.filled is not None:
                allowed = "must be of hpx.supervised, with batches whose size stays as it is"
                raise InputError("Branches.program", "its state", allowed, "Write batch_size=lambda h: h.batch_size.")
            given = jax.tree.map(lambda x: x[number(h)], stacked)
            return started(state, given, frozen, "Branches.starts")

        # Of one start and seed all branches see the same batches, and of others others: the luck of the order of the
        # examples is a part of the interval, and cancels between batch sizes.
        def batch(key: jax.Array, call: jax.Array, train: Any, h: Hparams) -> Any:
            return program.batch(jax.random.fold_in(key, number(h)), call, train, h)

        def step(key: jax.Array, state: State, batch: Any, h: Hparams) -> tuple[State, Metrics]:
            return program.step(jax.random.fold_in(key, number(h)), state, batch, h)

        def validate(trials: Sequence[tuple[Hparams, TrialLength]]) -> None:
            # Of schedules that go on: their warmup was in the steps before.
            before = [int(h[START]) // self.starts[0].hparams[SIZE] for h, _ in trials]
            program.validate(
                [(h, own._replace(steps=own.steps + more)) for (h, own), more in zip(trials, before, strict=True)]
            )

        def steps(h: Hparams) -> int:
            return ceil_div(self.examples, int(h[SIZE]))

        return replace(program, init=init, batch=batch, step=step, validate=validate, steps=steps, eval_every=None)


def _in_microbatches(program: Program, batch_sizes: Sequence[int], state: Mapping[str, Any]) -> Program:
    """Returns a program with its batches in microbatches, where these train the same, so that all sizes share it."""
    batches = program.batches
    if batches is None or batches.microbatch is not None or not batches.alike or state.get("stats"):
        return program  # batch statistics would be those of microbatches
    return program.with_microbatch(int(np.gcd.reduce(batch_sizes))) or program


def _check_state(state: Mapping[str, Any]) -> None:
    """Raises unless a state is that at the end of a training, in batches whose size stayed as it was."""
    for part, what in (("stopping", "kept its best parameters"), ("filled", "trained with a ramp of batch sizes")):
        if part in state:
            allowed = "must have its last state, after batches of one size"
            remedy = "Train the starts without keep, early_stopping and ramps."
            raise InputError("Branches.starts", f"a trial that {what}", allowed, remedy)


def _checked_starts(starts: Any) -> tuple[Trial, ...]:
    """Returns the trials by the steps that they took; raises unless they are of one training."""
    field = "Branches.starts"
    remedy = "Write starts=[result[0], result[1]], of hpx.Space(..., steps=hpx.Choice(100, 400))."
    if not isinstance(starts, Sequence) or not starts or not all(isinstance(trial, Trial) for trial in starts):
        raise InputError(field, starts, "must be a list of trials of a result", remedy)
    found = tuple(sorted(starts, key=lambda trial: trial.step))
    if any(trial.result is not found[0].result for trial in found):
        allowed = "must be of one result, whose replicates are seeds"
        raise InputError(field, "trials of several results", allowed, remedy)
    for trial in found:
        if trial.status != "complete":
            advice = "Leave it out, or train the starts at a lower rate, or with another seed."
            raise InputError(field, f"trial {trial.id}, {trial.status}", "must be complete with each seed", advice)
        for name in (SIZE, RATE):
            if name not in trial.hparams:
                remedy = f"Write hpx.Space({name}=…) in the sweep that trains the starts."
                raise InputError(field, ", ".join(trial.hparams), f"must have {name}", remedy)
        lane_steps = trial.result.lane_step[trial.id]
        if len(set(lane_steps.tolist())) > 1:
            allowed = "must have taken as many steps with each seed"
            raise InputError(
                field, f"steps {lane_steps.tolist()} of trial {trial.id}", allowed, "Train without stopping."
            )
    differing = sorted(_differing(found))
    if len(differing) > 1:
        allowed = "must differ in one hyperparameter, which says how long they train, and train the same"
        raise InputError(field, ", ".join(differing), allowed, "Leave out the trials of another training.")
    steps = [trial.step for trial in found]
    if len(set(steps)) < len(steps):
        raise InputError(field, f"steps {steps}", "must have trained for different numbers of steps", remedy)
    return found


def _differing(trials: Sequence[Trial]) -> set[str]:
    """Returns the hyperparameters in which trials differ."""
    first = trials[0].hparams
    return {name for name in first if any(trial.hparams.get(name) != first[name] for trial in trials)}
