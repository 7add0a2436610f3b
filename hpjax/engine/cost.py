"""What one program for all values costs, against a program for each: arithmetic against compilations."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hpjax.engine.lane import as_array
from hpjax.engine.trace import Tracer
from hpjax.hparams import Hparams
from hpjax.space import Point

# Enough to see through XLA: in a single lane a selection would run one branch, in several it runs all.
LANES = 2
# Distinct values whose programs are counted; of more, as many spread over them.
MOST = 3
# For the verdict which way is cheaper, to an order of magnitude: what small models reach, and what compiling one takes.
FLOPS_A_SECOND = {"cpu": 5e9}
ACCELERATOR_FLOPS_A_SECOND = 1e12
COMPILE_SECONDS = 3.0


def step_flops(tracer: Tracer, point: Point, traced: Sequence[str]) -> float:
    """Arithmetic of one step of one lane, as XLA counts it in the program before it compiles it; nothing compiles."""
    h = tracer.hparams(point, traced)
    key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
    state = jax.eval_shape(lambda key, h: jax.tree.map(as_array, tracer.program.init(key, h)), key, h)

    def step(key: jax.Array, state: Any, h: Hparams, train: Any) -> Any:
        batch = tracer.program.batch(key, jnp.int32(0), train, h)
        return tracer.program.step(key, state, batch, h)[0]

    def lanes(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((LANES, *x.shape), x.dtype), tree)

    many = jax.jit(jax.vmap(step, in_axes=(None, 0, 0, None)))
    counted: Any = many.lower(key, lanes(state), lanes(h), tracer.train).cost_analysis()
    return float(counted["flops"]) / LANES


def compare(
    tracer: Tracer,
    points: Sequence[Point],
    traced: Sequence[str],
    name: str,
    lane_steps: int,
    platform: str,
    together: float,
) -> str:
    """What tracing ``name`` costs against a group for each of its values, and which is cheaper, as a clause.

    Args:
      tracer: what abstract tracing needs to know.
      points: of the trials of one group.
      traced: the traced hyperparameters, ``name`` among them.
      name: one that is traced by selection or by a mask.
      lane_steps: steps of all these trials together.
      platform: of the devices.
      together: arithmetic of a step where all of ``traced`` are.
    """
    values = sorted({point[name] for point in points}, key=_order)
    many = len(values)
    spread = values if many <= MOST else [values[round(i * (many - 1) / (MOST - 1))] for i in range(MOST)]
    others = [other for other in traced if other != name]
    apart = sum(step_flops(tracer, points[0] | {name: value}, others) for value in spread) / len(spread)
    if not (together > 0 and apart > 0) or many == 1:
        return ""
    speed = FLOPS_A_SECOND.get(platform, ACCELERATOR_FLOPS_A_SECOND)
    cheaper = (together - apart) * lane_steps / speed <= COMPILE_SECONDS * (many - 1)
    advice = "cheaper here" if cheaper else "static=True would be cheaper here"
    return f"{together / apart:.2g} × the arithmetic of {many} groups, in 1 program for {many}: {advice}"


def _order(value: Any) -> Any:
    return value if isinstance(value, int | float) else getattr(value, "__qualname__", repr(value))
