"""Networks: models as pure functions of (params, stats), whichever library they are from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.core.hparams import Hparams
from hpjax.engine.lowering import lowered

Params = Any
Stats = Any


class Outputs(NamedTuple):
    """What a model gives for inputs.

    Attributes:
      outputs: the outputs, (batch, ...) or a pytree of such arrays.
      stats: the other variables after the call, batch statistics and the like.
      sown: what the model stored by ``sow`` in this call, collection to nested dicts; empty if nothing.
    """

    outputs: Any
    stats: Stats
    sown: dict[str, Any]


class Network(NamedTuple):
    """A model as pure functions.

    Attributes:
      init: ``init(key, x, h) -> (params, stats)``; ``x`` is a batch (1, ...), of which only shape and dtype matter.
      whole: ``whole(params) -> params``: with the frozen parameters among them, which ``init`` leaves out.
      apply: ``apply(key, params, stats, x, h, train) -> Outputs``; all that the model draws derives from the key.
    """

    init: Callable[[jax.Array, Any, Hparams], tuple[Params, Stats]]
    apply: Callable[[jax.Array, Params, Stats, Any, Hparams, bool], Outputs]
    whole: Callable[[Params], Params] = lambda params: params

    def forward(self, key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> Outputs:
        """Returns what ``apply`` does, computed with the kernels that the plan chose for the lanes."""

        def applied(key: jax.Array, params: Params, stats: Stats, x: Any) -> Outputs:
            return self.apply(key, params, stats, x, h, train)

        outputs: Outputs = lowered(applied)(key, params, stats, x)
        return outputs

    def forward_part(self, key: jax.Array, params: Params, stats: Stats, h: Hparams) -> Callable[[Any, Any], Outputs]:
        """Returns a function of inputs, and of the number of their part of an evaluation, None for a single one.

        A model that draws in evaluations, too, draws anew in each part.
        """

        def forward(x: Any, part: Any) -> Outputs:
            own_key = key if part is None else jax.random.fold_in(key, part)
            return self.forward(own_key, params, stats, x, h, False)

        return forward


def example_input(x: Any) -> Any:
    """Returns one example of zeros, (1, ...), with the shapes and dtypes of ``x``, to initialize a model with."""
    # Of NumPy until it is used: an array of JAX would start its devices, which the user may still want to set up.
    return jax.tree.map(lambda a: np.zeros((1, *a.shape[1:]), a.dtype), x)
