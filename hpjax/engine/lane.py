"""One lane: the life of one replicate of one trial, as pure functions that ``vmap`` widens."""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hpjax.core.bounds import Check, collecting
from hpjax.core.errors import ProgramError, naming
from hpjax.core.hashing import digest, without_addresses
from hpjax.core.hparams import Hparams, reading
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.core.program import Arrays, Metrics, Program, State
from hpjax.engine.lower import has_windows, lowered
from hpjax.engine.work import Work, mark, parts

HEALTHY = -1

# In place of a name where what is checked is computed from hyperparameters.
DERIVED = ""

# As they are called where a program is printed.
DECOMPOSITIONS = ("geqrf", "qr", "householder_product", "eigh", "eig", "svd", "schur", "lu", "cholesky")


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


class Evaluation(NamedTuple):
    """What an evaluation finds.

    Attributes:
      metrics: by the names under which they are reported; train ones averaged since the last evaluation.
      done: bool, whether the program calls its trial complete.
    """

    metrics: dict[str, Any]
    done: Any


class Shapes(NamedTuple):
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
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(raw(self.state)))


def probe(program: Program, h: Hparams, train: Arrays, valid: Arrays) -> Shapes:
    """Traces a whole life abstractly, nothing compiles; ``h`` and the splits may be shapes.

    Raises:
      ProgramError: what the program gives cannot be carried: its ``step`` changes the state's type, or a
        metric is no scalar. Whatever the user's functions raise passes through.
    """

    generators: list[Hashable] = []
    read: set[str] = set()
    checks: list[tuple[str, Check]] = []

    def watched(h: Hparams, train: Arrays, valid: Arrays) -> Any:
        with reading() as names, collecting() as found:
            state, *metrics = life(program, h, train, valid)
        read.update(names)
        generators[:] = map(_generator, jax.tree.leaves(state))
        for check in found:
            mine = [name for name in h if h[name] is check.value]
            # Of a value that the program computes from hyperparameters, the plan only knows that it must be checked.
            checks.extend((name, check) for name in mine or [DERIVED] if isinstance(check.value, jax.core.Tracer))
        return state, *metrics, program.parameters(state)

    traced, (state, emitted, evaluated, parameters) = jax.make_jaxpr(watched, return_shape=True)(h, train, valid)
    used = {id(v) for equation in traced.jaxpr.eqns for v in equation.invars} | {id(v) for v in traced.jaxpr.outvars}
    tracers = [path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(h)]
    names = {name for name, v in zip(tracers, traced.jaxpr.invars, strict=False) if id(v) in used}
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    text = str(traced.jaxpr)
    _, step, evaluation = parts(traced.jaxpr)
    return Shapes(
        state,
        tuple(generators),
        tuple(sorted(emitted)),
        tuple(sorted(evaluated)),
        count,
        # A traced one is read where the program uses its value, a static one where the user's code asks for it.
        frozenset(names | read.difference(tracers)),
        tuple(dict.fromkeys((name, check._replace(value=None)) for name, check in checks)),
        re.search(rf"= ({'|'.join(DECOMPOSITIONS)})\b", text) is not None,
        has_windows(traced),
        step,
        evaluation,
        digest(without_addresses(text)),
    )


