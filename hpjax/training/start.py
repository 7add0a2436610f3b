"""Starting states: lanes that go on from the parameters and the optimizer's state of a trained one."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.core.errors import InputError, annotate_errors
from hpjax.core.hparams import Hparams
from hpjax.core.remarks import remark
from hpjax.engine.state_tree import KeyPath, is_array, names_of
from hpjax.training.initial import like_own
from hpjax.training.state import TrainingState

# The parts of a state that a lane goes on from; the others belong to a run, such as what early stopping remembers.
PARTS = ("params", "stats", "opt_state", "average")


def start_of(start_from: Any) -> Callable[[Hparams], Mapping[str, Any]] | None:
    """Returns the state to go on from, nested dicts, as a function of ``h``; None where none is given.

    Raises:
      InputError: no state was given, or no function of ``h``.
    """
    if start_from is None:
        return None
    if callable(start_from):
        of = annotate_errors("supervised.start_from", start_from)
        return lambda h: _trained(of(h))
    state = jax.tree.map(jnp.asarray, _trained(start_from))  # on the device once
    return lambda h: state


def _trained(given: Any) -> Mapping[str, Any]:
    """Returns the state of a trial, or what ``restore()`` gave of one, as nested dicts.

    Raises:
      InputError: it is neither.
    """
    if hasattr(given, "restore") and callable(given.restore):
        given = given.restore()
    if isinstance(given, Mapping) and {"params", "opt_state"} <= set(given):
        return given
    allowed = "must be a trial, or what its restore() gave: parameters and the state of an optimizer"
    remedy = "Write start_from=result.best. For parameters alone write init_from=params."
    raise InputError("supervised.start_from", type(given).__name__, allowed, remedy)


def started(state: TrainingState, given: Mapping[str, Any], frozen: Collection[KeyPath]) -> TrainingState:
    """Returns a state with the parameters, statistics, optimizer's state and average of a trained one.

    What ``optax.inject_hyperparams`` holds as hyperparameters stays that of ``state``: those belong to the trial. An
    average that the given state lacks begins at its parameters, as averages do.

    Args:
      state: as the program begins.
      given: nested dicts with ``params``, ``opt_state`` and perhaps the other parts; arrays may be traced.
      frozen: the names of parameters that a state does not have.

    Raises:
      InputError: the state has arrays that the given one lacks, or of other shapes, or the given one has more.
    """
    found = {part: _arrays(given.get(part)) for part in PARTS}
    if found["average"] and state.average is None:
        remark("start_from has an average of the parameters, and the program none: it is left out.")
        found["average"] = {}
    if not found["average"] and state.average is not None:
        found["average"] = found["params"]

    def begun(part: str, tree: Any) -> Any:
        arrays = found[part]
        own = {names_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
        fixed = frozen if part in ("params", "average") else ()
        for name in arrays:
            if name not in own and name not in fixed and not _injected(part, name):
                raise _differs(part, name, "is no array of the program's state")

        def of(path: Any, value: Any) -> Any:
            name = names_of(path)
            if not is_array(value) or _injected(part, name):
                return value
            if name not in arrays:
                raise _differs(part, name, "is missing in it")
            return like_own(_field(part, name), arrays[name], value, "Start from a state of this model and optimizer.")

        return jax.tree_util.tree_map_with_path(of, tree)

    return state._replace(**{part: begun(part, getattr(state, part)) for part in PARTS})


def _arrays(tree: Any) -> dict[KeyPath, Any]:
    return {names_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if is_array(leaf)}


def _injected(part: str, name: KeyPath) -> bool:
    """Returns whether an array is a hyperparameter in the state of ``optax.inject_hyperparams``."""
    return part == "opt_state" and "hyperparams" in name


def _field(part: str, name: KeyPath) -> str:
    return f"supervised.start_from[{'/'.join(map(str, (part, *name)))!r}]"


def _differs(part: str, name: KeyPath, how: str) -> InputError:
    remedy = "Start from a state of the same model and optimizer; for its parameters alone write init_from=."
    return InputError("supervised.start_from", "/".join(map(str, (part, *name))), how, remedy)
