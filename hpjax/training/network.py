"""Networks: models as pure functions of (params, stats), whichever library they are from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import SequenceKey

from hpjax.core.errors import InputError
from hpjax.core.hparams import Hparams
from hpjax.engine.lowering import lowered
from hpjax.engine.state_tree import KeyPath, names_of
from hpjax.training.static import Static, unwrap_static, wrap_static

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
      layers: ``layers(key, params, stats, x, h)`` returns what each layer gives in an evaluation, nested dicts with one
        entry for each call; None for models whose layers are not known.
    """

    init: Callable[[jax.Array, Any, Hparams], tuple[Params, Stats]]
    apply: Callable[[jax.Array, Params, Stats, Any, Hparams, bool], Outputs]
    whole: Callable[[Params], Params] = lambda params: params
    layers: Callable[[jax.Array, Params, Stats, Any, Hparams], Any] | None = None

    def forward(self, key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> Outputs:
        """Returns what ``apply`` does, computed with the kernels that the plan chose for the lanes."""

        def applied(key: jax.Array, params: Params, stats: Stats, x: Any) -> Outputs:
            found: Outputs = wrap_static(self.apply(key, params, stats, x, h, train))
            return found

        found: Outputs = lowered(applied, differentiable=True)(key, params, stats, x)
        return Outputs(unwrap_static(found.outputs), found.stats, unwrap_static(found.sown))

    def forward_part(self, key: jax.Array, params: Params, stats: Stats, h: Hparams) -> Callable[[Any, Any], Outputs]:
        """Returns a function of inputs, and of the number of their part of an evaluation, None for a single one.

        A model that draws in evaluations, too, draws anew in each part.
        """

        def forward(x: Any, part: Any) -> Outputs:
            own_key = key if part is None else jax.random.fold_in(key, part)
            return self.forward(own_key, params, stats, x, h, False)

        return forward


def with_static(net: Network) -> Network:
    """Returns a network whose statistics may hold what is no array, such as a string, as a part of their structure.

    Its ``apply`` raises ``InputError`` if the model changes such a value, or makes an array of it.
    """

    def init(key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
        params, stats = net.init(key, x, h)
        return params, wrap_static(stats)

    def apply(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> Outputs:
        found = net.apply(key, params, unwrap_static(stats), x, h, train)
        after = wrap_static(found.stats)
        _check_unchanged(stats, after)
        return found._replace(stats=after)

    return net._replace(init=init, apply=apply)


def _check_unchanged(before: Stats, after: Stats) -> None:
    """Raises ``InputError`` if an array became none, or none an array, or if what is no array has another value."""
    old, new = _parts(before), _parts(after)
    for name in old | new:
        changed = [parts.get(name, "nothing") for parts in (old, new)]
        if changed[0] != changed[1]:
            shown = " to ".join(repr(part.value) if isinstance(part, Static) else part for part in changed)
            allowed = f"must stay what it is, unless it is an array; a call of the model changes it from {shown}"
            raise InputError(
                "supervised.model", "/".join(map(str, name)), allowed, "Begin it with a number or an array."
            )


def _parts(stats: Stats) -> dict[KeyPath, Static | str]:
    """Returns the parts of statistics by the names along their paths: what is no array, and a word for each array."""
    leaves = jax.tree_util.tree_leaves_with_path(stats, is_leaf=lambda part: part is None or isinstance(part, Static))
    return {
        names_of(path): part if isinstance(part, Static) else "None" if part is None else "an array"
        for path, part in leaves
    }


def named_layers(found: Any) -> dict[str, jax.Array]:
    """Returns what layers give by their paths, and what the model gives as ``"output"``.

    Args:
      found: what ``Network.layers`` returns. Of a layer that is called, or gives, several arrays, those after the first
        have their numbers in the path.
    """
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        numbers = [str(entry.idx) for entry in path if isinstance(entry, SequenceKey) and entry.idx > 0]
        names = [
            str(name) for entry, name in zip(path, names_of(path), strict=True) if not isinstance(entry, SequenceKey)
        ]
        named["/".join([*(name for name in names if name != "__call__"), *numbers]) or "output"] = leaf
    return named


def example_input(x: Any) -> Any:
    """Returns one example of zeros, (1, ...), with the shapes and dtypes of ``x``, to initialize a model with."""
    # Of NumPy until it is used: an array of JAX would start its devices, which the user may still want to set up.
    return jax.tree.map(lambda a: np.zeros((1, *a.shape[1:]), a.dtype), x)


def begun(net: Network, key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
    """Returns the parameters and the other variables that a model begins with, in the dtypes that training keeps."""
    params, stats = net.init(key, x, h)
    if jax.tree.leaves(stats):
        # Flax draws batch statistics in float32, and ``apply`` may return them in the wider dtype of the inputs.
        settled = jax.eval_shape(lambda: net.apply(key, params, stats, x, h, True).stats)
        stats = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), stats, settled)
    return params, stats
