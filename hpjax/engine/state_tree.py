"""The structure of a program's state: which of its leaves are arrays, which are not, and how both make it up.

The engine carries arrays alone. Whatever else a state holds (functions, strings, the static fields of a Flax
``TrainState``, the fields of an Equinox module that are no arrays) is kept apart, and never traced.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.errors import InputError
from hpjax.core.numeric import check_integers
from hpjax.core.program import State

# The names along the path to a leaf; positions in tuples and lists are numbers.
KeyPath = tuple[str | int, ...]

# Stands for an array among the leaves of a ``StateTree``.
_ARRAY = object()


class StateTree(NamedTuple):
    """The structure of a state without its arrays.

    Attributes:
      tree: the structure of the pytree.
      leaves: its leaves, in order, with a placeholder for each array.
      paths: the key path of each leaf.
    """

    tree: Any
    leaves: tuple[Any, ...]
    paths: tuple[Any, ...]

    def fill(self, arrays: Sequence[Any]) -> State:
        """Returns the state with these arrays, in the order in which ``split_state`` gave them."""
        rest = iter(arrays)
        return jax.tree.unflatten(self.tree, [next(rest) if leaf is _ARRAY else leaf for leaf in self.leaves])

    def array_paths(self) -> list[Any]:
        """Returns the key path of each array."""
        return [path for path, leaf in zip(self.paths, self.leaves, strict=True) if leaf is _ARRAY]

    def names(self) -> tuple[KeyPath, ...]:
        """Returns the names along the path to each array."""
        return tuple(map(names_of, self.array_paths()))

    @property
    def plain(self) -> bool:
        """Whether it is made of dicts, lists and tuples that hold arrays only, so that no code is part of it."""
        return all(leaf is _ARRAY for leaf in self.leaves) and _plain(self.tree)


def split_state(state: State) -> tuple[tuple[Any, ...], StateTree]:
    """Returns the arrays of a state, and its structure without them.

    Python numbers become arrays of JAX's default dtypes, as in the carry of ``jax.lax.scan``; those in an Equinox
    module are no arrays, as under ``equinox.filter_jit``.

    Raises:
      InputError: an integer of NumPy's needs more bits than JAX keeps.
    """
    found, tree = jax.tree_util.tree_flatten_with_path(state)
    paths, leaves = [path for path, _ in found], [leaf for _, leaf in found]
    carried = _carried(state)
    arrays = tuple(_as_array(path, leaf) for (path, leaf), carries in zip(found, carried, strict=True) if carries)
    kept = tuple(_ARRAY if carries else leaf for leaf, carries in zip(leaves, carried, strict=True))
    return arrays, StateTree(tree, kept, tuple(paths))


def _carried(state: State) -> list[bool]:
    """Returns for each leaf of a state whether it is one of its arrays."""
    carried = []
    for part in jax.tree.leaves(state, is_leaf=_is_equinox):
        static = _is_equinox(part)
        carried += [is_array(leaf) and not (static and _is_number(leaf)) for leaf in jax.tree.leaves(part)]
    return carried


def _is_equinox(part: Any) -> bool:
    module = getattr(sys.modules.get("equinox"), "Module", None)  # whoever has one has imported Equinox
    return module is not None and isinstance(part, module)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic)


def numbers_in(state: State) -> list[Any]:
    """Returns the key paths of the Python numbers in a state that become arrays."""
    found = jax.tree_util.tree_leaves_with_path(state)
    return [path for (path, leaf), carries in zip(found, _carried(state), strict=True) if carries and _is_number(leaf)]


def arrays_of(tree: Any) -> tuple[jax.Array, ...]:
    """Returns the arrays of a pytree, without its other leaves."""
    return split_state(tree)[0]


def is_key(x: Any) -> bool:
    """Returns whether an array, or a ``ShapeDtypeStruct``, is one of typed PRNG keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def is_weak(x: Any) -> bool:
    """Returns whether an array took its dtype from a Python number; typed PRNG keys, which do not, do not say so."""
    return bool(getattr(x, "weak_type", False))


def is_array(leaf: Any) -> bool:
    """Returns whether a leaf is an array of numbers or of typed PRNG keys, the shape of one, or a number."""
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf.dtype.kind in "biufc" or (leaf.dtype.kind == "V" and leaf.dtype.names is None)  # V: of ml_dtypes
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | bool | int | float | complex)


