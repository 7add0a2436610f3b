"""Hparams: the hyperparameters of one trial, the ``h`` that the user's functions take."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax

from hpjax.core.errors import UnknownHyperparameterError, did_you_mean

SourceLine = tuple[str, int]  # a file and the number of a line in it

# One dict for each ``reading`` block that is open in this thread: sweeps traced in several threads do not mix.
_readers: ContextVar[tuple[dict[str, SourceLine], ...]] = ContextVar("readers", default=())


class Hparams:
    """The hyperparameters of one trial: ``h.learning_rate``, or ``h["learning_rate"]``.

    An ``Hparams`` is a pytree. The values named in ``traced`` are its leaves, in the order of their names; all others
    belong to the tree structure. Two trials share one compiled program exactly when their tree structures are equal.
    Leaves are numbers on the host, and arrays or tracers of shape () inside a program. Iterating gives the names,
    and ``dict(h)`` or ``{**config, **h}`` the values by name.

    Args:
      values: the value of every hyperparameter by its name.
      traced: the names whose values are leaves; each must be in ``values``.

    Raises:
      UnknownHyperparameterError: a name was read that is not in ``values``.

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
        if readers := _readers.get():
            caller = sys._getframe(1)
            # ``h["name"]`` comes here through ``__getitem__``: the user's line is one frame further out.
            caller = caller.f_back or caller if caller.f_code is Hparams.__getitem__.__code__ else caller
            for read in readers:
                read.setdefault(name, (caller.f_code.co_filename, caller.f_lineno))
        try:
            return self._values[name]
        except KeyError:
            raise UnknownHyperparameterError(unknown(name, self._values), name=name, obj=self) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"h.{name} cannot be set: hyperparameters are read-only. Name it in the space instead.")

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def keys(self) -> list[str]:
        """Returns the names. ``dict(h)`` calls it, which would else take names of two letters for pairs."""
        return list(self._values)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __repr__(self) -> str:
        return f"Hparams({', '.join(f'{k}={v!r}' for k, v in self._values.items())})"

    def __reduce__(self) -> Any:
        return Hparams, (self._values, self._traced)


def unknown(name: str, known: Iterable[str]) -> str:
    """Returns what to say where ``h.name`` was read of a trial that has only the ``known`` names."""
    return f"h.{name}: this trial has no hyperparameter {name!r}. {did_you_mean(name, known)}"


def unread(h: Hparams) -> Mapping[str, Any]:
    """Returns the values by name, without the reads being recorded by ``reading``."""
    values: dict[str, Any] = h._values
    return values


def with_fold(h: Hparams, fold: Any, folds: int) -> Hparams:
    """Returns ``h`` with two more values: ``h.fold``, which is traced unless it is an int, and ``h.folds``.

    Args:
      h: the hyperparameters of a trial.
      fold: the number of the fold that the lane is validated on, from 0: an int, or int32 ().
      folds: the number of folds.
    """
    traced = h._traced if isinstance(fold, int) else (*h._traced, "fold")
    return Hparams({**h._values, "fold": fold, "folds": folds}, traced)


class Selected:
    """A function chosen among several by a traced index. A pytree whose only leaf is the index.

    Under ``vmap`` every option is computed and one result is kept: the price of one program for all lanes.

    Args:
      index: int32 (), the number of the chosen option; a tracer or a ``ShapeDtypeStruct`` inside JAX.
      options: the functions; all must return arrays of the same shapes and dtypes.
    """

    def __init__(self, index: Any, options: tuple[Callable[..., Any], ...]) -> None:
        self.index, self.options = index, options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return jax.lax.switch(self.index, [partial(option, *args, **kwargs) for option in self.options])


jax.tree_util.register_pytree_node(Selected, lambda s: ((s.index,), s.options), lambda o, leaves: Selected(*leaves, o))


def _flatten(h: Hparams) -> tuple[tuple[tuple[Any, Any], ...], Any]:
    leaves = tuple((jax.tree_util.GetAttrKey(name), h._values[name]) for name in h._traced)
    # The type stands beside the value, since 1 == True == 1.0 and yet each may need a program of its own.
    static = tuple((name, type(h._values[name]), h._values[name]) for name in sorted(h._values.keys() - set(h._traced)))
    for read in _readers.get():  # whoever flattens ``h``, as a jitted function does, may use any value of it
        for name, _, _ in static:
            read.setdefault(name, ("", 0))
    return leaves, (h._traced, static)


def _unflatten(static: Any, leaves: Iterable[Any]) -> Hparams:
    traced, fixed = static
    values = {name: value for name, _, value in fixed} | dict(zip(traced, leaves, strict=True))
    return Hparams(values, traced)


jax.tree_util.register_pytree_with_keys(Hparams, _flatten, _unflatten)


@contextmanager
def reading() -> Iterator[dict[str, SourceLine]]:
    """Records which hyperparameters code in this block reads, of any ``Hparams``, in the thread that runs it.

    Yields:
      A dict that grows with each read: the name, and the file and line that read it first. The line is 0 where a
      function took all values together.
    """
    read: dict[str, SourceLine] = {}
    token = _readers.set((*_readers.get(), read))
    try:
        yield read
    finally:
        _readers.reset(token)
