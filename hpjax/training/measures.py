"""Measures: the loss and the metrics of a batch, one value for each example, and checks of users' functions."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.arrays import at_least_float32
from hpjax.core.errors import InputError, ProgramError, annotate_errors
from hpjax.core.hparams import Hparams
from hpjax.core.recordable import is_name
from hpjax.core.remarks import remark
from hpjax.data.examples import AnyExamples, examples_in
from hpjax.training.arguments import Context, taken, with_context
from hpjax.training.host_metric import of_split
from hpjax.training.network import Outputs
from hpjax.training.weighting import Weighted, Weighting, weighted

PerExample = Callable[[Any, Any], jax.Array]
Values = dict[str, jax.Array]


class Measures(NamedTuple):
    """The loss and the metrics of a program.

    Attributes:
      loss: ``loss(h)``, the loss of a trial, a function of (outputs, y); None where only metrics are wanted.
      metrics: ``metrics(h)``, the metrics of a trial by name, functions of (outputs, y).
      split_metrics: ``split_metrics(h)``, the metrics of whole splits by name.
      labels: the lowest and the highest label in the data; None where targets are no integers.
      weighting: what each example or token counts.
    """

    loss: Callable[[Hparams], PerExample] | None
    metrics: Callable[[Hparams], Mapping[str, PerExample]]
    split_metrics: Callable[[Hparams], Mapping[str, Callable[..., Any]]]
    labels: tuple[int, int] | None
    weighting: Weighting

    def names(self, h: Hparams) -> list[str]:
        """Returns the names of what an evaluation measures: ``loss``, the metrics, and those of whole splits."""
        return [*self.train_names(h), *self.split_metrics(h)]

    def train_names(self, h: Hparams) -> list[str]:
        """Returns the names of what a step measures: ``loss``, then the metrics."""
        return ["loss", *self.metrics(h)]

    def of_loss(self) -> "Measures":
        """Returns the loss without the metrics."""
        return self._replace(metrics=lambda h: {}, split_metrics=lambda h: {})

    def of_metrics(self) -> "Measures":
        """Returns the metrics without the loss."""
        return self._replace(loss=None)

    def raw(self, outputs: Any, y: Any, context: Context) -> Values:
        """Returns what the user's functions return, each float (batch, ...).

        Args:
          outputs: the outputs of the model, (batch, ...) or a pytree of such arrays.
          y: targets, likewise.
          context: what the functions may take by name.
        """
        _check_labels(outputs, y, self.labels)
        own = self.metrics(context.h)
        check_metrics(own)
        functions = {**({} if self.loss is None else {"loss": self.loss(context.h)}), **own}
        return {name: _number(name, _called(name, f, outputs, y, context)) for name, f in functions.items()}

    def __call__(self, outputs: Any, batch: AnyExamples, context: Context) -> dict[str, Weighted]:
        """Returns loss and metrics of every example with their weights, each float (batch,)."""
        return self.weigh(self.raw(outputs, batch.y, context), batch, context.h)

    def weigh(self, raw: Values, batch: AnyExamples, h: Hparams) -> dict[str, Weighted]:
        """Returns what ``raw`` returned as a value for each example with its weight, each float (batch,)."""
        count, equal = examples_in(batch.y), self.weighting.equal(batch.weights is not None)
        weights = None if equal else self.weighting.weights(batch, h)
        return {name: weighted(name, _checked(name, value, count), weights) for name, value in raw.items()}

    def of_split(self, outputs: Any, examples: AnyExamples, context: Context) -> Values:
        """Returns the metrics of a whole split, float (); their functions may also take ``weights`` by name.

        Args:
          outputs: the outputs of the model for all its examples, (examples, ...) or a pytree of such arrays.
          examples: all of the split.
          context: what the functions may take by name.
        """
        found = {}
        weights = self.weighting.weights(examples, context.h).together(examples_in(examples.y))
        for name, function in self.split_metrics(context.h).items():
            field = f"supervised.split_metrics[{name!r}]"
            own = with_context(field, of_split(function), context, weights=weights)
            found[name] = at_least_float32(_number(name, annotate_errors(field, own)(outputs, examples.y)))
            if found[name].shape != ():
                raise ProgramError(
                    f"{name}, a metric of a whole split, must give one number, got {list(found[name].shape)}. "
                    f'Write metrics={{"{name}": ...}} for one value for each example.'
                )
        return found

    def tell_unread(self, sown: Mapping[str, Any], h: Hparams) -> None:
        """Remarks if the model sows what may be auxiliary losses, and no loss or metric takes it."""
        names = [name for name in sown if name != "intermediates"]
        functions = [*([] if self.loss is None else [self.loss(h)]), *self.metrics(h).values()]
        if names and not any("sown" in taken("supervised", function, Context._fields) for function in functions):
            remark(
                f"the model sows into {', '.join(names)}, and no loss takes it. Write it with sown: "
                f"lambda outputs, y, sown: ... + sum(jax.tree.leaves(sown[{names[0]!r}]))."
            )

    def check_broadcast(
        self, forward: Callable[[Any], Outputs], batch: AnyExamples, context: Context, first: Values
    ) -> None:
        """Raises ``ProgramError`` if an axis of a loss or metric besides the first grows with the batch.

        Outputs of shape (batch, 1) and y of shape (batch,) broadcast to (batch, batch), and the mean over that is a
        plausible number that means nothing. The functions are traced again at twice the batch size to find out.

        Args:
          forward: maps inputs to what the model gives for them.
          batch: the examples.
          context: what the functions may take by name.
          first: what ``raw`` returned for the batch.
        """
        if all(value.ndim <= 1 for value in first.values()):
            return

        def measure(batch: AnyExamples) -> Values:
            found = forward(batch.x)
            return self.raw(found.outputs, batch.y, context._replace(x=batch.x, sown=found.sown))

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


def check_metrics(
    metrics: Mapping[str, Callable[..., Any]], reserved: Collection[str] = ("loss",), field: str = "metrics"
) -> None:
    """Raises ``InputError`` unless every metric is a function and has a name that is not ``reserved``."""
    for name, function in metrics.items():
        if not is_name(name) or name in reserved:
            allowed = f"must be a string other than {', '.join(reserved)}, which the program itself reports"
            raise InputError(f"supervised.{field}", name, allowed, f'Write {{"my_{name}": function}}.')
        if not callable(function):
            each = ", with one value for each example" if field == "metrics" else ", a number of the whole split"
            remedy = f'Write {{"{name}": lambda outputs, y: ...}}{each}.'
            raise InputError(f"supervised.{field}[{name!r}]", function, "must be a function of (outputs, y)", remedy)


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
    wrong = lowest if lowest < 0 else highest
    # A single output is no class: it is the logit of the second of two, or a number.
    if classes > 1 and not 0 <= wrong < classes:
        larger = "" if wrong < 0 else f"nn.Dense({highest + 1}) as the last layer, "
        raise InputError(
            "data.y",
            wrong,
            f"labels must lie in 0 … {classes - 1}, since the model gives {classes} outputs",
            f"Write {larger}ignore_label={wrong} if the loss ignores this label, renumber the labels from 0, or make y "
            "float to regress.",
        )


def _number(name: str, value: Any) -> jax.Array:
    """Returns a value as an array. Raises ``ProgramError`` unless it is made of real numbers."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        found = type(value).__name__
        raise ProgramError(
            f"{name} must give an array, got {found}. Write lambda outputs, y: (outputs - y) ** 2."
        ) from None
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ProgramError(f"{name} must give real numbers, got {array.dtype}. Write jnp.abs(...) ** 2.")
    return array


