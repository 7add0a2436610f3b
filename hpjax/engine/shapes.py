"""The shapes and dtypes of a program's values, and the arrays of its state with and without typed PRNG keys."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.bounds import Check
from hpjax.engine.flops import Work
from hpjax.engine.state_tree import KeyPath, StateTree, is_key


class Lane(NamedTuple):
    """The state of one lane between steps. The engine's arrays hold many lanes, along leading axes.

    Attributes:
      state: the arrays of the program's state (see ``state_tree``), with typed PRNG keys as their raw data.
      totals: the sum of each train metric since the last evaluation, ().
      counted: how many steps are in ``totals``, int32 ().
      step: how many calls of ``Program.step`` were made, int32 ().
      diverged: the number, from 1, of the first step that gave a metric that is not finite, or after which an
        evaluation found such a value among metrics or parameters; else ``HEALTHY``. int32 ().
    """

    state: tuple[jax.Array, ...]
    totals: dict[str, jax.Array]
    counted: jax.Array
    step: jax.Array
    diverged: jax.Array


class ProgramShapes(NamedTuple):
    """What abstract tracing finds out about a program.

    Attributes:
      state: ``ShapeDtypeStruct``s of the arrays of the state.
      names: the names along the path to each of these arrays.
      trained: for each array of the state whether it is one of the parameters.
      axes: for each array of the state the names of its axes, where the model names them; else none.
      keys: for each array of the state that is a typed PRNG key its generator, else None.
      zeros: for each array of the state whether it is all zeros at first.
      tree: the structure of the state without its arrays; None where ``init`` must make it anew in each trace, because
        functions in it may close over the values of hyperparameters.
      train, inspected, valid: the names of the metrics that ``step``, ``inspect`` and ``evaluate`` return, sorted.
      parameters: how many numbers the parameters are.
      reads: the hyperparameters that the program uses.
      lapack: whether it decomposes matrices, which LAPACK does on a CPU.
      draws: whether it draws random numbers by itself, with keys of JAX's own.
      coarsest: the distance from 1 to the next number in the least precise floating-point type that it computes in.
      windows: whether it has convolutions or pooling, for which ``conv_kernels`` has other kernels.
      thin_sums: whether it has sums for which ``thin_sums`` has another kernel.
      checks: pairs of a traced hyperparameter's name and a condition on its values, from the code that uses it.
      step, evaluation: how much these compute.
      uncertain: what in it may fail for many lanes on several devices, by name; the plan then has to try.
      moves: whether it may move examples within a batch; the plan of lanes that span devices has to try.
      constant_bytes: bytes of the large arrays that it closes over, which all lanes share.
      remarks: what code noticed while it was traced, for the hints of the plan.
      operations: a digest of its operations; programs with equal ones may differ in sizes and constants only.
      fingerprint: a digest of the traced program; programs with equal ones run equally fast.
      leaks: whether code may have kept an array that it computed while it was traced: only another trace can tell.
    """

    state: tuple[jax.ShapeDtypeStruct, ...]
    names: tuple[KeyPath, ...]
    trained: tuple[bool, ...]
    axes: tuple[tuple[Any, ...], ...]
    keys: tuple[Hashable, ...]
    zeros: tuple[bool, ...]
    tree: StateTree | None
    train: tuple[str, ...]
    inspected: tuple[str, ...]
    valid: tuple[str, ...]
    parameters: int
    reads: frozenset[str]
    checks: tuple[tuple[str, Check], ...]
    lapack: bool
    draws: bool
    coarsest: float
    windows: bool
    thin_sums: bool
    uncertain: tuple[str, ...]
    moves: bool
    step: Work
    evaluation: Work
    constant_bytes: int
    remarks: tuple[str, ...]
    operations: str
    fingerprint: str
    leaks: bool

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names under which the metrics are reported."""
        return (*(f"train/{name}" for name in self.train + self.inspected), *(f"valid/{name}" for name in self.valid))

    @property
    def compile_seconds(self) -> float:
        """The seconds between plan and training, to a factor of about two on the core of ``Work.seconds``.

        In them the step is traced and compiled. What makes first states compiles beside it, on another core, and what
        evaluates while the program trains, so neither adds to them.
        """
        # Fitted to what first runs of experiments/benchmarks waited, the rows "to compile" of its table.
        return 0.8 + 0.0012 * self.step.equations

    @property
    def lane_bytes(self) -> int:
        """The bytes of one lane's state."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in unwrap_keys(self.state))


def unwrap_keys(arrays: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the arrays of a state with typed PRNG keys as plain arrays, which can be stored and compared."""
    convert = jax.random.key_data

    def plain(x: Any) -> Any:
        return jax.eval_shape(convert, x) if isinstance(x, jax.ShapeDtypeStruct) else convert(x)

    return tuple(plain(x) if is_key(x) else x for x in arrays)


def wrap_keys(arrays: Sequence[Any], shapes: ProgramShapes) -> tuple[Any, ...]:
    """Returns the arrays of a state with plain arrays as typed PRNG keys again: the inverse of ``unwrap_keys``."""
    return tuple(
        x if key is None else jax.random.wrap_key_data(x, impl=key) for x, key in zip(arrays, shapes.keys, strict=True)
    )


def float_type() -> Any:
    """Returns the dtype of metrics and of traced real hyperparameters: float32, or float64 under ``jax_enable_x64``."""
    return jnp.result_type(float)


def lane_shapes(shapes: ProgramShapes) -> Lane:
    """Returns the ``ShapeDtypeStruct``s of a ``Lane`` of the program."""
    number: Any
    integer: Any
    number, integer = jax.ShapeDtypeStruct((), float_type()), jax.ShapeDtypeStruct((), jnp.int32)
    return Lane(unwrap_keys(shapes.state), dict.fromkeys(shapes.train, number), integer, integer, integer)
