"""The program: what a trial does, as pure functions. The engine knows nothing else about a trial."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax

from hpjax.core.errors import InputError, annotate_errors, check_int
from hpjax.core.format import brief, show
from hpjax.core.hparams import Hparams
from hpjax.core.numeric import check_numbers
from hpjax.core.recordable import is_name

State = Any
Batch = Any
Arrays = Any
Metrics = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Data:
    """Three disjoint splits, each a pytree of arrays whose leading axes count examples.

    All lanes read one copy of ``train`` and ``valid``, which live on the device; ``test`` stays on the host until
    ``result.test()`` asks for it.

    Args:
      train, valid: pytrees of arrays, (examples, ...). ``train`` may be a stream, which ``hpx.data.stream`` makes.
        With ``hpx.supervised``, ``valid`` may be several sets, a dict of name to ``Examples``.
      test: a pytree like ``valid``, or None.
      name: the name of the data in tables and manifests.

    Raises:
      InputError: a leaf is no array of numbers, or has integers of more bits than JAX keeps; or the name is no
        printable text.

    Example:
      >>> Data(train=np.zeros((8, 3)), valid=np.zeros((2, 3)), name="toy").name
      'toy'
    """

    train: Arrays
    valid: Arrays
    test: Arrays = None
    name: str = "data"

    def __repr__(self) -> str:
        splits = {name: getattr(self, name) for name in ("train", "valid", "test")}
        return f"Data({', '.join(f'{name}={_sizes(split)}' for name, split in splits.items())}, name={self.name!r})"

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise InputError("Data.name", self.name, "must be printable text, for tables", 'Write name="digits".')
        for name in ("train", "valid", "test"):
            for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(self, name)):
                if not _is_stream(leaf):  # which checks its batches as they come
                    check_numbers(f"Data.{name}{jax.tree_util.keystr(path)}", leaf)


def _is_stream(split: Any) -> bool:
    """Returns whether a split is a stream, which this room knows by its one function."""
    return hasattr(split, "factory")


def whole_split(key: jax.Array, step: jax.Array, train: Arrays, h: Hparams) -> Batch:
    """Returns the training split: the default ``batch`` uses all of it at every step, or the batch of a stream."""
    return train


def _accept(trials: Sequence[tuple[Hparams, "TrialLength"]]) -> None:
    """Accepts any hyperparameters: the default ``validate``."""


def _no_reaction(state: State, metrics: Metrics, h: Hparams) -> tuple[State, bool]:
    """Returns the state unchanged and False, "not done": the default ``react``."""
    return state, False


def _last_state(state: State, h: Hparams) -> State:
    """Returns the state unchanged: with the default ``finish`` a complete trial keeps its last state."""
    return state


def _whole_state(state: State) -> Any:
    """Returns the state: by default all of it counts as ``parameters``."""
    return state


# ``eval_every`` of a program that is evaluated at the end only: equal for trials of all lengths, so that they share a
# group.
AT_THE_END = 2**31 - 1


class TrialLength(NamedTuple):
    """How long a trial takes.

    Attributes:
      steps: optimizer steps.
      microsteps: calls of ``Program.step`` that make one optimizer step.
      eval_every: calls of ``Program.step`` between evaluations, or ``AT_THE_END``.
    """

    steps: int
    microsteps: int
    eval_every: int


class Batches(NamedTuple):
    """How a program takes its batches, for programs that can take them in another way; see ``Program.with_microbatch``.

    Attributes:
      size: examples of an optimizer step, a function of ``h``.
      microbatch: examples of one call of ``step``, if several calls make a batch; None if a call takes a whole batch.
      fields: gives the fields of the program that depend on ``microbatch``, at any value of it; at one value always the
        same objects, so that it can be seen whether someone replaced them.
      alike: whether what is computed of a batch is computed of each example for itself, batch statistics apart, so
        that another ``microbatch`` trains the same.
    """

    size: Callable[[Hparams], Any]
    microbatch: int | None
    fields: Callable[[int | None], Mapping[str, Any]]
    alike: bool = True


def _sizes(split: Arrays) -> str:
    """Returns a split in a few words: the shapes of its arrays, or the type of what is none."""
    shapes = [getattr(leaf, "shape", None) for leaf in jax.tree.leaves(split)]
    if not shapes:
        return "None"
    return " and ".join(map(str, shapes)) if None not in shapes else type(split).__name__


# What to type for an argument that is no function.
_SIGNATURES = {
    "init": "Write init=lambda key, h: state.",
    "step": "Write step=lambda key, state, batch, h: (state, metrics).",
    "evaluate": "Write evaluate=lambda key, state, split, h: metrics.",
    "batch": "Write batch=lambda key, step, train, h: batch.",
    "react": "Write react=lambda state, metrics, h: (state, done).",
    "finish": "Write finish=lambda state, h: state.",
    "validate": "Write validate=lambda trials: None.",
    "parameters": "Write parameters=lambda state: state.params.",
    "test": "Write test=lambda key, state, split, h: metrics.",
    "inspect": "Write inspect=lambda key, state, train, h: metrics.",
    "predict": "Write predict=lambda state, x, h: outputs.",
    "artifacts": 'Write artifacts=lambda key, state, split, h: {"samples": array}.',
}


# Compared by identity (eq=False): functions cannot be compared otherwise.
@dataclass(frozen=True, eq=False)
class Program:
    """What a trial does: three pure functions, the data they read, and how long it lasts.

    Args:
      init: ``init(key, h) -> state``: a pytree of arrays (typed PRNG keys are allowed) whose shapes do not depend on
        traced hyperparameters. What is no array, such as functions, strings, the static fields of a Flax
        ``TrainState`` or an Equinox module, is kept apart and never traced. Keys are typed threefry keys, shape ().
      step: ``step(key, state, batch, h) -> (state, metrics)``: one optimizer step, or one part of it where
        ``microsteps`` is greater than 1. The state keeps its structure, shapes and dtypes, and all that is no array;
        a Python number in it takes the dtype that ``step`` gives it, as in ``jax.lax.scan``; one in an
        Equinox module is no array. Metrics are a dict of scalars, reported as ``train/<name>`` and averaged since the
        last evaluation. A metric that is NaN or infinite means that the lane diverged.
      evaluate: ``evaluate(key, state, split, h) -> metrics``: a dict of scalars, reported as ``valid/<name>``.
        ``split`` is ``data.valid``; without a ``test`` function ``result.test()`` calls it with ``data.test``.
      data: a ``Data``, or None where the program needs none; the splits are then None.
      batch: ``batch(key, step, train, h) -> batch``: the batch of call ``step`` (int32 (), from 0). The key is the same
        at every step. ``train`` is the training split, or with a stream the batch of the step. By default the batch
        is ``train``.
      test: ``test(key, state, split, h) -> metrics`` for ``result.test()``; by default ``evaluate``.
      inspect: ``inspect(key, state, train, h) -> metrics``: what an evaluation reports of the training split beside the
        means over steps, as ``train/<name>``: a dict of scalars, of other names than those of ``step``. One that is NaN
        or infinite ends no lane. The split may not be a stream. By default nothing.
      react: ``react(state, metrics, h) -> (state, done)``: called after each evaluation with all reported metrics by
        their full names, ``valid/loss``. It may change the state; where ``done``, bool (), is true, the trial is
        complete.
      finish: ``finish(state, h) -> state``: the state that a trial keeps once it is complete, for example with its best
        parameters.
      steps: optimizer steps of a trial, 1 or more: a constant or a function of ``h``.
      microsteps: calls of ``step`` that make one optimizer step, more than 1 where gradients are accumulated: a
        constant or a function of ``h``.
      eval_every: calls of ``step`` between evaluations: a constant or a function of ``h``; None evaluates at the end
        only.
      validate: ``validate(trials)`` raises ``InputError`` on hyperparameters that cannot run. It is called on the host,
        before anything compiles, with a list of (h, ``TrialLength``), one for each trial; the values of ``h`` are
        numbers.
      parameters: ``parameters(state) -> pytree``: the part of the state that the plan counts as a lane's parameters. If
        it is given, an evaluation that finds a NaN or an infinity among them means that the lane diverged. The
        default, the whole state, is not checked, since a state may hold infinities on purpose.
      predict: ``predict(state, x, h) -> outputs``: the outputs of a trained state for inputs (examples, ...);
        None where predictions have no meaning. It is compiled and called after the sweep.
      activations: ``activations(state, x, h) -> {layer: array}``: what each layer gives for inputs (examples, ...), for
        ``hpx.mup.coordinate_check``; None where it is not known.
      artifacts: ``artifacts(key, state, split, h) -> {name: array}``: what a run keeps of chosen trials at
        evaluations beside their metrics, such as samples, for ``trial.artifacts``. ``Sweep(artifacts=...)`` chooses the
        trials. The state is that after the evaluation, and ``split`` is ``data.valid``. It is compiled and called apart
        from training, which it changes in no bit: a function that fails is told in a warning.
      batches: a ``Batches`` where batches can be taken in several ways; the plan says which is cheaper.
      shared: arrays that belong to every final state without a step changing them, as nested dicts in the place that
        they have in it: ``trial.restore()`` and ``trial.export()`` give them with the rest. The functions of the
        program close over them; they are held once for all lanes.
      describe: names to strings or numbers that the manifest records about the program.

    Raises:
      InputError: an argument that is no function, no ``Data``, or no number of steps.

    Example:
      >>> def init(key, h): return jax.numpy.zeros(())
      >>> def step(key, w, batch, h):
      ...     loss, slope = jax.value_and_grad(lambda w: (w - 1) ** 2)(w)
      ...     return w - h.learning_rate * slope, {"loss": loss}
      >>> def evaluate(key, w, split, h): return {"loss": (w - 1) ** 2}
      >>> program = Program(init, step, evaluate, steps=100)
    """

    init: Callable[[jax.Array, Hparams], State]
    step: Callable[[jax.Array, State, Batch, Hparams], tuple[State, Metrics]]
    evaluate: Callable[[jax.Array, State, Arrays, Hparams], Metrics]
    data: Data | None = None
    batch: Callable[[jax.Array, jax.Array, Arrays, Hparams], Batch] = whole_split
    test: Callable[[jax.Array, State, Arrays, Hparams], Metrics] | None = field(default=None, kw_only=True)
    inspect: Callable[[jax.Array, State, Arrays, Hparams], Metrics] | None = field(default=None, kw_only=True)
    react: Callable[[State, Metrics, Hparams], tuple[State, Any]] = field(default=_no_reaction, kw_only=True)
    finish: Callable[[State, Hparams], State] = field(default=_last_state, kw_only=True)
    steps: int | Callable[[Hparams], int] = field(kw_only=True)
    microsteps: int | Callable[[Hparams], int] = field(default=1, kw_only=True)
    eval_every: int | Callable[[Hparams], int] | None = field(default=None, kw_only=True)
    validate: Callable[[Sequence[tuple[Hparams, TrialLength]]], None] = field(default=_accept, kw_only=True)
    parameters: Callable[[State], Any] = field(default=_whole_state, kw_only=True)
    predict: Callable[[State, Any, Hparams], Any] | None = field(default=None, kw_only=True)
    activations: Callable[[State, Any, Hparams], Mapping[str, Any]] | None = field(default=None, kw_only=True)
    artifacts: Callable[[jax.Array, State, Arrays, Hparams], Mapping[str, Any]] | None = field(
        default=None, kw_only=True
    )
    batches: Batches | None = field(default=None, kw_only=True)
    shared: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    describe: Mapping[str, object] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        needed = ("init", "step", "evaluate", "batch", "react", "finish", "validate", "parameters")
        optional = ("test", "inspect", "predict", "activations", "artifacts")
        for name in (*needed, *(name for name in optional if getattr(self, name) is not None)):
            if not callable(getattr(self, name)):
                raise InputError(f"Program.{name}", getattr(self, name), "must be a function", _SIGNATURES[name])
        if self.data is not None and not isinstance(self.data, Data):
            raise InputError(
                "Program.data",
                type(self.data).__name__,
                "must be an hpx.Data or None",
                "Wrap it: hpx.Data(train, valid, test), or hpx.data.from_arrays(x, y).",
            )
        if self.inspect is not None and self.data is not None and _is_stream(self.data.train):
            allowed = "cannot be given with a stream, of which there is no split to look at"
            raise InputError(
                "Program.inspect", self.inspect, allowed, "Remove inspect, or give the train split as arrays."
            )
        for name in ("steps", "microsteps", "eval_every"):
            value = getattr(self, name)
            if not callable(value) and not (name == "eval_every" and value is None):
                object.__setattr__(self, name, check_int(f"Program.{name}", value))

    def __repr__(self) -> str:
        names = ("init", "step", "evaluate", "data", "steps", "microsteps", "eval_every")
        plain = {each.name: each.default for each in fields(self)}
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not plain[name]}
        shown = {name: repr(value) if name == "data" else brief(show(value)) for name, value in given.items()}
        shown |= {name: brief(show(value)) for name, value in self.describe.items()}
        return f"Program({', '.join(f'{name}={value}' for name, value in shown.items())})"

    @cached_property
    def derived(self) -> dict[Any, Any]:
        """What is made of the program and lives as long as it, by whatever whoever made it looks it up by."""
        return {}

    @property
    def names_parameters(self) -> bool:
        """Whether ``parameters`` was given."""
        return self.parameters is not _whole_state

    @property
    def reacts(self) -> bool:
        """Whether ``react`` was given, so that an evaluation may change the state or end the trial."""
        return self.react is not _no_reaction

    @property
    def finishes(self) -> bool:
        """Whether ``finish`` was given, so that a complete trial may keep another state than its last."""
        return self.finish is not _last_state

    @property
    def splits(self) -> tuple[Arrays, Arrays]:
        """The train and valid splits; both are None where there is no data."""
        return (None, None) if self.data is None else (self.data.train, self.data.valid)

    def evaluated(self, train: Arrays, valid: Arrays) -> tuple[Arrays, Arrays]:
        """Returns the train and valid splits as an evaluation gets them: the first only where ``inspect`` is given."""
        return None if self.inspect is None else train, valid

    def with_microbatch(self, microbatch: int | None) -> "Program | None":
        """Returns this program with its batches taken in parts of ``microbatch`` examples, None for whole batches.

        What ``dataclasses.replace`` changed stays. ``eval_every`` stays too, and counts calls of ``step`` as ever.

        Returns:
          None if the program cannot: it does not say how it takes its batches, or ``step`` or another field that
          depends on the microbatch was replaced.
        """
        if self.batches is None:
            return None
        own = self.batches.fields(self.batches.microbatch)
        if any(getattr(self, name) is not value for name, value in own.items()):
            return None
        return replace(self, **self.batches.fields(microbatch))

    def length(self, h: Hparams) -> TrialLength:
        """Returns how long one trial takes.

        Args:
          h: hyperparameters whose values are numbers.

        Raises:
          InputError: a length is no whole number, 1 or more.
        """
        steps, microsteps = (self._number(name, h) for name in ("steps", "microsteps"))
        return TrialLength(steps, microsteps, AT_THE_END if self.eval_every is None else self._number("eval_every", h))

    def _number(self, name: str, h: Hparams) -> int:
        value = getattr(self, name)
        return check_int(name, annotate_errors(name, value)(h) if callable(value) else value)
