"""Weighted means: what each example or token counts in the mean of a loss or a metric."""

import inspect
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.arrays import at_least_float32
from hpjax.core.errors import ProgramError, annotate_errors
from hpjax.core.hparams import Hparams
from hpjax.core.remarks import remark
from hpjax.data.examples import AnyExamples, examples_in

# What a function of weights may take by name.
TAKES = ("x", "y", "h")


class Weighting(NamedTuple):
    """How examples or tokens are weighted.

    Attributes:
      function: takes ``x``, ``y`` and ``h`` by name, and gives weights (batch,) or (batch, tokens, ...); None for
        equal weights.
      ignored: the label whose examples or tokens have weight 0; None for no such label.
    """

    function: Callable[..., Any] | None = None
    ignored: int | None = None

    def equal(self, weighted: bool) -> bool:
        """Returns whether all examples count alike, of data that has weights of its own or not."""
        return self.function is None and self.ignored is None and not weighted

    def weights(self, batch: AnyExamples, h: Hparams) -> "Weights":
        """Returns the weights of the examples of a batch."""
        own, counted = None, None
        if self.function is not None:
            own = _never_negative(self.own(batch, h))
            if self.takes_h:
                remark(
                    "weights takes h, so what it gives is not known before training: a weight below 0, or only 0 over "
                    "a whole split, ends its trial as diverged."
                )
        if self.ignored is not None:
            # Converted, since a label such as -100 is none of uint8.
            counted = batch.y.astype(jnp.int32) != self.ignored
        return Weights(None if batch.weights is None else jnp.asarray(batch.weights), own, counted)

    @property
    def takes_h(self) -> bool:
        """Whether the function needs the hyperparameters of a trial."""
        return self.function is not None and "h" in inspect.signature(self.function).parameters

    def own(self, batch: AnyExamples, h: Hparams) -> jax.Array:
        """Returns what the user's function gives for a batch, (examples, ...).

        Raises:
          ProgramError: it is no array with a row for each example.
        """
        found, count = annotate_errors("supervised.weights", self._call)(batch, h), examples_in(batch.y)
        is_array = isinstance(found, jax.Array | np.ndarray | np.generic | float | int)
        if not is_array or jnp.shape(found)[:1] != (count,):
            shape = list(jnp.shape(found)) if is_array else type(found).__name__
            raise ProgramError(
                f"supervised.weights must give a weight for each example, shape ({count},) or ({count}, ...), got "
                f"{shape}. Write weights=lambda y: y >= 0."
            )
        return jnp.asarray(found)

    def _call(self, batch: AnyExamples, h: Hparams) -> Any:
        assert self.function is not None
        values = {"x": batch.x, "y": batch.y, "h": h}
        return self.function(**{name: values[name] for name in inspect.signature(self.function).parameters})


class Weights(NamedTuple):
    """The weights of some examples, which multiply.

    Attributes:
      given: the weights of the data, float (examples, ...); None where it has none.
      own: what the user's function gave, (examples, ...); None without one.
      counted: bool (examples, ...), where the label is not the ignored one; None where no label is.
    """

    given: jax.Array | None
    own: jax.Array | None
    counted: jax.Array | None

    def together(self, count: int) -> jax.Array:
        """Returns all weights of ``count`` examples as one array, float32 at least (examples, ...)."""
        product = jnp.ones(count, jnp.float32)
        for each in self:
            # Labels that have another shape than the weights of shifted labels leave it to those.
            if each is not None and (_leads(product, each) or _leads(each, product)):
                product = _product(product, each)
        return product

    def of(self, name: str, values: jax.Array) -> jax.Array:
        """Returns the weights of the values of a loss or metric.

        Args:
          name: its name, in errors.
          values: float (examples, ...).

        Returns:
          Float (examples, ...), with a leading part of the axes of ``values``.

        Raises:
          ProgramError: the weights have other axes than the values.
        """
        given, own, counted = (_of_examples(mask, values.ndim) for mask in self)
        for each, which in ((given, "the weights of the data"), (own, "weights")):
            if each is not None and not _leads(each, values):
                raise ProgramError(
                    f"{name} gives values {list(values.shape)}, and {which} are {list(each.shape)}. Give weights the "
                    f"shape of the values or ({values.shape[0]},)."
                )
        if counted is not None and not _leads(counted, values):
            if own is None:
                raise ProgramError(
                    f"{name} gives values {list(values.shape)} for labels {list(counted.shape)}, so that ignore_label "
                    "cannot tell which count. Write weights=lambda y: y[:, 1:] != -100 with your shift and label."
                )
            counted = None  # the user's weights say it
        return reduce(_product, (each for each in (given, own, counted) if each is not None)).astype(values.dtype)


def _never_negative(weights: jax.Array) -> jax.Array:
    """Returns weights with NaN in place of those below 0, so that the loss is no plausible number that means nothing.

    Whatever can be known before training is refused there: see ``weight_checks``.
    """
    if weights.dtype == jnp.bool_ or jnp.issubdtype(weights.dtype, jnp.unsignedinteger):
        return weights
    return jnp.where(weights < 0, jnp.nan, weights)


def _of_examples(mask: jax.Array | None, axes: int) -> jax.Array | None:
    """Returns a mask with at most so many axes: a value for a whole example counts where one of its tokens does."""
    if mask is None or mask.ndim <= axes or mask.dtype != jnp.bool_:
        return mask
    return mask.any(tuple(range(axes, mask.ndim)))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the product of weights, float32 at least, with the axes of the array that has more."""
    most = max(a.ndim, b.ndim)
    a, b = (each.reshape(*each.shape, *(1,) * (most - each.ndim)) for each in (a, b))
    return a.astype(jnp.promote_types(a.dtype, jnp.float32)) * b


def _leads(weights: jax.Array, values: jax.Array) -> bool:
    """Returns whether the axes of ``weights`` are the first ones of ``values``."""
    return weights.shape == values.shape[: weights.ndim]


class Weighted(NamedTuple):
    """Values of examples, summed over all other axes with their weights: their mean is Σ total / Σ weight.

    Attributes:
      total: for each example the sum of its weighted values, float32 at least (examples,).
      weight: the sum of these weights, likewise; None where every example has weight 1.
    """

    total: jax.Array
    weight: jax.Array | None


def weighted(name: str, values: jax.Array, weights: Weights | None) -> Weighted:
    """Returns the values of a loss or metric with their weights.

    Args:
      name: its name, in errors.
      values: float (examples, ...); axes that the weights do not have are averaged.
      weights: None for equal weights.
    """
    values, count = at_least_float32(values), values.shape[0]
    if weights is None:
        return Weighted(values.reshape(count, -1).mean(-1), None)
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    each = weights.of(name, values)
    values = values.reshape(*each.shape, -1).mean(-1)
    # Where the weight is 0 the value may be NaN: optax gives that for a label that is none.
    total = jnp.where(each != 0, values * each, 0)
    return Weighted(total.reshape(count, -1).sum(-1), each.reshape(count, -1).sum(-1))


def ratio(total: Any, weight: Any) -> jax.Array:
    """Returns ``total / weight``, and 0 where nothing has a weight, with derivative 0."""
    some = weight != 0
    return jnp.where(some, total / jnp.where(some, weight, 1), 0)
