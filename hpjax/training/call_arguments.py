"""The arguments of a model's ``__call__`` besides its inputs: whether it trains, and what it draws from."""

import inspect
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from hpjax.core.errors import InputError

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
    for parameter in list(inspect.signature(call).parameters.values())[2:]:  # after self and the first input
        if _is_key(parameter):
            found[parameter.name] = jax.random.fold_in(key, ARGUMENT + len(found))
    return found


def _is_key(parameter: inspect.Parameter) -> bool:
    name, needed = parameter.name, _is_needed(parameter)
    return name == "rng" or name.endswith("_rng") or (needed and (name == "key" or name.endswith("_key")))


def _is_needed(parameter: inspect.Parameter) -> bool:
    kinds = parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD
    return parameter.default is parameter.empty and parameter.kind not in kinds


def inputs_of(call: Callable[..., Any], x: Any) -> list[Any]:
    """Returns the inputs that a model's ``call`` takes first: ``x``, or its parts where the model needs several.

    Args:
      call: the function, with self.
      x: inputs; for a model of several a tuple in their order, or a dict of their names.

    Raises:
      InputError: the model needs several inputs, and ``x`` has other parts.
    """
    parameters, others = list(inspect.signature(call).parameters.values())[1:], ("rngs", "state", *TRAIN_ARGUMENTS)
    more = [p.name for p in parameters[1:] if _is_needed(p) and not _is_key(p) and p.name not in others]
    if not more:
        return [x]
    names = [parameters[0].name, *more]
    if isinstance(x, tuple | list) and len(x) == len(names):
        return list(x)
    if isinstance(x, Mapping) and x.keys() == set(names):
        return [x[name] for name in names]
    given = f"{len(x)} arrays" if isinstance(x, tuple | list | Mapping) else "one array"
    raise InputError(
        "supervised.model",
        f"__call__({', '.join(names)})",
        f"needs {len(names)} inputs, and the x of the data is {given}",
        f"Write hpx.data.from_arrays(({', '.join(names)}), y), a tuple in this order or a dict of these names.",
    )


def positional(call: Callable[..., Any], named: dict[str, Any], inputs: int) -> list[Any]:
    """Returns arguments by name as the positional arguments of ``call`` after so many inputs.

    Raises:
      KeyError: an argument before them has no value.
    """
    parameters = list(inspect.signature(call).parameters.values())[1 + inputs :]
    last = max((i for i, parameter in enumerate(parameters) if parameter.name in named), default=-1)
    return [named[p.name] if p.name in named else _default(p) for p in parameters[: last + 1]]


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.default is parameter.empty:
        raise KeyError(parameter.name)
    return parameter.default
