"""Hparams: the hyperparameters of one trial, as the user's functions see them."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax

from hpjax.core.errors import UnknownHyperparameterError, did_you_mean

Place = tuple[str, int]  # a file and a line

_readers: list[dict[str, Place]] = []


class Hparams:
    """The hyperparameters of one trial: ``h.learning_rate``, or ``h["learning_rate"]``.

    A pytree. The values named in ``traced`` are its leaves, in the order of their names; all others
    stand in the tree structure. Two trials share one compiled program exactly when their tree
    structures are equal. Leaves are numbers on the host, arrays or tracers inside a program.
    Iterating gives the names: ``{name: h[name] for name in h}`` is a dict.

    Args:
      values: name to value.
      traced: the names whose values are leaves; each must be in ``values``.

    Raises:
      UnknownHyperparameterError: on reading a name that is not there.

    Example:
      >>> h = Hparams({"learning_rate": 0.1, "hidden": 64}, traced=["learning_rate"])
      >>> h.hidden, jax.tree.leaves(h)
      (64, [0.1])
    """

    __slots__ = ("_traced", "_values")

    def __init__(self, values: Mapping[str, Any], traced: Iterable[str] = ()) -> None:
        object.__setattr__(self, "_values", dict(values))
        object.__setattr__(self, "_traced", tuple(sorted(traced)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if _readers:
            caller = sys._getframe(1)
            caller = caller.f_back or caller if caller.f_code is Hparams.__getitem__.__code__ else caller
            for read in _readers:
                read.setdefault(name, (caller.f_code.co_filename, caller.f_lineno))
        try:
            return self._values[name]
        except KeyError:
            raise UnknownHyperparameterError(
                f"h.{name}: this trial has no hyperparameter {name!r}. {did_you_mean(name, self._values)}"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"h.{name} cannot be set: hyperparameters are read-only. Name it in the space instead.")

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __repr__(self) -> str:
        return f"Hparams({', '.join(f'{k}={v!r}' for k, v in self._values.items())})"

    def __reduce__(self) -> Any:
        return Hparams, (self._values, self._traced)


def unread(h: Hparams) -> Mapping[str, Any]:
    """Its values by name, which does not count as reading them."""
    values: dict[str, Any] = h._values
    return values


def with_fold(h: Hparams, fold: Any, folds: int) -> Hparams:
    """``h`` with ``h.fold``, the number of its fold, traced unless an int, and ``h.folds``, how many there are."""
    traced = h._traced if isinstance(fold, int) else (*h._traced, "fold")
    return Hparams({**h._values, "fold": fold, "folds": folds}, traced)


class Selected:
    """A function chosen by a traced index: calling it calls the chosen one. A pytree whose leaf is the index.

    Under ``vmap`` every option is computed and one result kept, which one program for all lanes costs.

    Args:
      index: int32 (), or what stands for it.
      options: the functions; each must return arrays of the same shapes and dtypes.
    """

    def __init__(self, index: Any, options: tuple[Callable[..., Any], ...]) -> None:
        self.index, self.options = index, options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return jax.lax.switch(self.index, [partial(option, *args, **kwargs) for option in self.options])


jax.tree_util.register_pytree_node(Selected, lambda s: ((s.index,), s.options), lambda o, leaves: Selected(*leaves, o))


def _flatten(h: Hparams) -> tuple[tuple[tuple[Any, Any], ...], Any]:
    leaves = tuple((jax.tree_util.GetAttrKey(name), h._values[name]) for name in h._traced)
    # The type beside the value, since 1 == True == 1.0.
    static = tuple((name, type(h._values[name]), h._values[name]) for name in sorted(h._values.keys() - set(h._traced)))
    for read in _readers:  # whoever takes all of them, as a jitted function does, may use any
        for name, _, _ in static:
            read.setdefault(name, ("", 0))
    return leaves, (h._traced, static)


def _unflatten(static: Any, leaves: Iterable[Any]) -> Hparams:
    traced, fixed = static
    values = {name: value for name, _, value in fixed} | dict(zip(traced, leaves, strict=True))
    return Hparams(values, traced)


jax.tree_util.register_pytree_with_keys(Hparams, _flatten, _unflatten)


@contextmanager
def reading() -> Iterator[dict[str, Place]]:
    """The names of the hyperparameters that are read meanwhile, of any ``Hparams``, and where each was read first."""
    read: dict[str, Place] = {}
    _readers.append(read)
    try:
        yield read
    finally:
        _readers.remove(read)
