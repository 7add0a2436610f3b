"""NNX modules as pure functions of (params, stats)."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
from flax import nnx
from jax.sharding import PartitionSpec

from hpjax.core.axis_names import AxisNames, name_axes
from hpjax.core.hparams import Hparams
from hpjax.core.remarks import remark
from hpjax.engine.state_tree import names_of
from hpjax.training.call_arguments import SAYS_WHETHER_IT_TRAINS, inputs_of, key_arguments, stream_key, train_arguments
from hpjax.training.network import Network, Outputs, Params, Stats


def nnx_network(build: Callable[[Hparams, Any], Any]) -> Network:
    """Returns the network of a function of ``h`` and ``rngs`` that gives an NNX module."""

    def module(key: jax.Array, h: Hparams) -> Any:
        # Sharding metadata names the axes of a mesh, which is none that is current here.
        with nnx.use_eager_sharding(False):  # type: ignore[no-untyped-call]
            return build(h, nnx.Rngs(key))

    def init(key: jax.Array, x: Any, h: Hparams) -> tuple[Params, Stats]:
        built = module(key, h)
        name_axes(_axis_names(built))
        return _parts(built)

    def trained(key: jax.Array, params: Params, stats: Stats, h: Hparams) -> Any:
        # Built at every call, since traced hyperparameters may be attributes of the module. Its fresh parameters are
        # overwritten here, so that XLA drops their initialization.
        built = module(key, h)
        nnx.update(built, params)
        nnx.update(built, stats)
        return built

    def apply(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams, train: bool) -> Outputs:
        built = trained(key, params, stats, h)
        if train:
            built.train()
        else:
            built.eval()
        # A module may make streams of its own, nnx.Rngs(dropout=0), which would repeat their numbers at each step.
        tags = {node.tag for _, node in nnx.iter_graph(built) if isinstance(node, nnx.RngStream)}
        keys: dict[str, Any] = {tag: stream_key(key, tag) for tag in sorted(tags - {"default"})}
        nnx.reseed(built, default=key, **keys)
        call = type(built).__call__
        arguments: dict[str, Any] = {**train_arguments(call, train), **key_arguments(call, key)}
        if "rngs" in inspect.signature(call).parameters:
            arguments["rngs"] = nnx.Rngs(key)
        before, means = _draws(built), _means(built)
        with nnx.use_eager_sharding(False), _sowing():  # type: ignore[no-untyped-call]
            outputs = built(*inputs_of(call, x), **arguments)
        for layer, (path, count) in _draws(built).items():
            # A layer that draws counts it, in a new array.
            drew = count is not before[layer][1]
            if train and "rngs" not in arguments and not drew:
                remark(f"{path} draws nothing in training. {SAYS_WHETHER_IT_TRAINS}")
            if drew and not train:
                remark(f"{path} draws in evaluations, too, which are random then. {SAYS_WHETHER_IT_TRAINS}")
        for path, mean in _means(built).items():
            if not train and mean is not means[path]:
                told = f"nnx.BatchNorm at {path} takes the statistics of the batch in evaluations, too"
                remark(f"{told}. {SAYS_WHETHER_IT_TRAINS}")
        return Outputs(outputs, *_stats_and_sown(built, stats))

    def layers(key: jax.Array, params: Params, stats: Stats, x: Any, h: Hparams) -> Any:
        built = trained(key, params, stats, h)
        built.eval()
        call = type(built).__call__
        arguments = {**train_arguments(call, False), **key_arguments(call, key)}
        with nnx.use_eager_sharding(False):  # type: ignore[no-untyped-call]
            capture: Any = nnx.capture
            captured = capture(built, nnx.Intermediate, method_outputs=nnx.Intermediate)
            return nnx.to_pure_dict(captured(*inputs_of(call, x), **arguments)[1])

    return Network(init, apply, layers=layers)


def _axis_names(built: Any) -> AxisNames:
    """Returns the names of axes by the paths of their parameters."""
    specs = nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(built, nnx.Param)))
    found = jax.tree_util.tree_leaves_with_path(specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
    return {names_of(path): tuple(spec) for path, spec in found}


def _parts(built: Any) -> tuple[Params, Stats]:
    """Returns the parameters and the other variables of a module, as nested dicts of arrays."""
    params, _, stats = nnx.state(built, nnx.Param, nnx.RngState, ...)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def _stats_and_sown(built: Any, before: Stats) -> tuple[Stats, dict[str, Any]]:
    """Returns the variables that a module had before its call, and those that it sowed, by the names of their types."""
    _, _, stats, sown = nnx.state(built, nnx.Param, nnx.RngState, lambda path, _: _holds(before, path), ...)
    kinds = dict.fromkeys(type(variable) for _, variable in nnx.to_flat_state(sown))
    by_kind = {kind: nnx.filter_state(sown, lambda _, v, kind=kind: type(v) is kind) for kind in kinds}
    named = {nnx.variable_name_from_type(kind): nnx.to_pure_dict(state) for kind, state in by_kind.items()}
    return nnx.to_pure_dict(stats), named


def _holds(tree: Any, path: tuple[Any, ...]) -> bool:
    """Returns whether nested dicts hold something at a path."""
    return not path or (isinstance(tree, Mapping) and path[0] in tree and _holds(tree[path[0]], path[1:]))


@contextmanager
def _sowing() -> Iterator[None]:
    """Silences the advice that ``sow`` be called within ``nnx.capture``: what a model sows is read from it here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Using 'Module.sow\(\)' outside", DeprecationWarning)
        yield


def _means(built: Any) -> dict[str, Any]:
    """Returns the running mean of each batch normalization, by its path; a layer that updates it sets a new array."""
    layers = [(path, layer) for path, layer in nnx.iter_modules(built) if isinstance(layer, nnx.BatchNorm)]
    return {"/".join(map(str, path)): layer.mean.get_value() for path, layer in layers}


def _draws(built: Any) -> dict[int, tuple[str, Any]]:
    """Returns for each layer with dropout its name with its path, and how often its stream was drawn from.

    A layer whose rate is 0 is none of them.
    """
    found = {}
    for path, layer in nnx.iter_modules(built):
        rate, stream = getattr(layer, "rate", getattr(layer, "dropout_rate", 0)), getattr(layer, "rngs", None)
        if isinstance(stream, nnx.RngStream) and (not isinstance(rate, int | float) or rate > 0):
            name = "nnx.Dropout" if isinstance(layer, nnx.Dropout) else type(layer).__name__
            found[id(layer)] = (f"{name} at {'/'.join(map(str, path))}", stream.count.get_value())
    return found