def zeros_like(shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns zeros of a shape and dtype, or for typed PRNG keys keys of zeros."""
    if not is_key(shape):
        return jnp.zeros(shape.shape, shape.dtype)
    words = jax.eval_shape(jax.random.key_data, shape)
    keys: jax.Array = jax.random.wrap_key_data(jnp.zeros(words.shape, words.dtype), impl=_generator(shape))
    return keys


def filled_like(like: State, found: Sequence[tuple[KeyPath, Any]]) -> State:
    """Returns a state, or a part of one, of the structure of ``like`` with other arrays.

    Args:
      like: a state or a part of one, with the same names; what is no array in it stays, functions and the static
        fields of dataclasses among it. Its arrays may be ``ShapeDtypeStruct``s.
      found: the names along the path to each array, and the array; typed PRNG keys as their raw data.

    Raises:
      InputError: ``like`` has arrays that the state has not, or of other shapes.
    """
    field, known = "restore.like", dict(found)
    theirs, tree = split_state(like)
    for name in tree.names():
        if name not in known:
            allowed = f"must be a part of the state, whose arrays are {', '.join('/'.join(map(str, n)) for n in known)}"
            raise InputError(field, "/".join(map(str, name)), allowed, "Write like=program.init(key, h).")
    arrays = []
    for path, name, own in zip(tree.array_paths(), tree.names(), theirs, strict=True):
        array = known[name]
        if is_key(own):
            array = jax.random.wrap_key_data(jnp.asarray(array), impl=_generator(own))
        if own.shape != array.shape:
            where = f"{field}{jax.tree_util.keystr(path)}"
            raise InputError(where, own.shape, f"must have the shape {array.shape}", "Write another like=.")
        arrays.append(jnp.asarray(array))
    return tree.fill(arrays)


def is_same(before: StateTree, after: StateTree | None) -> bool:
    """Returns whether two structures are certainly equal: static parts may not say, as arrays among them."""
    try:
        return bool(before == after)
    except Exception:  # whatever the equality of a static part raises
        return False


def difference(before: StateTree, after: StateTree) -> str | None:
    """Returns what differs between two structures, as the end of a sentence, or None.

    Functions are equal if they have the same name: each trace makes new closures of the same code.
    """
    structures = f"from\n  {before.tree}\nto\n  {after.tree}"
    if list(map(names_of, before.paths)) != list(map(names_of, after.paths)):
        return structures
    for path, old, new in zip(before.paths, before.leaves, after.leaves, strict=True):
        if not _alike(old, new):
            where = f"in state{jax.tree_util.keystr(path)}" + (", which is no array," if old is not _ARRAY else "")
            shown = ["an array" if leaf is _ARRAY else repr(leaf) for leaf in (old, new)]
            remedy = ". In an Equinox module write a number that changes as jnp.asarray(...)." * _is_number(old)
            return f"{where} from {' to '.join(shown)}{remedy}"
    return None if _alike_trees(before.tree, after.tree) else structures


def nested(arrays: Iterable[tuple[KeyPath, Any]]) -> Any:
    """Returns arrays as nested dicts, by the names along their paths; an array itself where its path is empty."""
    tree: dict[Any, Any] = {}
    for path, array in arrays:
        if not path:
            return array
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = array
    return tree


def names_of(path: Any) -> KeyPath:
    """Returns the names along a key path."""
    names = (getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", None))) for entry in path)
    return tuple(name if type(name) is int else str(name) for name in names)


def _as_array(path: Any, leaf: Any) -> Any:
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return leaf
    check_integers(f"state{jax.tree_util.keystr(path)}", leaf)
    return jnp.asarray(leaf)


def _generator(key: Any) -> Any:
    """Returns the generator of typed PRNG keys, given as an array or as its ``ShapeDtypeStruct``."""
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), key)
    return found[0]


def _plain(tree: Any) -> bool:
    node = tree.node_data()
    kind, static = (None, None) if node is None else node
    known = kind in (None, dict, list, tuple, type(None)) or (issubclass(kind, tuple) and static is None)
    return known and all(map(_plain, tree.children()))


def _alike_trees(before: Any, after: Any) -> bool:
    """Returns whether two tree structures have the same types, and static parts that are alike."""
    (old, new), (ours, theirs) = ((t.node_data() for t in (before, after)), (t.children() for t in (before, after)))
    if (old is None or new is None) or len(ours) != len(theirs):
        return old is new and len(ours) == len(theirs)
    return old[0] is new[0] and _alike(old[1], new[1]) and all(map(_alike_trees, ours, theirs))


def _alike(old: Any, new: Any) -> bool:
    """Returns whether two values are equal, with functions compared by name, and tracers by their types."""
    if old is new:
        return True
    if type(old) is not type(new):
        return False
    if isinstance(old, jax.core.Tracer):
        return bool(old.shape == new.shape and old.dtype == new.dtype)
    if isinstance(old, jax.Array | np.ndarray):
        return np.array_equal(old, new)
    if isinstance(old, list | tuple):
        return len(old) == len(new) and all(map(_alike, old, new))
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(_alike(old[key], new[key]) for key in old)
    if hasattr(old, "__qualname__"):
        return (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)
    try:
        if bool(old == new):
            return True
    except Exception:  # an equality that needs the values of tracers
        pass
    return hasattr(old, "__dict__") and _alike(vars(old), vars(new))
