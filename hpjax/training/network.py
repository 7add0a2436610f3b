"""Flax models behind one interface: Linen and NNX as pure functions of (params, stats)."""

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

# What Flax models call the argument of __call__ that tells training from evaluation, and its value in training.
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
      init: ``init(key, x, h) -> (params, stats)``; ``x`` is one batch, of which only shape and dtype matter.
      apply: ``apply(key, params, stats, x, h, train) -> (outputs, stats)``; the key feeds dropout.
    """

    init: Callable[[jax.Array, Any, Hparams], tuple[Params, Stats]]
    apply: Callable[[jax.Array, Params, Stats, Any, Hparams, bool], tuple[Any, Stats]]


def network(model: Any) -> Network:
    """The network of a Linen module, or of a function of ``h`` (Linen) or of ``h`` and ``rngs`` (NNX).

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
            "Give a function: lambda h, rngs: " + type(model).__name__ + "(..., rngs=rngs).",
        )
    if not callable(model) or inspect.isclass(model):
        raise InputError(
            "supervised.model",
            model,
            "must be a Linen module, a function of h, or for NNX a function of h and rngs",
            "Write lambda h: MLP(h.hidden).",
        )
    return _nnx(model) if required_arguments(model) == 2 else _linen(model)


def _is_nnx(model: Any) -> bool:
    """Whether it is an NNX module: none is where nobody imported NNX, which takes a while."""
    return "flax.nnx" in sys.modules and isinstance(model, sys.modules["flax.nnx"].Module)


def required_arguments(function: Callable[..., Any]) -> int:
    """How many positional arguments ``function`` cannot do without."""
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
                "Write lambda h, rngs: ...",
            )
        if not isinstance(built, linen.Module):
            raise InputError(
                "supervised.model", type(built).__name__, "must give a Flax module", "Return the module itself."
            )
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
                "For a Linen module write lambda h: ..., without rngs.",
            )
        return built

    def parts(built: Any) -> tuple[Params, Stats]:
        params, _, stats = nnx.state(built, nnx.Param, nnx.RngState, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def init(key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
        return parts(module(key, h))

    def apply(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> tuple[Any, Stats]:
        # Built anew at every call, since traced hyperparameters may stand in its attributes; the fresh
        # parameters are overwritten at once, and XLA drops their initialization.
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
    """One example of zeros like those of ``x``: what a model is initialized with."""
    return jax.tree.map(lambda a: np.zeros((1, *a.shape[1:]), a.dtype), x)
