"""Hparams: the hyperparameters of one trial, as the user's functions see them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax

from hpjax.errors import UnknownHyperparameterError, did_you_mean

Leaves = tuple[Any, ...]
Static = tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]


@jax.tree_util.register_pytree_with_keys_class
class Hparams:
    """The hyperparameters of one trial: ``h.learning_rate``.

    A pytree. The values named in ``traced`` are its leaves, in the order of their names; all others
    stand in the tree structure. Two trials share one compiled program exactly when their tree
    structures are equal. Leaves are numbers on the host, arrays or tracers inside a program.

    Args:
      values: name to value.
      traced: the names whose values are leaves; each must be in ``values``.

    Raises:
      UnknownHyperparameterError: on reading or setting a name that is not there.

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

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], Static]:
        leaves = tuple((jax.tree_util.GetAttrKey(name), self._values[name]) for name in self._traced)
        static = tuple(sorted((k, v) for k, v in self._values.items() if k not in self._traced))
        return leaves, (self._traced, static)

    def tree_flatten(self) -> tuple[Leaves, Static]:
        leaves, static = self.tree_flatten_with_keys()
        return tuple(leaf for _, leaf in leaves), static

    @classmethod
    def tree_unflatten(cls, static: Static, leaves: Leaves) -> "Hparams":
        traced, fixed = static
        return cls({**dict(fixed), **dict(zip(traced, leaves, strict=True))}, traced)
