"""Measures: the loss and the metrics of a batch, one value an example, and what may be wrong with them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.errors import InputError, ProgramError, annotate_errors
from hpjax.core.hparams import Hparams
from hpjax.data.examples import Examples, examples_in

PerExample = Callable[[Any, Any], jax.Array]
Values = dict[str, jax.Array]


class Measures(NamedTuple):
    """The loss and the metrics of a program.

    Attributes:
      loss: the loss of a trial, a function of ``h``.
      metrics: its metrics by name, a function of ``h``.
      labels: lowest and highest label of the data, None where targets are no integers.
    """

    loss: Callable[[Hparams], PerExample]
    metrics: Callable[[Hparams], Mapping[str, PerExample]]
    labels: tuple[int, int] | None

    def names(self, h: Hparams) -> list[str]:
        """What is measured, the loss first."""
        return ["loss", *self.metrics(h)]

    def raw(self, outputs: Any, y: Any, h: Hparams) -> Values:
        """What the user's functions give: (batch, ...)."""
        _check_labels(outputs, y, self.labels)
        own = self.metrics(h)
        check_metrics(own)
        functions = {"loss": self.loss(h), **own}
        return {
            name: jnp.asarray(annotate_errors(f"supervised.{name}", f)(outputs, y)) for name, f in functions.items()
        }

    def __call__(self, outputs: Any, y: Any, h: Hparams) -> Values:
        """Loss and metrics of every example, (batch,)."""
        return per_example(self.raw(outputs, y, h), examples_in(y))

    def check_broadcast(self, forward: Callable[[Any], Any], batch: Examples, h: Hparams, first: Values) -> None:
        """Raises ``ProgramError`` where an axis of a loss or metric besides the first grows with the batch.

        Outputs (batch, 1) and y (batch,) broadcast to (batch, batch), and the mean of that is a plausible number.

        Args:
          forward: from inputs to outputs.
          batch: the examples.
          h: the hyperparameters.
          first: what ``unwrap_keys`` gave for the batch.
        """
        if all(value.ndim <= 1 for value in first.values()):
            return

        def measure(batch: Examples) -> Values:
            return self.raw(forward(batch.x), batch.y, h)

        double = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2 * a.shape[0], *a.shape[1:]), a.dtype), batch)
        try:
            second = jax.eval_shape(measure, double)
        except Exception:  # it insists on its batch size, and so proves nothing
            return
        for name, value in first.items():
            if value.shape[1:] != second[name].shape[1:]:
                raise ProgramError(
                    f"{name} gives {list(value.shape)}, a value for pairs of examples: the outputs and y were "
                    "broadcast. Give them equal shapes, for example with outputs[:, 0]."
                )


def check_metrics(metrics: Mapping[str, PerExample]) -> None:
    """Raises ``InputError`` where a metric has no name of its own, or is no function."""
    for name, function in metrics.items():
        if not isinstance(name, str) or name == "loss":
            raise InputError("supervised.metrics", name, "must be a name other than loss", "Rename the metric.")
        if not callable(function):
            raise InputError(
                f"supervised.metrics[{name!r}]", function, "must be a function of (outputs, y)", "See help."
            )


def _check_labels(outputs: Any, y: Any, labels: tuple[int, int] | None) -> None:
    if labels is None or not hasattr(outputs, "ndim") or not hasattr(y, "ndim") or outputs.ndim != y.ndim + 1:
        return
    if not jnp.issubdtype(y.dtype, jnp.integer):  # mixed by an augmentation
        return
    lowest, highest = labels
    classes = outputs.shape[-1]
    if lowest < 0 or highest >= classes:
        raise InputError(
            "data.y",
            lowest if lowest < 0 else highest,
            f"labels must lie in 0 … {classes - 1}, since the model gives {classes} outputs",
            f"Give the model {highest + 1} outputs, renumber the labels, or make y real if this is regression.",
        )


def per_example(raw: Values, count: int) -> Values:
    """What ``unwrap_keys`` gave, averaged over all axes but the first, which must count the examples."""
    return {name: _per_example(name, value, count) for name, value in raw.items()}


def _per_example(name: str, value: jax.Array, count: int) -> jax.Array:
    """``value`` averaged over all axes but the first, which must count the examples."""
    if value.ndim == 0 or value.shape[0] != count:
        raise ProgramError(
            f"{name} must give one value an example, shape ({count},) or ({count}, ...), got {list(value.shape)}: "
            "leave out the mean, hpjax takes it."
        )
    return value.reshape(count, -1).mean(-1)
