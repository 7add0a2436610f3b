"""Static leaves: what is no array in the variables of a model or in the state of an optimizer, such as a string.

JAX takes arrays alone as leaves. A static leaf is therefore made a part of the structure of its pytree, and handed to
the model or the optimizer as it was.
"""

from dataclasses import dataclass
from typing import Any

import jax

from hpjax.engine.state_tree import is_array


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class Static:
    """A leaf that is no array, as a node of a pytree without children.

    Attributes:
      value: the leaf: a string, a function, or any other object.
    """

    value: Any

    def __eq__(self, other: object) -> bool:
        """Returns whether the other one has the same or an equal value."""
        if not isinstance(other, Static):
            return False
        try:
            return self.value is other.value or bool(self.value == other.value)
        except Exception:  # whatever the equality of a value raises
            return False

    def __hash__(self) -> int:
        """Returns a number that agrees for equal values, which themselves need no hash."""
        return hash(Static)


def wrap_static(tree: Any) -> Any:
    """Returns a pytree in which each leaf that is no array is a ``Static``."""
    return jax.tree.map(lambda leaf: leaf if is_array(leaf) else Static(leaf), tree)


def unwrap_static(tree: Any) -> Any:
    """Returns a pytree with its static leaves as they were: the inverse of ``wrap_static``."""
    return jax.tree.map(_value, tree, is_leaf=lambda part: isinstance(part, Static))


def _value(part: Any) -> Any:
    return part.value if isinstance(part, Static) else part
