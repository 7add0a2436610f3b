"""Linen modules as pure functions of (params, stats)."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import jax
from flax import core, errors, linen
from jax.sharding import PartitionSpec

from hpjax.core.axis_names import AxisNames, name_axes
from hpjax.core.errors import InputError
from hpjax.core.hparams import Hparams
from hpjax.core.remarks import remark
from hpjax.engine.state_tree import names_of
from hpjax.training.call_arguments import (
    SAYS_WHETHER_IT_TRAINS,
    TRAIN_ARGUMENTS,
    inputs_of,
    key_arguments,
    positional,
    stream_key,
    train_arguments,
)
from hpjax.training.network import Network, Outputs, Params, Stats

Build = Callable[[Hparams], linen.Module]

# The collection of what layers give.
INTERMEDIATES = "intermediates"
# The stream of random numbers that is for training alone.
DROPOUT = "dropout"


def linen_network(build: Build) -> Network:
    """Returns the network of a function of ``h`` that gives a Linen module."""
    # The streams that modules have asked for so far, each with the layer that did first: ever, and of dropout in
    # evaluations. There a plain call has none either, and a model may ask whether there is one.
    streams: dict[str, str] = {}
    evaluated: dict[str, str] = {}

    def init(key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
        call = _Call(build(h), train=False)
        boxed = call(call.module.init, key, (key, x))
        name_axes(_axis_names(boxed.get("params", {})))
        variables = dict(unboxed(boxed))
        params = variables.pop("params", {})
        training = _Call(build(h), train=True)
        whole = {"params": params, **variables}
        sown = {name for name in variables if _is_sown(training, key, whole, name, x, streams)}
        return params, {name: value for name, value in variables.items() if name not in sown}

    def apply(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> Outputs:
        call = _Call(build(h), train)
        kept = [] if train else list(stats)
        with linen.intercept_methods(_telling) if train else nullcontext():
            mutable, variables = core.DenyList(["params", *kept]), {"params": params, **stats}
            outputs, updated = _drawing(
                streams,
                key,
                lambda rngs: call(call.module.apply, key, (variables, x), rngs=rngs, mutable=mutable),
                None if train else evaluated,
            )
        if not train and DROPOUT in evaluated:
            layer = evaluated[DROPOUT]
            remark(f"{layer} draws from dropout in evaluations, too, which are random then. {SAYS_WHETHER_IT_TRAINS}")
        after = {name: unboxed(updated[name]) if name in updated else value for name, value in stats.items()}
        return Outputs(outputs, after, {name: value for name, value in updated.items() if name not in stats})

    def layers(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams) -> Any:
        call, variables = _Call(build(h), train=False), {"params": params, **stats}
        options = {"mutable": [INTERMEDIATES], "capture_intermediates": True}
        return _drawing(streams, key, lambda r: call(call.module.apply, key, (variables, x), rngs=r, **options), {})[1][
            INTERMEDIATES
        ]

    return Network(init, apply, layers=layers)


def unboxed(variables: Mapping[str, Any]) -> Any:
    """Returns variables without the boxes of ``with_partitioning`` and its like, which name the axes of a mesh."""

    def value(leaf: Any) -> Any:
        if not isinstance(leaf, core.meta.AxisMetadata):
            return leaf
        # ``unbox`` would apply the names to whatever mesh is current.
        return unboxed(leaf.value if hasattr(leaf, "value") else leaf.unbox())

    return jax.tree.map(value, variables, is_leaf=lambda leaf: isinstance(leaf, core.meta.AxisMetadata))


def _axis_names(params: Mapping[str, Any]) -> AxisNames:
    """Returns the names of axes by the paths of their parameters: logical ones by the rules that are set for them."""
    # Names of which no rule tells are those of a mesh already. Of several rules for a name the first one counts.
    rules: dict[Any, Any] = dict(reversed(tuple(linen.get_logical_axis_rules())))
    specs = linen.get_partition_spec(params)
    found = jax.tree_util.tree_leaves_with_path(specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
    return {names_of(path): tuple(rules.get(name, name) for name in spec) for path, spec in found}


def _drawing(
    names: dict[str, str],
    key: jax.Array,
    call: Callable[[dict[str, jax.Array]], Any],
    dropout: dict[str, str] | None = None,
) -> Any:
    """Returns ``call(rngs)`` with a key for each stream that the module draws from.

    A stream that gets none would draw from "params" where there is such a key, which ``nn.scan`` does not split. So
    there is one only where it is asked for. Which names these are is found out by the errors of Flax.

    Args:
      names: the streams that have been asked for, with the layers that did; grows.
      key: the key of dropout, from which those of the other streams derive.
      call: calls the module.
      dropout: likewise, for dropout alone; None where that has a key in any case.
    """
    while True:
        keys = {name: stream_key(key, name) for name in names}
        if dropout is None or dropout or "params" in names:
            keys[DROPOUT] = key
        try:
            return call(keys)
        except errors.InvalidRngError as error:
            found = re.search(r'(\S+) needs PRNG for "(.+?)"', str(error))
            if found is None or found[2] in keys:
                raise
            asked = dropout if found[2] == DROPOUT and dropout is not None else names
            asked[found[2]] = "the model itself" if found[1] == "None" else found[1]


class _Call:
    """A call of a module, with the arguments that say whether it trains.

    Attributes:
      module: the module; where its ``__call__`` has no argument for that, its own fields say it.
    """

    def __init__(self, module: linen.Module, train: bool) -> None:
        self._named = train_arguments(type(module).__call__, train)
        fields: dict[str, Any] = {
            name: on is train
            for name, on in TRAIN_ARGUMENTS.items()
            if not self._named and name in module.__dataclass_fields__ and _is_flag(getattr(module, name))
        }
        self.module = module.clone(**fields) if fields else module

    def __call__(self, method: Callable[..., Any], key: jax.Array, arguments: tuple[Any, ...], **more: Any) -> Any:
        """Calls a method of the module, such as ``apply``, that hands arguments on to the model's ``__call__``."""
        call = type(self.module).__call__
        named, inputs = self._named | key_arguments(call, key), inputs_of(call, arguments[-1])
        arguments = (*arguments[:-1], *inputs)
        if type(self.module).__module__ != linen.transforms.__name__:
            return method(*arguments, **named, **more)
        # The arguments of nn.remat and nn.jit that are no arrays are told by position.
        try:
            return method(*arguments, *positional(call, named, len(inputs)), **more)
        except (jax.errors.TracerBoolConversionError, ValueError) as error:
            if not named or (isinstance(error, ValueError) and "static_argnums" not in str(error)):
                raise
            places = {name: i for i, name in enumerate(inspect.signature(call).parameters) if name in self._named}
            raise InputError(
                "supervised.model",
                type(self.module).__name__,
                f"takes {', '.join(places)} as an array, since it is transformed, for example by nn.remat",
                f"Write nn.remat(Model, static_argnums=({', '.join(map(str, places.values()))},)), where self is 0.",
            ) from None


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_sown(
    call: _Call, key: jax.Array, variables: dict[str, Any], name: str, x: Any, streams: dict[str, str]
) -> bool:
    """Returns whether a collection is only written to: the module runs without it, where it cannot be changed."""
    rest = {other: value for other, value in variables.items() if other != name}

    def run(key: jax.Array, rest: dict[str, Any], x: Any) -> None:
        mutable = core.DenyList(["params", name])
        _drawing(streams, key, lambda rngs: call(call.module.apply, key, (rest, x), rngs=rngs, mutable=mutable))

    try:
        # By arguments: JAX never frees arrays that a function closes over if it fails while it is traced.
        jax.eval_shape(run, key, rest, x)
    except Exception:
        return False
    return True


