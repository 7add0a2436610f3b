"""One interface to Flax models: Linen and NNX modules as pure functions of (params, stats)."""

import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen

from hpjax.core.errors import InputError, annotate_errors
from hpjax.core.hparams import Hparams

Params = Any
Stats = Any

# Names that Flax models give to the argument of __call__ that tells training from evaluation; its value in training.
TRAIN_ARGUMENTS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


class Network(NamedTuple):
    """A model as pure functions.

    Attributes:
      init: ``init(key, x, h) -> (params, stats)``; ``x`` is a batch (1, ...), of which only shape and dtype matter.
      apply: ``apply(key, params, stats, x, h, train) -> (outputs, stats)``; dropout draws from the key.
    """

    init: Callable[[jax.Array, Any, Hparams], tuple[Params, Stats]]
    apply: Callable[[jax.Array, Params, Stats, Any, Hparams, bool], tuple[Any, Stats]]


def network(model: Any) -> Network:
    """Returns the network of a model.

    Args:
      model: a Linen module, a function of ``h`` that returns one, or a function of ``h`` and ``rngs`` that returns an
        NNX module.

    Raises:
      InputError: ``model`` is none of these.
    """
    if isinstance(model, linen.Module):
        return _linen(lambda h: model)
    if _is_nnx(model):
        raise InputError(
            "supervised.model",
            type(model).__name__,
            "is an NNX module whose parameters are drawn already, so that every replicate would begin alike",
            f"Write model=lambda h, rngs: {type(model).__name__}(..., rngs=rngs).",
        )
    if not callable(model) or inspect.isclass(model):
        raise InputError(
            "supervised.model",
            model,
            "must be a Linen module, a function of h, or for NNX a function of h and rngs",
            "Write model=lambda h: MLP(h.hidden).",
        )
    return _nnx(model) if required_arguments(model) == 2 else _linen(model)


def _is_nnx(model: Any) -> bool:
    """Returns whether ``model`` is an NNX module, without importing NNX, which is slow: if no one has, it is none."""
    return "flax.nnx" in sys.modules and isinstance(model, sys.modules["flax.nnx"].Module)


def required_arguments(function: Callable[..., Any]) -> int:
    """Returns the number of positional arguments of ``function`` that have no default."""
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in inspect.signature(function).parameters.values()
    )


def _linen(build: Callable[[Hparams], Any]) -> Network:
    def module(h: Hparams) -> linen.Module:
        built = annotate_errors("supervised.model", build)(h)
        if _is_nnx(built):
            raise InputError(
                "supervised.model",
                type(built).__name__,
                "is an NNX module and needs rngs of the sweep",
                f"Write model=lambda h, rngs: {type(built).__name__}(..., rngs=rngs).",
            )
        if not isinstance(built, linen.Module):
            allowed = "must give a Flax module"
            raise InputError("supervised.model", type(built).__name__, allowed, "Write model=lambda h: MLP(h.hidden).")
        return built

    def mode(built: linen.Module, train: bool) -> dict[str, Any]:
        names = inspect.signature(type(built).__call__).parameters
        return {name: on is train for name, on in TRAIN_ARGUMENTS.items() if name in names}

    def init(key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
        built = module(h)
        variables = dict(built.init(key, x, **mode(built, False)))
        return variables.pop("params", {}), variables

    def apply(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> tuple[Any, Stats]:
        built = module(h)
        variables = {"params": params, **stats}
        if not train:
            return built.apply(variables, x, **mode(built, False)), stats
        # Layers may draw from "params" in training, too; dropout has the key itself.
        rngs = {"dropout": key, "params": jax.random.fold_in(key, 1)}
        outputs, updated = built.apply(variables, x, **mode(built, True), rngs=rngs, mutable=list(stats))
        return outputs, {**stats, **updated}

    return Network(init, apply)


def _nnx(build: Callable[[Hparams, Any], Any]) -> Network:
    from flax import nnx

    def module(key: jax.Array, h: Hparams) -> Any:
        built = annotate_errors("supervised.model", build)(h, nnx.Rngs(key))
        if not _is_nnx(built):
            raise InputError(
                "supervised.model",
                type(built).__name__,
                "of h and rngs must give an NNX module",
                "For a Linen module write model=lambda h: ..., without rngs.",
            )
        return built

    def parts(built: Any) -> tuple[Params, Stats]:
        params, _, stats = nnx.state(built, nnx.Param, nnx.RngState, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def init(key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
        return parts(module(key, h))

    def apply(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> tuple[Any, Stats]:
        # Built at every call, since traced hyperparameters may be attributes of the module. Its fresh parameters are
        # overwritten here, so that XLA drops their initialization.
        built = module(key, h)
        nnx.update(built, params)
        nnx.update(built, stats)
        if train:
            built.train()
        else:
            built.eval()
        nnx.reseed(built, default=key)
        return built(x), parts(built)[1]

    return Network(init, apply)


def example_input(x: Any) -> Any:
    """Returns one example of zeros, (1, ...), with the shapes and dtypes of ``x``, to initialize a model with."""
    return jax.tree.map(lambda a: np.zeros((1, *a.shape[1:]), a.dtype), x)
