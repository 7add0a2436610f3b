"""Equinox modules as pure functions of (params, stats)."""

import inspect
from collections.abc import Callable
from typing import Any

import jax

from hpjax.core.errors import InputError, missing
from hpjax.core.hparams import Hparams
from hpjax.core.remarks import remark
from hpjax.engine.dataflow import flows
from hpjax.training.call_arguments import SAYS_WHETHER_IT_TRAINS, inputs_of, train_arguments
from hpjax.training.network import Network, Outputs, Params, Stats


def equinox_network(build: Callable[[Hparams, jax.Array], Any]) -> Network:
    """Returns the network of a function of ``h`` and ``key`` that gives an Equinox module of one example.

    The module is called under ``vmap``, over an axis named ``batch``. It may take a ``key``, one for each example, and
    where ``build`` gives a pair (module, state), as ``eqx.nn.make_with_state`` does, the state. Parameters are its
    floating-point arrays; its other arrays, and the state, are the statistics.

    Raises:
      ImportError: Equinox is not installed.
    """
    try:
        import equinox as eqx
    except ImportError:
        raise missing("an Equinox model", "equinox") from None

    def built(key: jax.Array, h: Hparams) -> tuple[Any, Any]:
        found = build(h, key)
        module, state = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        if not isinstance(module, eqx.Module):
            raise InputError(
                "supervised.model",
                type(module).__name__,
                "of h and key must give an Equinox module, or a pair of one and its state",
                "Write model=lambda h, key: eqx.nn.MLP(..., key=key).",
            )
        return module, state

    def init(key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
        module, state = built(key, h)
        params, rest = eqx.partition(module, eqx.is_inexact_array)
        arrays = eqx.filter(rest, eqx.is_array)
        return params, {"arrays": arrays} | ({} if state is None else {"state": state})

    def apply(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> Outputs:
        # Built at every call, since traced hyperparameters may be fields of the module; XLA drops its fresh arrays.
        fresh = eqx.filter(built(key, h)[0], eqx.is_array, inverse=True)
        module = eqx.nn.inference_mode(eqx.combine(params, stats["arrays"], fresh), value=not train)
        call = type(module).__call__
        flags = train_arguments(call, train)
        takes_key, state = "key" in inspect.signature(call).parameters, stats.get("state")
        keys = jax.random.split(key, jax.tree.leaves(x)[0].shape[0]) if takes_key else None

        def one(x: Any, key: Any, state: Any) -> Any:
            return module(
                *inputs_of(call, x), *([] if state is None else [state]), **({"key": key} if takes_key else {}), **flags
            )

        def forward(keys: Any) -> tuple[Any, Any]:
            axes = (0, 0 if takes_key else None, None)
            if state is None:
                return jax.vmap(one, axes, axis_name="batch")(x, keys, None), None
            outputs, after = jax.vmap(one, axes, (0, None), axis_name="batch")(x, keys, state)
            return outputs, after

        if keys is not None and _has_dropout(module, eqx.nn.Dropout):
            _tell_drawing(lambda keys: forward(keys)[0], keys, train)
        outputs, state = forward(keys)
        return Outputs(outputs, stats if state is None or not train else stats | {"state": state}, {})

    return Network(init, apply)


def _has_dropout(module: Any, kind: Any) -> bool:
    """Returns whether a module has a layer of dropout, an ``eqx.nn.Dropout``, whose rate is not 0."""
    layers = jax.tree.leaves(module, is_leaf=lambda part: isinstance(part, kind))
    rates = [layer.p for layer in layers if isinstance(layer, kind)]
    return any(not isinstance(rate, int | float) or rate > 0 for rate in rates)


def _tell_drawing(outputs: Callable[[Any], Any], keys: jax.Array, train: bool) -> None:
    """Remarks if the outputs of a model with dropout are not random in training, or are so in evaluations."""
    drawn = any(flow.inputs for flow in flows(outputs, keys))
    if train and not drawn:
        remark(f"eqx.nn.Dropout draws nothing in training. {SAYS_WHETHER_IT_TRAINS}")
    if drawn and not train:
        remark(f"the model has eqx.nn.Dropout, and draws in evaluations, too. {SAYS_WHETHER_IT_TRAINS}")
