"""Measures: the loss and the metrics of a batch, one value for each example, and checks of users' functions."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.arrays import at_least_float32
from hpjax.core.errors import InputError, ProgramError, annotate_errors
from hpjax.core.hparams import Hparams
from hpjax.core.recordable import is_name
from hpjax.data.examples import Examples, examples_in

PerExample = Callable[[Any, Any], jax.Array]
Values = dict[str, jax.Array]


class Measures(NamedTuple):
    """The loss and the metrics of a program.

    Attributes:
      loss: ``loss(h)``, the loss of a trial, a function of (outputs, y).
      metrics: ``metrics(h)``, the metrics of a trial by name, functions of (outputs, y).
      labels: the lowest and the highest label in the data; None where targets are no integers.
    """

    loss: Callable[[Hparams], PerExample]
    metrics: Callable[[Hparams], Mapping[str, PerExample]]
    labels: tuple[int, int] | None

    def names(self, h: Hparams) -> list[str]:
        """Returns the names of what is measured: ``loss``, then the metrics."""
        return ["loss", *self.metrics(h)]

    def raw(self, outputs: Any, y: Any, h: Hparams) -> Values:
        """Returns what the user's functions return, each float (batch, ...).

        Args:
          outputs: the outputs of the model, (batch, ...) or a pytree of such arrays.
          y: targets, likewise.
          h: the hyperparameters.
        """
        _check_labels(outputs, y, self.labels)
        own = self.metrics(h)
        check_metrics(own)
        functions = {"loss": self.loss(h), **own}
        return {
            name: jnp.asarray(annotate_errors(f"supervised.{name}", f)(outputs, y)) for name, f in functions.items()
        }

    def __call__(self, outputs: Any, y: Any, h: Hparams) -> Values:
        """Returns loss and metrics of every example, each float (batch,)."""
        return per_example(self.raw(outputs, y, h), examples_in(y))

    def check_broadcast(self, forward: Callable[[Any], Any], batch: Examples, h: Hparams, first: Values) -> None:
        """Raises ``ProgramError`` if an axis of a loss or metric besides the first grows with the batch.

        Outputs of shape (batch, 1) and y of shape (batch,) broadcast to (batch, batch), and the mean over that is a
        plausible number that means nothing. The functions are traced again at twice the batch size to find out.

        Args:
          forward: maps inputs to outputs.
          batch: the examples.
          h: the hyperparameters.
          first: what ``raw`` returned for the batch.
        """
        if all(value.ndim <= 1 for value in first.values()):
            return

        def measure(batch: Examples) -> Values:
            return self.raw(forward(batch.x), batch.y, h)

        double = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2 * a.shape[0], *a.shape[1:]), a.dtype), batch)
        try:
            second = jax.eval_shape(measure, double)
        except Exception:  # a function that works at one batch size only cannot be checked in this way
            return
        for name, value in first.items():
            if value.shape[1:] != second[name].shape[1:]:
                raise ProgramError(
                    f"{name} gives {list(value.shape)}, a value for pairs of examples: the outputs and y were "
                    "broadcast. Give them equal shapes, for example with outputs[:, 0]."
                )


def check_metrics(metrics: Mapping[str, PerExample], reserved: Collection[str] = ("loss",)) -> None:
    """Raises ``InputError`` unless every metric is a function and has a name that is not ``reserved``."""
    for name, function in metrics.items():
        if not is_name(name) or name in reserved:
            allowed = f"must be a string other than {', '.join(reserved)}, which the program itself reports"
            raise InputError("supervised.metrics", name, allowed, f'Write {{"my_{name}": function}}.')
        if not callable(function):
            remedy = f'Write {{"{name}": lambda outputs, y: ...}}, with one value for each example.'
            raise InputError(f"supervised.metrics[{name!r}]", function, "must be a function of (outputs, y)", remedy)


def joined(measured: Values, reported: Values) -> Values:
    """Returns what is measured and what the program reports of itself, such as the penalty, in one dict.

    Raises:
      InputError: a metric has the name of something that the program reports.
    """
    for name in measured:
        if name in reported:
            allowed = "is what the program itself reports by this name"
            raise InputError("supervised.metrics", name, allowed, f'Write {{"my_{name}": function}}.')
    return measured | reported


def _check_labels(outputs: Any, y: Any, labels: tuple[int, int] | None) -> None:
    """Raises ``InputError`` if labels do not fit the number of outputs, which JAX would clip without a word."""
    if labels is None or not hasattr(outputs, "ndim") or not hasattr(y, "ndim") or outputs.ndim != y.ndim + 1:
        return
    if not jnp.issubdtype(y.dtype, jnp.integer):  # an augmentation mixed labels into probabilities
        return
    lowest, highest = labels
    classes = outputs.shape[-1]
    if lowest < 0 or highest >= classes:
        raise InputError(
            "data.y",
            lowest if lowest < 0 else highest,
            f"labels must lie in 0 … {classes - 1}, since the model gives {classes} outputs",
            f"Write nn.Dense({highest + 1}) as the last layer, renumber the labels from 0, or make y float to regress.",
        )


def per_example(raw: Values, count: int) -> Values:
    """Returns values (examples, ...), averaged over all axes but the first: (examples,), float32 at least.

    Args:
      raw: what ``Measures.raw`` returned.
      count: number of examples.

    Raises:
      ProgramError: a first axis does not count the examples.
    """
    return {name: _per_example(name, value, count) for name, value in raw.items()}


def _per_example(name: str, value: jax.Array, count: int) -> jax.Array:
    if value.ndim == 0 or value.shape[0] != count:
        raise ProgramError(
            f"{name} must give one value for each example, shape ({count},) or ({count}, ...), "
            f"got {list(value.shape)}: "
            "leave out the mean over examples, which hpjax takes."
        )
    return at_least_float32(value).reshape(count, -1).mean(-1)


def penalty_of(penalty: Callable[[Any, Hparams], Any], params: Any, h: Hparams) -> jax.Array:
    """Returns the penalty on the parameters, a number ().

    Raises:
      ProgramError: the user's function does not give a scalar.
    """
    value = annotate_errors("supervised.penalty", penalty)(params, h)
    if not isinstance(value, jax.Array | float | int) or jnp.shape(value) != ():
        found = list(value.shape) if isinstance(value, jax.Array) else type(value).__name__
        raise ProgramError(f"supervised.penalty must give a scalar, got {found}. Sum over the parameters.")
    return at_least_float32(value)