def life(program: Program, h: Hparams, train: Arrays, valid: Arrays) -> tuple[State, Metrics, Metrics]:
    """Every function of a program, one after the other: its first state, and the metrics of a step and an evaluation.

    Raises:
      ProgramError: as ``probe``.
    """
    key = lane_key(0, 0)
    state = jax.tree.map(as_array, naming("Program.init", program.init)(key, h))
    if any("rbg" in str(_generator(leaf)) for leaf in jax.tree.leaves(state)):
        raise ProgramError(
            "the state holds an rbg key, and under vmap its numbers would depend on the neighbours. "
            "Use threefry2x32 keys."
        )
    mark()
    batch = naming("Program.batch", program.batch)(key, jnp.int32(0), train, h)
    after = naming("Program.step", program.step)(key, state, batch, h)
    if not (isinstance(after, tuple) and len(after) == 2):
        raise ProgramError(f"Program.step must return (state, metrics), got {type(after).__name__}.")
    moved = jax.tree.map(as_array, after[0])
    _same_type("step", state, moved)
    mark()
    emitted = _scalars("step", after[1])
    evaluated = _scalars("evaluate", naming("Program.evaluate", program.evaluate)(key, moved, valid, h))
    reacted = _reacted(moved, naming("Program.react", program.react)(moved, _reported(emitted, evaluated), h))
    finished = naming("Program.finish", program.finish)(reacted, h)
    _same_type("finish", moved, jax.tree.map(as_array, finished))
    return state, emitted, evaluated


def _generator(leaf: Any) -> Hashable:
    """Of a typed PRNG key its generator."""
    return jax.random.key_impl(leaf) if _is_key(leaf) else None


def _reacted(before: State, reaction: Any) -> State:
    """The state after a reaction, which is what it must be."""
    if not (isinstance(reaction, tuple) and len(reaction) == 2):
        raise ProgramError(f"Program.react must return (state, done), got {type(reaction).__name__}.")
    state = jax.tree.map(as_array, reaction[0])
    _same_type("react", before, state)
    done = jnp.asarray(reaction[1])
    if done.shape != () or done.dtype != jnp.bool_:
        raise ProgramError(f"Program.react must give done as a bool (), got {done.dtype}{list(done.shape)}.")
    return state


def _same_type(where: str, before: State, after: State) -> None:
    there, here = jax.tree.structure(before), jax.tree.structure(after)
    if there != here:  # type: ignore[operator]
        raise ProgramError(
            f"Program.{where} changes the structure of the state: init gives\n"
            f"  {there}\n{where} gives\n  {here}\nReturn the same structure."
        )
    for (path, x), (_, y) in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree_util.tree_leaves_with_path(after), strict=True
    ):
        if x.shape != y.shape or x.dtype != y.dtype:
            raise ProgramError(
                f"Program.{where} changes state{jax.tree_util.keystr(path)} from {x.dtype}{list(x.shape)} to "
                f"{y.dtype}{list(y.shape)}. Give it the same shape and dtype in init, or "
                f"cast it with .astype in {where}."
            )


def _scalars(where: str, metrics: Metrics) -> dict[str, jax.Array]:
    if not isinstance(metrics, dict):
        raise ProgramError(f"Program.{where} must give its metrics as a dict of scalars, got {type(metrics).__name__}.")
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise ProgramError(f"metrics of Program.{where} must have strings as names, got {name!r}.")
        if not isinstance(value, jax.Array | np.ndarray | np.generic | int | float):
            raise ProgramError(f"metric {name!r} of Program.{where} must be a number, got {type(value).__name__}.")
        array = jnp.asarray(value)
        kinds = (jnp.floating, jnp.integer, jnp.bool_)
        if array.shape != () or not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
            found = f"{array.dtype}{list(array.shape)}"
            remedy = "Reduce it with .mean()." if array.shape else "Take its real part."
            raise ProgramError(f"metric {name!r} of Program.{where} must be a scalar number, got {found}. {remedy}")
    return {name: jnp.asarray(value) for name, value in metrics.items()}


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def raw(state: State) -> State:
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


def typed(state: State, shapes: Shapes) -> State:
    """The inverse of ``raw``."""
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


def restored(leaves: Sequence[Any], shapes: Shapes) -> State:
    """The state whose raw leaves these are."""
    return typed(jax.tree.unflatten(jax.tree.structure(shapes.state), leaves), shapes)


def float_type() -> Any:
    """The dtype of metrics and of traced real hyperparameters: float32, or float64 under ``jax_enable_x64``."""
    return jnp.result_type(float)


