"""Initial parameters: starts a model from given ones, of which some are frozen and held once for all lanes."""

import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey

from hpjax.core.errors import InputError, did_you_mean, missing
from hpjax.core.hparams import Hparams
from hpjax.core.remarks import remark
from hpjax.engine.state_tree import KeyPath, is_array, names_of, nested
from hpjax.training.network import Network, Outputs, Params, Stats

Arrays = dict[KeyPath, Any]
Frozen = str | Collection[str] | Callable[[str], bool] | None

# What to do with an array of ``init_from`` that has another shape.
OMIT = "Leave it out."


class Initial(NamedTuple):
    """Given variables of a model, by the names along their paths.

    Attributes:
      params: the parameters that train, which lanes begin with.
      frozen: the parameters that do not.
      stats: the other variables.
    """

    params: Arrays
    frozen: Arrays
    stats: Arrays

    @classmethod
    def of(cls, given: Any, frozen: Frozen) -> "Initial":
        """Returns what was given as ``init_from`` and ``frozen`` of ``supervised``.

        Raises:
          InputError: it holds no parameters, or ``frozen`` names none of them.
          ImportError: a file needs a package that is not installed.
        """
        if given is None and frozen is not None:
            allowed = "needs init_from: frozen parameters are those that all lanes share"
            remedy = "Write init_from=params. For random ones write optax.masked(optax.set_to_zero(), ...)."
            raise InputError("supervised.frozen", frozen, allowed, remedy)
        variables = _variables(given)
        params, stats = variables["params"], variables["stats"]
        if not params:
            remedy = 'Write init_from=model.init(key, x)["params"], a trial, or a file that trial.export wrote.'
            raise InputError("supervised.init_from", type(given).__name__, "must hold parameters", remedy)
        fixed = {name: value for name, value in params.items() if _matches(frozen, "/".join(map(str, name)))}
        if frozen is not None and not fixed:
            known = did_you_mean(str(frozen), dict.fromkeys(f"{n[0]}/*" if len(n) > 1 else str(n[0]) for n in params))
            raise InputError("supervised.frozen", frozen, "must match a parameter of init_from", known)
        # On the device once, as one array that all programs of the sweep close over.
        held = {name: jnp.asarray(value) for name, value in fixed.items()}
        return cls({name: value for name, value in params.items() if name not in fixed}, held, stats)

    def tree(self) -> dict[str, Any]:
        """Returns the frozen parameters as nested dicts, in the place that they have in a state."""
        return {"params": nested(self.frozen.items())} if self.frozen else {}

    def network(self, net: Network) -> Network:
        """Returns a network that begins with the given variables; its parameters are None where they are frozen."""

        given, fixed, others = ({_dotted(name): value for name, value in part.items()} for part in self)

        def init(key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
            params, stats = net.init(key, x, h)
            own = {_dotted(name): name for name in _names_in(params)}
            had = {_dotted(name): name for name in _names_in(stats)}
            # A whole module, or its state, has statistics among its parameters; a collection has a name of its own.
            beside = {name: value for name, value in (given | fixed).items() if name in had and name not in own}
            beside |= {_dotted(name[1:]): value for name, value in self.stats.items() if _dotted(name[1:]) in had}
            beside |= {name: value for name, value in others.items() if name in had}
            _check_names(own, [name for name in (*self.params, *self.frozen) if _dotted(name) not in beside])
            drawn = ["/".join(map(str, own[name])) for name in own if name not in given and name not in fixed]
            if drawn:
                remark(f"init_from has {len(own) - len(drawn)} of {len(own)} parameters; drawn are {_few(drawn)}.")
            known = [name for name in self.stats if _dotted(name) in had or _dotted(name[1:]) in had]
            if passed := ["/".join(map(str, name)) for name in self.stats if name not in known]:
                remark(f"init_from has variables that are none of the model's, and are left out: {_few(passed)}.")
            fresh = ["/".join(map(str, name)) for dotted, name in had.items() if dotted not in beside]
            if fresh := [name for name in fresh if name in _inexact_names(stats)]:
                remark(
                    f"init_from has no {_few(fresh)}, which begin as the model makes them. For trained ones give the "
                    "model's variables with its parameters, or a trial."
                )

            def begun(path: Any, value: Any) -> Any:
                name = _dotted(names_of(path))
                if name in fixed:
                    _check_shape(_field(names_of(path)), fixed[name], np.shape(value), OMIT)
                    return None
                return like_own(_field(names_of(path)), given[name], value, OMIT) if name in given else value

            def kept(path: Any, value: Any) -> Any:
                name = _dotted(names_of(path))
                return like_own(_field(names_of(path)), beside[name], value, OMIT) if name in beside else value

            return jax.tree_util.tree_map_with_path(begun, params), jax.tree_util.tree_map_with_path(kept, stats)

        def apply(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> Outputs:
            return net.apply(key, whole(params), stats, x, h, train)

        def whole(params: Params) -> Params:
            def found(path: Any, value: Any) -> Any:
                return fixed.get(_dotted(names_of(path))) if value is None else value

            return jax.tree_util.tree_map_with_path(found, params, is_leaf=lambda value: value is None)

        return Network(init, apply, whole)


def _variables(given: Any) -> dict[str, Arrays]:
    """Returns the parameters and the other variables in what a user gives to start from."""
    if hasattr(given, "restore") and callable(given.restore):  # a trial of a result
        given = given.restore()
    if isinstance(given, str | Path):
        given = _with_positions(_read(Path(given).expanduser()))
    if hasattr(given, "params") and hasattr(given, "opt_state"):  # a TrainState of Flax, or one like it
        given = {name: getattr(given, name) for name in _OF_STATES if getattr(given, name, None) is not None}
        if isinstance(given["params"], Mapping) and "params" in given["params"]:
            given = given["params"]
    if type(given) is tuple and len(given) == 2 and type(given[1]).__module__.startswith("equinox."):
        given = {"params": given[0], "stats": {"state": given[1]}}  # what eqx.nn.make_with_state makes
    if isinstance(given, Mapping) and "params" in given:
        stats, params = given.get("stats"), _flat(given["params"])
        average = _flat(given.get("average"))
        known = {name: part for name, part in given.items() if name not in _OF_TRAINING}
        # Where there is an average, evaluations and exports use it.
        params = {name: average.get(name, value) for name, value in params.items()}
        return {"params": params, "stats": _flat(known if stats is None else stats)}
    return {"params": _flat(given), "stats": {}}


# The parts of a restored state that are no variables of its model.
_OF_TRAINING = ("params", "opt_state", "average", "stopping", "last", "accumulated", "filled", "held")
# The fields of a training state that have such variables, and the average of the parameters.
_OF_STATES = ("params", "batch_stats", "stats", "average")


def _flat(tree: Any) -> Arrays:
    """Returns the arrays of a pytree by the names along their paths; of a module those that train."""
    found = [(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if is_array(leaf)]
    if not isinstance(tree, Mapping):
        arrays = [(path, leaf) for path, leaf in found if hasattr(leaf, "dtype")]
        found = [(path, leaf) for path, leaf in arrays if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return {names_of(_without_box(path)): leaf for path, leaf in found}


def _without_box(path: Any) -> Any:
    """Returns a key path without the attribute of a box of ``nn.with_partitioning``, or of an NNX variable."""
    return path[:-1] if path[-1:] == (GetAttrKey("value"),) else path


def _read(path: Path) -> Any:
    """Returns the variables in a file that ``Trial.export`` wrote, or in a checkpoint of Orbax."""
    if path.is_dir():
        import orbax.checkpoint

        with orbax.checkpoint.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(_pytree_of_orbax(path).absolute())
    if not path.exists():
        remedy = f"Write a path that exists; this one means {path.absolute()}."
        raise InputError("supervised.init_from", str(path), "must exist", remedy)
    if path.suffix == ".msgpack":
        from flax.serialization import msgpack_restore

        return msgpack_restore(path.read_bytes())
    if path.suffix == ".safetensors":
        try:
            from safetensors.numpy import load_file
        except ImportError:
            raise missing("a .safetensors file", "safetensors") from None
        return nested((tuple(name.split(".")), value) for name, value in load_file(path).items())
    allowed = "must be a .safetensors or .msgpack file, or a folder that Orbax wrote"
    raise InputError("supervised.init_from", str(path), allowed, 'Write trial.export("model.safetensors").')


def _pytree_of_orbax(folder: Path) -> Path:
    """Returns the folder of a pytree of Orbax: this one; of a ``CheckpointManager`` the one of its newest step."""
    if (folder / "_METADATA").exists():
        return folder
    numbered = {each: re.fullmatch(r"\D*(\d+)", each.name) for each in folder.iterdir() if each.is_dir()}
    steps = {int(number[1]): each for each, number in numbered.items() if number is not None}
    at = steps[max(steps)] if steps else folder
    found = sorted(file.parent for file in at.glob("*/_METADATA"))
    if len(found) == 1:
        return found[0]
    remedy = f"Write init_from={str(found[0])!r}." if found else 'Write trial.export("model.safetensors").'
    allowed = (
        f"must hold one pytree that Orbax wrote, and {at} holds {', '.join(each.name for each in found) or 'none'}"
    )
    raise InputError("supervised.init_from", str(folder), allowed, remedy)


def _with_positions(tree: Any) -> Any:
    """Returns nested dicts in which the names "0", "1", … of a whole list are positions again, as in a state."""
    if not isinstance(tree, Mapping):
        return tree
    is_list = tree.keys() == {str(i) for i in range(len(tree))}
    return {int(name) if is_list else name: _with_positions(part) for name, part in tree.items()}


def _inexact_names(tree: Any) -> set[str]:
    """Returns the names of the arrays that hold real numbers, no counters and no keys."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(map(str, names_of(p))) for p, x in found if jnp.issubdtype(jnp.result_type(x), jnp.inexact)}


def _dotted(name: KeyPath) -> str:
    """Returns a name as files have it, which know neither positions nor where a name has a dot of its own."""
    return ".".join(map(str, name))


def _names_in(tree: Any) -> list[KeyPath]:
    return [names_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _matches(frozen: Frozen, name: str) -> bool:
    if frozen is None or callable(frozen):
        return frozen is not None and bool(frozen(name))
    patterns = [frozen] if isinstance(frozen, str) else frozen
    return any(fnmatch(name, pattern) or name.startswith(f"{pattern}/") for pattern in patterns)


def _check_names(own: Mapping[str, KeyPath], given: Collection[KeyPath]) -> None:
    for name in given:
        if _dotted(name) not in own:
            known = did_you_mean("/".join(map(str, name)), ["/".join(map(str, each)) for each in own.values()])
            known += " Parameters that are left out are drawn."
            raise InputError("supervised.init_from", "/".join(map(str, name)), "is no parameter of the model", known)


def _field(name: KeyPath) -> str:
    return f"supervised.init_from[{'/'.join(map(str, name))!r}]"


def _check_shape(field: str, given: Any, shape: tuple[int, ...], remedy: str) -> None:
    if np.shape(given) != shape:
        allowed = f"must have the shape that the program gives it, {shape}"
        raise InputError(field, np.shape(given), allowed, remedy)


def like_own(field: str, given: Any, own: Any, remedy: str) -> jax.Array:
    """Returns a given array with the dtype of the program's own, which may be a Python number; keys from their data.

    Args:
      field: what was given, for errors.
      given: an array, of keys perhaps their raw data.
      own: what the program begins with.
      remedy: what to do where shapes differ.

    Raises:
      InputError: the shapes differ.
    """
    dtype = jnp.result_type(own)
    if not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        _check_shape(field, given, np.shape(own), remedy)
        return jnp.asarray(given, dtype)
    if not jnp.issubdtype(jnp.result_type(given), jax.dtypes.prng_key):
        _check_shape(field, given, np.shape(jax.random.key_data(own)), remedy)
        given = jax.random.wrap_key_data(jnp.asarray(given), impl=jax.random.key_impl(own))
    _check_shape(field, given, np.shape(own), remedy)
    return jnp.asarray(given)


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
