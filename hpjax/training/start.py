"""Starting states: lanes that go on from the parameters and the optimizer's state of a trained one."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    replicates = start_from.result.lane_status.shape[1] if hasattr(start_from, "result") else 1
    if callable(start_from):
        of = annotate_errors("supervised.start_from", start_from)
        return lambda h: _trained(of(h))
    state: Mapping[str, Any] = jax.tree.map(jnp.asarray, _trained(start_from))  # on the device once

    def of_trial(h: Hparams) -> Mapping[str, Any]:
        if replicates > 1:
            remark(f"start_from has {replicates} replicates: all lanes begin with the state of the first.")
        if "stopping" in state:
            remark("start_from kept its best parameters, and the state of the optimizer is that of its last step.")
        return state

    return of_trial


def _trained(given: Any) -> Mapping[str, Any]:
    """Returns the state of a trial, or what ``restore()`` gave of one, as nested dicts.

    Raises:
      InputError: it is neither.
    """
    if hasattr(given, "restore") and callable(given.restore):
        given = given.restore()
    # The state of an optimizer that has none, such as plain SGD, is left out of what a trial restores.
    if isinstance(given, Mapping) and "params" in given:
        return given
    allowed = "must be a trial, or what its restore() gave: a dict with params and opt_state"
    remedy = "Write start_from=result.best. For parameters alone write init_from=params."
    raise InputError("supervised.start_from", type(given).__name__, allowed, remedy)


def started(
    state: TrainingState,
    given: Mapping[str, Any],
    frozen: Mapping[KeyPath, Any],
    field: str = "supervised.start_from",
) -> TrainingState:
    """Returns a state with the parameters, statistics, optimizer's state and average of a trained one.

    What ``optax.inject_hyperparams`` holds as hyperparameters stays that of ``state``: those belong to the trial. An
    average that the given state lacks begins at its parameters, as averages do.

    Args:
      state: as the program begins.
      given: nested dicts with ``params``, ``opt_state`` and perhaps the other parts; arrays may be traced.
      frozen: the parameters that a state does not have, by their names.
      field: the argument that gave it, for errors.

    Raises:
      InputError: the state has arrays that the given one lacks, or of other shapes, or the given one has more.
    """
    found = {part: _arrays(given.get(part)) for part in PARTS}
    if found["average"] and state.average is None:
        remark(f"{field} has an average of the parameters, and the program none: it is left out.")
        found["average"] = {}
    if not found["average"] and state.average is not None:
        found["average"] = found["params"]
    injected = _injected(state.opt_state)

    def where(part: str, name: KeyPath) -> str:
        return f"{field}[{'/'.join(map(str, (part, *name)))!r}]"

    def begun(part: str, tree: Any) -> Any:
        arrays = found[part]
        own = {names_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
        passed = injected if part == "opt_state" else set()
        fixed = frozen if part in ("params", "average") else {}
        for name, array in arrays.items():
            if name in fixed:
                _check_frozen(where(part, name), array, fixed[name])
            elif name not in own and name not in passed:
                raise _differs(field, part, name, "is no array of the program's state")

        def of(path: Any, value: Any) -> Any:
            name = names_of(path)
            if not is_array(value) or name in passed:
                return value
            if name not in arrays:
                raise _differs(field, part, name, "is missing in it")
            return like_own(where(part, name), arrays[name], value, "Start from a state of this model and optimizer.")

        return jax.tree_util.tree_map_with_path(of, tree)

    return state._replace(**{part: begun(part, getattr(state, part)) for part in PARTS})


def _arrays(tree: Any) -> dict[KeyPath, Any]:
    return {names_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if is_array(leaf)}


def _injected(opt_state: Any) -> set[KeyPath]:
    """Returns the names of the hyperparameters in the states of ``optax.inject_hyperparams``."""

    def holds(part: Any) -> bool:
        return hasattr(part, "hyperparams") and hasattr(part, "inner_state")

    parts = [
        (names_of(path), part)
        for path, part in jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=holds)
        if holds(part)
    ]
    found = {(*prefix, "hyperparams", *name) for prefix, part in parts for name in _arrays(part.hyperparams)}
    inner = {(*prefix, "inner_state", *name) for prefix, part in parts for name in _injected(part.inner_state)}
    return found | inner


def _check_frozen(field: str, given: Any, own: Any) -> None:
    """Raises ``InputError`` where a frozen parameter of the start, if its numbers are known, is not the program's."""
    if not isinstance(given, jax.core.Tracer) and not np.array_equal(np.asarray(given), np.asarray(own)):
        allowed = "is another one than the frozen parameter that init_from gives"
        raise InputError(field, f"of shape {np.shape(given)}", allowed, "Write init_from= with the trial, too.")


def _differs(field: str, part: str, name: KeyPath, how: str) -> InputError:
    remedy = "Start from a state of the same model and optimizer; for its parameters alone write init_from=."
    if part == "opt_state" and name[-1:] == ("count",):
        remedy = (
            "A schedule counts steps, and a constant rate does not. Train the start with "
            "optax.constant_schedule(rate): what goes on from it may have any other schedule."
        )
    return InputError(field, "/".join(map(str, (part, *name))), how, remedy)