def as_array(value: Any) -> jax.Array:
    """A leaf of the user's state as an array: Python numbers become arrays of JAX's default types."""
    return value if isinstance(value, jax.Array) else jnp.asarray(value)


def blank(shapes: Shapes) -> Lane:
    """The shapes of a ``Lane`` of the program."""
    number: Any
    whole: Any
    number, whole = jax.ShapeDtypeStruct((), float_type()), jax.ShapeDtypeStruct((), jnp.int32)
    return Lane(raw(shapes.state), dict.fromkeys(shapes.train, number), whole, whole, whole)


def start(program: Program, shapes: Shapes, key: jax.Array, h: Hparams) -> Lane:
    """A lane before its first step."""
    zero = jnp.zeros((), jnp.int32)
    state = jax.tree.map(as_array, program.init(purpose_key(key, "init"), h))
    return Lane(
        raw(state),
        {name: jnp.zeros((), float_type()) for name in shapes.train},
        zero,
        zero,
        jnp.full_like(zero, HEALTHY),
    )


def advance(
    program: Program, shapes: Shapes, key: jax.Array, t: jax.Array, lane: Lane, train: Arrays, h: Hparams
) -> Lane:
    """A lane after optimizer step ``t``, counted from 0."""
    batch = program.batch(purpose_key(key, "batch"), t, train, h)
    state, metrics = lowered(program.step)(step_key(purpose_key(key, "step"), t), typed(lane.state, shapes), batch, h)
    values = {name: jnp.asarray(metrics[name]).astype(float_type()) for name in shapes.train}
    return Lane(
        raw(jax.tree.map(as_array, state)),
        {name: lane.totals[name] + value for name, value in values.items()},
        lane.counted + 1,
        t + 1,
        _first_bad(lane.diverged, values.values(), t + 1),
    )


def evaluate(
    program: Program, shapes: Shapes, key: jax.Array, lane: Lane, budget: jax.Array, valid: Arrays, h: Hparams
) -> tuple[Lane, Evaluation]:
    """What an evaluation finds; and the lane after the program's reaction, its averages begun anew.

    The program finishes one that is done, or at ``budget``, the step at which it ends, int32 ().
    """
    state = typed(lane.state, shapes)
    metrics = lowered(program.evaluate)(step_key(purpose_key(key, "evaluate"), lane.step), state, valid, h)
    values = {name: jnp.asarray(metrics[name]).astype(float_type()) for name in shapes.valid}
    means = {name: total / jnp.maximum(lane.counted, 1) for name, total in lane.totals.items()}
    reported = _reported(means, values)
    looked_at = [*values.values(), *(_inexact(program.parameters(state)) if program.names_parameters else ())]
    state, done = program.react(state, reported, h)
    after, done = raw(jax.tree.map(as_array, state)), jnp.asarray(done)
    if program.finishes:
        finished = raw(jax.tree.map(as_array, program.finish(state, h)))
        after = jax.tree.map(lambda new, old: lax.select(done | (lane.step >= budget), new, old), finished, after)
        looked_at += _inexact(program.parameters(typed(after, shapes))) if program.names_parameters else []
    fresh = Lane(
        after,
        jax.tree.map(jnp.zeros_like, lane.totals),
        jnp.zeros_like(lane.counted),
        lane.step,
        _first_bad(lane.diverged, looked_at, lane.step),
    )
    return fresh, Evaluation(reported, done)


def _reported(train: Metrics, valid: Metrics) -> dict[str, jax.Array]:
    return {**{f"train/{name}": v for name, v in train.items()}, **{f"valid/{name}": v for name, v in valid.items()}}


def _inexact(tree: Any) -> list[jax.Array]:
    """The leaves that can hold NaN."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def _first_bad(diverged: jax.Array, values: Iterable[jax.Array], step: jax.Array) -> jax.Array:
    finite = jnp.array(True)
    for value in values:
        finite &= jnp.isfinite(value).all()
    return lax.select(finite | (diverged != HEALTHY), diverged, step)
