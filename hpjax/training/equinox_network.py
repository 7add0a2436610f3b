"""Equinox modules as pure functions of (params, stats)."""

import inspect
from collections.abc import Callable
from typing import Any

import jax

from hpjax.core.errors import InputError, missing
from hpjax.core.hparams import Hparams
from hpjax.training.call_arguments import inputs_of, train_arguments
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

        axes = (0, 0 if takes_key else None, None)
        if state is None:
            return Outputs(jax.vmap(one, axes, axis_name="batch")(x, keys, None), stats, {})
        outputs, state = jax.vmap(one, axes, (0, None), axis_name="batch")(x, keys, state)
        return Outputs(outputs, stats | {"state": state} if train else stats, {})

    return Network(init, apply)