def _telling(next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Calls a method of a layer; remarks if it is a layer that does something in training alone, and is off."""
    layer = context.module
    if context.method_name == "__call__":
        rate = getattr(layer, "rate", getattr(layer, "dropout_rate", None))
        never = isinstance(rate, int | float) and rate == 0
        for flag in ("use_running_average",) if never or rate is None else ("use_running_average", "deterministic"):
            own = getattr(layer, flag, None)
            given = kwargs.get(flag, args[1] if isinstance(layer, linen.Dropout) and len(args) > 1 else None)
            if own is True or given is True:
                remark(
                    f"{type(layer).__name__} at {'/'.join(layer.path) or 'the model itself'} has {flag}=True in "
                    f"training. {SAYS_WHETHER_IT_TRAINS}"
                )
        for flag, off in () if never else _left_off(type(layer), args, kwargs):
            remark(
                f"{type(layer).__name__} at {'/'.join(layer.path)} is called in training without {flag}, which is "
                f"{off} then. Hand it on: {flag}={flag}. {SAYS_WHETHER_IT_TRAINS}"
            )
    return next_function(*args, **kwargs)


def _left_off(layer: type, args: Any, kwargs: Any) -> Iterator[tuple[str, bool]]:
    """Yields the flags of a user's layer that a call leaves out, and whose default says that it does not train."""
    if layer.__module__.startswith("flax."):  # whose own flags are fields, too
        return
    signature = inspect.signature(layer.__call__)
    given = signature.bind_partial(None, *args, **kwargs).arguments
    for flag, on in TRAIN_ARGUMENTS.items():
        default = signature.parameters[flag].default if flag in signature.parameters else None
        if flag not in given and isinstance(default, bool) and default is not on:
            yield flag, default
