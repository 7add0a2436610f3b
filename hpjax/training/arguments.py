"""What the user's functions take: which of them are functions of ``h``, and what losses and metrics take by name."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from hpjax.core.errors import InputError
from hpjax.core.format import show
from hpjax.core.hparams import Hparams, Selected


class Context(NamedTuple):
    """What a loss or a metric may take by name besides (outputs, y): each field is such a name.

    Attributes:
      x: the inputs that gave the outputs, (batch, ...) or a pytree of such arrays.
      params: the parameters that gave them.
      key: gives a typed threefry key of the function's own, (); called where a function takes the key.
      h: the hyperparameters.
      sown: what the model stored by ``sow`` in the call that gave the outputs, collection to nested dicts.
    """

    x: Any
    params: Any
    key: Callable[[], jax.Array]
    h: Hparams
    sown: Any


def is_of_h(function: Callable[..., Any]) -> bool:
    """Returns whether ``function`` takes one positional argument only, or its first argument is named ``h``.

    This is what tells a function of ``h`` that returns a loss from a loss: ``loss(outputs, y, h)`` is a loss.
    """
    positional = _positional(function)
    return positional[:1] == ["h"] or (len(positional) == 1 and not _takes_all(function))


def with_context(field: str, function: Callable[..., Any], context: Context, **more: Any) -> Callable[[Any, Any], Any]:
    """Returns a loss or metric as a function of (outputs, y), with those fields of ``context`` that it names.

    Args:
      field: what the function was given for, in errors.
      function: ``function(outputs, y, ...)``. Values that ``functools.partial`` has bound stay.
      context: what it may take by name.
      **more: what else it may take by name.

    Raises:
      InputError: the function needs an argument of another name.
    """
    if isinstance(function, Selected):
        options = [with_context(field, option, context, **more) for option in function.options]
        return Selected(function.index, tuple(options))
    names = taken(field, function, (*Context._fields, *more))
    if not names:
        return function
    values = context._asdict() | more | ({"key": context.key()} if "key" in names else {})
    return partial(function, **{name: values[name] for name in names})


def taken(field: str, function: Callable[..., Any], known: tuple[str, ...]) -> list[str]:
    """Returns those of ``known`` that a function of (outputs, y) takes by name, behind these two.

    Raises:
      InputError: the function needs an argument whose name is not in ``known``.
    """
    bound = function.keywords if isinstance(function, partial) else {}
    named = {name: p for name, p in _parameters(function).items() if p.kind in NAMED and name not in bound}
    more = {name: p for name, p in named.items() if name not in _positional(function)[:2]}
    needed = [name for name, p in more.items() if p.default is p.empty and name not in known]
    if needed:
        allowed = f"takes {', '.join(needed)}: it may take {', '.join(known)} by name, besides (outputs, y)"
        raise InputError(field, show(function), allowed, f"Write lambda outputs, y: ... with {needed[0]} in it.")
    return [name for name in known if name in more]


def named_arguments(field: str, function: Any, known: tuple[str, ...]) -> list[str]:
    """Returns those of ``known`` that a function takes, all of them by name.

    Raises:
      InputError: it is no function, or needs an argument whose name is not in ``known``.
    """
    parameters = _parameters(function) if callable(function) else {"": inspect.Parameter("_", NAMED[0])}
    needed = {name for name, p in parameters.items() if p.default is p.empty and p.kind in (NAMED[0], NAMED[1])}
    positional = any(p.kind is p.POSITIONAL_ONLY for p in parameters.values())
    if positional or not needed <= {*known}:
        allowed = f"must be a function that takes some of {', '.join(known)} by these names"
        raise InputError(field, show(function), allowed, f"Write {field.rpartition('.')[2]}=lambda {known[0]}: ....")
    return [name for name in known if name in parameters]


NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # builtins have no signature
        return {}


def _positional(function: Callable[..., Any]) -> list[str]:
    parameters = _parameters(function).values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _takes_all(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_POSITIONAL for p in _parameters(function).values())
