"""The program: what a trial does, as pure functions. The engine knows nothing else of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.errors import InputError, annotate_errors, check_int
from hpjax.core.hparams import Hparams

State = Any
Batch = Any
Arrays = Any
Metrics = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Data:
    """Three disjoint splits, each a pytree of arrays whose leading axes count examples.

    All lanes read one copy of ``train`` and ``valid``, which live on the device; ``test`` stays on the
    host until ``result.test()`` asks for it.

    Args:
      train, valid, test: pytrees of arrays; ``test`` may be None. ``train`` may be what ``hpx.data.stream`` makes.
      name: what tables and manifests call it.

    Raises:
      InputError: a leaf is no array of numbers.
    """

    train: Arrays
    valid: Arrays
    test: Arrays = None
    name: str = "data"

    def __post_init__(self) -> None:
        for name in ("train", "valid", "test"):
            for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(self, name)):
                keys = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
                words = isinstance(leaf, str | bytes) or (isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OSUMm")
                if keys or words:
                    raise InputError(
                        f"Data.{name}{jax.tree_util.keystr(path)}",
                        leaf if isinstance(leaf, str) else type(leaf).__name__,
                        "must be an array of numbers",
                        "Give jax.random.key_data(keys)." if keys else "Encode it.",
                    )


def whole_split(key: jax.Array, step: jax.Array, train: Arrays, h: Hparams) -> Batch:
    """The default ``batch``: all of the training split at every step; of a stream the batch of the step."""
    return train


def _accept(trials: Sequence[tuple[Hparams, "TrialLength"]]) -> None:
    """The default ``validate``: any hyperparameters will do."""


def _carry_on(state: State, metrics: Metrics, h: Hparams) -> tuple[State, bool]:
    """The default ``react``: nothing changes."""
    return state, False


def _as_it_is(state: State, h: Hparams) -> State:
    """The default ``finish``: a complete trial keeps its state."""
    return state


def _all_of(state: State) -> Any:
    """The default ``parameters``: the whole state."""
    return state


# Between evaluations of a program that is evaluated at the end only: equal for all trials, so that they share a group.
AT_THE_END = 2**31 - 1


class TrialLength(NamedTuple):
    """How long a trial takes.

    Attributes:
      steps: optimizer steps.
      microsteps: calls of ``step`` that make one of them.
      eval_every: calls between evaluations, or ``AT_THE_END``.
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


# Compared by identity: two programs are the same when they are one.
@dataclass(frozen=True, eq=False)
class Program:
    """What a trial does: three pure functions, the data they read, and how long it lasts.

    Args:
      init: ``init(key, h) -> state``; a pytree of arrays (typed PRNG keys too) of shapes that do not
        depend on traced hyperparameters.
      step: ``step(key, state, batch, h) -> (state, metrics)``; one optimizer step. The state keeps its
        structure, shapes and dtypes. Metrics are a dict of scalars, reported as ``train/<name>`` and
        averaged since the last evaluation. A metric that is NaN or infinite means that the lane diverged.
      evaluate: ``evaluate(key, state, split, h) -> metrics``; a dict of scalars, reported as ``valid/<name>``.
        ``split`` is ``data.valid``; where there is no ``test``, for ``result.test()`` it is ``data.test``.
      test: like ``evaluate``, for ``result.test()``; by default that itself.
      data: a ``Data``, or None where the program needs none; the splits are then None.
      batch: ``batch(key, step, train, h) -> batch``; the batch of step ``step`` (int32, from 0). The same
        key comes at every step. By default the whole training split. Of a stream ``train`` is the step's batch.
      react: ``react(state, metrics, h) -> (state, done)``; called after each evaluation with all reported metrics,
        as ``valid/loss``. It may change the state; where ``done``, a bool (), is true, the trial is complete.
      finish: ``finish(state, h) -> state``; what a complete trial keeps, be it ``done`` or at its last step: its best
        parameters, say.
      steps: how many optimizer steps a trial takes; a constant or a function of ``h``.
      microsteps: how many calls of ``step`` make one optimizer step; more than 1 where gradients are accumulated. A
        constant or a function of ``h``.
      eval_every: calls of ``step`` between evaluations, a constant or a function of ``h``; None evaluates at the
        end only.
      validate: ``validate(trials)`` raises ``InputError`` on hyperparameters that cannot run; called on the host
        with (h, schedule) of every trial, h with numbers, before anything compiles.
      parameters: ``parameters(state) -> pytree``, what the plan counts as the parameters of a lane. Where it is given,
        an evaluation that finds one of them NaN or infinite means that the lane diverged; of the default, the whole
        state, nothing is checked, since a state may hold infinities on purpose.
      predict: ``predict(state, x, h) -> outputs``, what a trained state makes of inputs (examples, ...); None where
        that has no meaning. Used after the sweep, compiled, with hyperparameters as ``step`` has them.
      batches: how it takes its batches, where it can take them otherwise; a plan tells which way is cheaper.
      describe: what a manifest says of the program: names to strings or numbers.

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
    react: Callable[[State, Metrics, Hparams], tuple[State, Any]] = field(default=_carry_on, kw_only=True)
    finish: Callable[[State, Hparams], State] = field(default=_as_it_is, kw_only=True)
    steps: int | Callable[[Hparams], int] = field(kw_only=True)
    microsteps: int | Callable[[Hparams], int] = field(default=1, kw_only=True)
    eval_every: int | Callable[[Hparams], int] | None = field(default=None, kw_only=True)
    validate: Callable[[Sequence[tuple[Hparams, TrialLength]]], None] = field(default=_accept, kw_only=True)
    parameters: Callable[[State], Any] = field(default=_all_of, kw_only=True)
    predict: Callable[[State, Any, Hparams], Any] | None = field(default=None, kw_only=True)
    batches: Batches | None = field(default=None, kw_only=True)
    describe: Mapping[str, object] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        needed = ("init", "step", "evaluate", "batch", "react", "finish", "validate", "parameters")
        for name in (*needed, *(name for name in ("test", "predict") if getattr(self, name) is not None)):
            if not callable(getattr(self, name)):
                raise InputError(f"Program.{name}", getattr(self, name), "must be a function", "See Program's help.")
        if self.data is not None and not isinstance(self.data, Data):
            raise InputError(
                "Program.data",
                type(self.data).__name__,
                "must be an hpx.Data or None",
                "Wrap it: hpx.Data(train, valid, test), or hpx.data.from_arrays(x, y).",
            )
        for name in ("steps", "microsteps", "eval_every"):
            value = getattr(self, name)
            if not callable(value) and not (name == "eval_every" and value is None):
                check_int(f"Program.{name}", value)

    @property
    def names_parameters(self) -> bool:
        """Whether it says which part of the state its parameters are."""
        return self.parameters is not _all_of

    @property
    def finishes(self) -> bool:
        """Whether a complete trial keeps another state than its last."""
        return self.finish is not _as_it_is

    @property
    def splits(self) -> tuple[Arrays, Arrays]:
        """The train and valid splits, each None where there is no data."""
        return (None, None) if self.data is None else (self.data.train, self.data.valid)

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
        """How long one trial takes, from hyperparameters that are numbers.

        Raises:
          InputError: one of them is no whole number, 1 or more.
        """
        steps, microsteps = (self._number(name, h) for name in ("steps", "microsteps"))
        return TrialLength(steps, microsteps, AT_THE_END if self.eval_every is None else self._number("eval_every", h))

    def _number(self, name: str, h: Hparams) -> int:
        value = getattr(self, name)
        return check_int(name, annotate_errors(name, value)(h) if callable(value) else value)
