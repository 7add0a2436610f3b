"""Artifacts of supervised programs: the user's function, which takes by name what it needs of an evaluation."""

from collections.abc import Callable
from typing import Any

import jax

from hpjax.core.format import show
from hpjax.core.hparams import Hparams
from hpjax.core.threefry import fast, plain
from hpjax.data.examples import named_sets
from hpjax.training.arguments import named_arguments
from hpjax.training.evaluation import outputs_in_parts, own_rows
from hpjax.training.network import Network
from hpjax.training.state import TrainingState

# What the function may take.
TAKES = ("params", "stats", "x", "y", "outputs", "key", "h")
# Folded into the key of an evaluation's artifacts for the function, as for losses; the model has the key itself.
OWN = 0


def supervised_artifacts(net: Network, function: Callable[..., Any], batch_size: int) -> Callable[..., Any]:
    """Returns ``Program.artifacts`` of a supervised program.

    Args:
      net: the model.
      function: takes some of ``TAKES`` by name, and returns a dict of name to array.
      batch_size: the most examples of which outputs are computed at once.

    Raises:
      InputError: it is no function, or needs an argument of another name.
    """
    names = named_arguments("supervised.artifacts", function, TAKES)

    def artifacts(key: jax.Array, state: TrainingState, split: Any, h: Hparams) -> Any:
        key, (params, stats) = fast(key), state.evaluated

        forward = net.forward_part(key, params, stats, h)
        sets = {name: own_rows(examples, h) for name, examples in named_sets(split).items()}
        given = {
            "params": net.whole(params),
            "stats": stats,
            "x": {name: examples.x for name, examples in sets.items()},
            "y": {name: examples.y for name, examples in sets.items()},
            "key": plain(jax.random.fold_in(key, OWN)),
            "h": h,
        }
        if "outputs" in names:
            given["outputs"] = {name: outputs_in_parts(forward, x, batch_size) for name, x in given["x"].items()}
        for name in {"x", "y", "outputs"} & given.keys():
            given[name] = given[name].get("", given[name])  # a single set has no name
        return function(**{name: given[name] for name in names})

    artifacts.__name__ = artifacts.__qualname__ = show(function)
    return artifacts
