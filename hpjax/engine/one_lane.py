"""What is computed of one lane apart from training, such as artifacts, on as many devices as the lane spans."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from hpjax.engine import sharding
from hpjax.engine.constants import jitted
from hpjax.engine.partition import Span, spanning
from hpjax.engine.sharding import HostCopy


def of_one_lane(function: Callable[..., Any], span: Span | None) -> Callable[..., Any]:
    """Returns a function of the arrays of one lane's state, and of more, which compiles once.

    Its first argument has for each array of the state an array, or a copy as ``DeviceLanes.copy`` gives it. Where lanes
    span devices its results are on the host, and with several hosts all must call it.

    Args:
      function: of the same arguments; returns a pytree of arrays.
      span: the devices that a lane spans, None for one. If they are in several rows of a mesh, each row computes it.
    """
    if span is None:
        compute = jitted(function)
        return lambda arrays, *more: compute([x.one[0] if isinstance(x, HostCopy) else x for x in arrays], *more)

    def own(arrays: Any, more: Any) -> Any:
        return function([span.constrained(x, spec) for x, spec in zip(arrays, span.state, strict=True)], *more)

    split, whole, mesh = sharding.SPLIT, sharding.WHOLE, span.mesh
    each_row = sharding.per_device(own, mesh, (split, whole), split, "shard_map", donates=False)
    specs = [PartitionSpec(sharding.LANES, *spec) for spec in span.state]

    def placed(x: Any, spec: PartitionSpec) -> jax.Array:
        if isinstance(x, HostCopy):
            found: jax.Array = sharding.put_copies(x, mesh, spec)
            return found
        stacked: jax.Array = sharding.put(np.broadcast_to(x, (len(mesh.devices), *np.shape(x))), mesh, spec)
        return stacked

    def compute_on_span(arrays: Any, *more: Any) -> Any:
        with spanning(span):
            found = each_row([placed(x, spec) for x, spec in zip(arrays, specs, strict=True)], more)
        return jax.tree.map(lambda copy: copy.one[0], sharding.copies(found))

    return compute_on_span
