"""Models: finds out of which library a user's model is, and gives its network."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

from flax import linen

from hpjax.core.errors import InputError, annotate_errors
from hpjax.core.hparams import Hparams
from hpjax.training.equinox_network import equinox_network
from hpjax.training.linen_network import linen_network
from hpjax.training.network import Network, with_static


def network(model: Any) -> Network:
    """Returns the network of a model.

    Args:
      model: a Linen module, a function of ``h`` that returns one, a function of ``h`` and ``rngs`` that returns an NNX
        module, or a function of ``h`` and ``key`` that returns an Equinox module.

    Raises:
      InputError: ``model`` is none of these.
    """
    return with_static(_network(model))


def _network(model: Any) -> Network:
    if isinstance(model, linen.Module):
        return _linen(lambda h: model)
    _check_not_drawn(model, "whose parameters are drawn already, so that every replicate would begin alike")
    if not callable(model) or inspect.isclass(model):
        raise InputError(
            "supervised.model",
            model,
            "must be a Linen module, a function of h, for NNX of h and rngs, or for Equinox of h and key",
            "Write model=lambda h: MLP(h.hidden).",
        )
    names = required_arguments(model)
    if len(names) < 2:
        return _linen(model)
    if names[1] == "key":
        return equinox_network(annotate_errors("supervised.model", model))
    from hpjax.training.nnx_network import nnx_network  # slow to import

    return nnx_network(_built(model, "NNX"))


def _linen(model: Callable[[Hparams], Any]) -> Network:
    return linen_network(_built(model, "Linen"))


def _check_not_drawn(module: Any, why: str) -> None:
    """Raises ``InputError`` if something is a module that draws its parameters from an argument that it did not get."""
    for kind, argument in (("NNX", "rngs"), ("Equinox", "key")):
        if _is_a(module, kind):
            name = type(module).__name__
            remedy = f"Write model=lambda h, {argument}: {name}(..., {argument}={argument})."
            raise InputError("supervised.model", name, f"is an {kind} module {why.format(argument=argument)}", remedy)


def _built(model: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """Returns ``model`` with a check that what it builds is a module of that kind."""

    def built(*arguments: Any) -> Any:
        found = annotate_errors("supervised.model", model)(*arguments)
        if _is_a(found, kind):
            return found
        _check_not_drawn(found, "and needs {argument} of the sweep")
        given = "must give a Flax module" if kind == "Linen" else "of h and rngs must give an NNX module"
        remedy = "Write model=lambda h: MLP(h.hidden)." if kind == "Linen" else "For Linen write model=lambda h: ..."
        raise InputError("supervised.model", type(found).__name__, given, remedy)

    return built


# Where the base class of each kind of module is.
_BASES = {"Linen": ("flax.linen", "Module"), "NNX": ("flax.nnx", "Module"), "Equinox": ("equinox", "Module")}


def _is_a(model: Any, kind: str) -> bool:
    """Returns whether ``model`` is a module of that kind, without importing its library."""
    library, name = _BASES[kind]
    return library in sys.modules and isinstance(model, getattr(sys.modules[library], name))


def required_arguments(function: Callable[..., Any]) -> list[str]:
    """Returns the names of the positional arguments of ``function`` that have no default."""
    return [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
