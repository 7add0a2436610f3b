"""The arguments of a model's ``__call__`` besides its inputs: whether it trains, and what it draws from."""

import inspect
import zlib
from collections.abc import Callable
from typing import Any

import jax

# The names that Flax models give to the argument that tells training from evaluation; its value in training.
TRAIN_ARGUMENTS = dict.fromkeys(
    (
        *("train", "training", "is_train", "is_training", "in_training", "train_mode", "training_mode"),
        *("stochastic", "enable_dropout", "use_dropout", "apply_dropout", "do_dropout"),
    ),
    True,
) | dict.fromkeys(
    (
        *("deterministic", "use_running_average", "inference", "eval", "is_eval", "evaluation", "evaluate"),
        *("eval_mode", "is_evaluation", "test", "is_test", "testing", "disable_dropout"),
    ),
    False,
)

SAYS_WHETHER_IT_TRAINS = (
    f"The argument of the model's __call__ that says whether it trains must be one of {', '.join(TRAIN_ARGUMENTS)}."
)

# Folded into the key of a call for a model that takes a key as an argument of its own.
ARGUMENT = 4


def stream_key(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of a stream of random numbers of that name, besides dropout, which has the key itself."""
    return jax.random.fold_in(key, 1 if name == "params" else zlib.crc32(name.encode()))


def train_arguments(call: Callable[..., Any], train: bool) -> dict[str, bool]:
    """Returns the arguments of ``call`` that tell training from evaluation, by name."""
    names = inspect.signature(call).parameters
    return {name: on is train for name, on in TRAIN_ARGUMENTS.items() if name in names}


def key_arguments(call: Callable[..., Any], key: jax.Array) -> dict[str, jax.Array]:
    """Returns the arguments of ``call`` that are PRNG keys, by name: ``rng``, ``z_rng``, or ``key`` if it is needed."""
    found: dict[str, jax.Array] = {}
    for name, parameter in list(inspect.signature(call).parameters.items())[2:]:  # after self and the inputs
        needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if name == "rng" or name.endswith("_rng") or (needed and (name == "key" or name.endswith("_key"))):
            found[name] = jax.random.fold_in(key, ARGUMENT + len(found))
    return found


def positional(call: Callable[..., Any], named: dict[str, Any]) -> list[Any]:
    """Returns arguments by name as the positional arguments of ``call`` after the inputs.

    Raises:
      KeyError: an argument before them has no value.
    """
    parameters = list(inspect.signature(call).parameters.values())[2:]
    last = max((i for i, parameter in enumerate(parameters) if parameter.name in named), default=-1)
    return [named[p.name] if p.name in named else _default(p) for p in parameters[: last + 1]]


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.default is parameter.empty:
        raise KeyError(parameter.name)
    return parameter.default
