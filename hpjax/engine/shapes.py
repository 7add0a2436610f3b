"""What a program carries, as shapes and dtypes; its state with and without typed keys."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.bounds import Check
from hpjax.core.program import State
from hpjax.engine.flops import Work


class Lane(NamedTuple):
    """What a lane carries from step to step; the engine's arrays hold many, along leading axes.

    Attributes:
      state: the program's state, typed PRNG keys as their raw data.
      totals: the sum of each train metric since the last evaluation, ().
      counted: steps in ``totals``, int32 ().
      step: optimizer steps taken, int32 ().
      diverged: the number of the first step, from 1, that gave a value that is not finite, or after which an evaluation
        found one among metrics or parameters, else ``HEALTHY``; int32 ().
    """

    state: State
    totals: dict[str, jax.Array]
    counted: jax.Array
    step: jax.Array
    diverged: jax.Array


class ProgramShapes(NamedTuple):
    """What a program gives, as shapes and dtypes.

    Attributes:
      state: of its state.
      keys: for each leaf of the state that is a typed PRNG key its generator, else None.
      train, valid: names of the metrics of ``step`` and ``evaluate``.
      parameters: how many numbers its parameters are.
      reads: the hyperparameters that it makes use of.
      lapack: whether it decomposes matrices, which on a CPU is LAPACK's work.
      windows: whether it has convolutions or pooling, for which there are other kernels.
      checks: per traced hyperparameter what its numbers must be, as the code that uses it says.
      step, evaluation: what these compute.
      fingerprint: of all that it computes; equal ones are as fast.
    """

    state: State
    keys: tuple[Hashable, ...]
    train: tuple[str, ...]
    valid: tuple[str, ...]
    parameters: int
    reads: frozenset[str]
    checks: tuple[tuple[str, Check], ...]
    lapack: bool
    windows: bool
    step: Work
    evaluation: Work
    fingerprint: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names under which the metrics are reported."""
        return (*(f"train/{name}" for name in self.train), *(f"valid/{name}" for name in self.valid))

    @property
    def compile_seconds(self) -> float:
        """What compiling the program takes, to an order of magnitude."""
        return 1.0 + 0.004 * (self.step.equations + self.evaluation.equations)

    @property
    def lane_bytes(self) -> int:
        """Size of one lane's state."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(unwrap_keys(self.state)))


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def unwrap_keys(state: State) -> State:
    """``state`` with typed PRNG keys as plain arrays, which can be stored, gathered and compared."""
    if not any(_is_key(x) for x in jax.tree.leaves(state)):
        return state
    convert = jax.random.key_data
    return jax.tree.map(
        lambda x: (
            (jax.eval_shape(convert, x) if isinstance(x, jax.ShapeDtypeStruct) else convert(x)) if _is_key(x) else x
        ),
        state,
    )


def wrap_keys(state: State, shapes: ProgramShapes) -> State:
    """The inverse of ``unwrap_keys``."""
    if not any(shapes.keys):
        return state
    leaves, tree = jax.tree.flatten(state)
    return jax.tree.unflatten(
        tree,
        [
            x if key is None else jax.random.wrap_key_data(x, impl=key)
            for x, key in zip(leaves, shapes.keys, strict=True)
        ],
    )


def state_from_leaves(leaves: Sequence[Any], shapes: ProgramShapes) -> State:
    """The state whose raw leaves these are."""
    return wrap_keys(jax.tree.unflatten(jax.tree.structure(shapes.state), leaves), shapes)


def float_type() -> Any:
    """The dtype of metrics and of traced real hyperparameters: float32, or float64 under ``jax_enable_x64``."""
    return jnp.result_type(float)


def as_array(value: Any) -> jax.Array:
    """A leaf of the user's state as an array: Python numbers become arrays of JAX's default types."""
    return value if isinstance(value, jax.Array) else jnp.asarray(value)


def lane_shapes(shapes: ProgramShapes) -> Lane:
    """The shapes of a ``Lane`` of the program."""
    number: Any
    whole: Any
    number, whole = jax.ShapeDtypeStruct((), float_type()), jax.ShapeDtypeStruct((), jnp.int32)
    return Lane(unwrap_keys(shapes.state), dict.fromkeys(shapes.train, number), whole, whole, whole)