def _called(name: str, function: PerExample, outputs: Any, y: Any, context: Context) -> Any:
    field = f"supervised.{name}"
    return annotate_errors(field, with_context(field, function, context))(outputs, y)


def _checked(name: str, value: jax.Array, count: int) -> jax.Array:
    """Returns a value of a loss or metric. Raises ``ProgramError`` unless its first axis counts the examples."""
    if value.ndim == 0 or value.shape[0] != count:
        remedy = "" if name == "loss" else ", or give a metric of the whole split as split_metrics"
        raise ProgramError(
            f"{name} must give one value for each example, shape ({count},) or ({count}, ...), "
            f"got {list(value.shape)}: "
            f"leave out the mean over examples, which hpjax takes{remedy}."
        )
    return value


def penalty_of(penalty: Callable[[Any, Hparams], Any], params: Any, h: Hparams) -> jax.Array:
    """Returns the penalty on the parameters, a number ().

    Raises:
      ProgramError: the user's function does not give a scalar.
    """
    value = annotate_errors("supervised.penalty", penalty)(params, h)
    if not isinstance(value, jax.Array | float | int) or jnp.shape(value) != ():
        found = list(value.shape) if isinstance(value, jax.Array) else type(value).__name__
        raise ProgramError(f"supervised.penalty must give a scalar, got {found}. Sum over the parameters.")
    return at_least_float32(_number("supervised.penalty", value))
