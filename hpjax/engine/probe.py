"""Abstract tracing of a program: finds out its shapes, or why it cannot train. Nothing is compiled or computed."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.axis_names import collecting_axis_names, named_axes
from hpjax.core.bounds import Check, collecting
from hpjax.core.collector import collector_paused
from hpjax.core.errors import ProgramError, annotate_errors
from hpjax.core.hashing import digest, without_addresses
from hpjax.core.hparams import Hparams, reading
from hpjax.core.keys import lane_key
from hpjax.core.program import Arrays, Metrics, Program
from hpjax.core.remarks import collecting_remarks
from hpjax.engine.constants import large_constants
from hpjax.engine.flops import mark, parts
from hpjax.engine.lane import rebuilt_state, reported_metrics, settled
from hpjax.engine.leaks import leak_of
from hpjax.engine.lowering import draws, has_windows
from hpjax.engine.metric_values import scalars
from hpjax.engine.primitives import coarsest, moves_examples, operations, primitive_names, uncertain, zeros
from hpjax.engine.shapes import ProgramShapes, unwrap_keys
from hpjax.engine.state_tree import StateTree, arrays_of, difference, is_key, is_same, is_weak, numbers_in, split_state
from hpjax.engine.thin_sums import has_thin_sums

# The structure of a state, and its arrays.
Parts = tuple[StateTree, Sequence[jax.Array]]

# About so many lanes, those of a chunk, share a batch.
SHARING = 8

# Dtypes of less than a byte.
BELOW_BYTES = {"int2", "uint2", "int4", "uint4", "float4_e2m1fn"}

# In place of a hyperparameter's name, for a checked value that is computed from hyperparameters.
DERIVED = ""

# The primitives of matrix decompositions.
DECOMPOSITIONS = {"geqrf", "qr", "householder_product", "eigh", "eig", "svd", "schur", "lu", "cholesky"}


@collector_paused()
def trace_program(program: Program, h: Hparams, train: Arrays, valid: Arrays) -> ProgramShapes:
    """Traces every function of a program once, and returns what that shows.

    Args:
      program: the program.
      h: its hyperparameters; traced ones are arrays or ``ShapeDtypeStruct``s, ().
      train, valid: the splits, as arrays or ``ShapeDtypeStruct``s.

    Raises:
      ProgramError: the program cannot train: ``step`` changes the structure, a shape or a dtype of the state, or a
        metric is no scalar.
      Exception: whatever the user's functions raise.
    """
    shapes, alive = _shapes_of(program, h, train, valid)
    # Asked once the jaxpr is gone, whose functions refer to its trace.
    return shapes._replace(leaks=alive())


def _shapes_of(program: Program, h: Hparams, train: Arrays, valid: Arrays) -> tuple[ProgramShapes, Callable[[], bool]]:
    """Returns what ``trace_program`` does, and a function that tells whether anything of the trace is still alive."""
    # Filled while tracing, because make_jaxpr returns arrays and no names.
    structure: list[tuple[StateTree, tuple[Hashable, ...]]] = []
    read: set[str] = set()
    checks: list[tuple[str, Check]] = []
    remarks: list[str] = []
    alive: list[Callable[[], bool]] = []
    parameters_of = annotate_errors("Program.parameters", program.parameters)

    def watched(h: Hparams, train: Arrays, valid: Arrays) -> Any:
        alive[:] = [leak_of((h, train, valid))]
        with reading() as names, collecting() as found_checks, collecting_remarks() as found_remarks:
            life = trace_lifecycle(program, h, train, valid)
        read.update(names)
        remarks[:] = dict.fromkeys(found_remarks)
        structure[:] = [(life.tree, tuple(map(_generator, life.state)))]
        for check in found_checks:
            mine = [name for name in h if h[name] is check.value]
            # A value that the program computes from hyperparameters has no name. The plan then knows only that there is
            # something to check, and computes the values of all trials.
            if isinstance(check.value, jax.core.Tracer):
                checks.extend((name, check._replace(value=None)) for name in mine or [DERIVED])
        return life.state, life.train, life.inspected, life.valid, arrays_of(parameters_of(life.tree.fill(life.state)))

    with collecting_axis_names() as axes:
        traced, found = jax.make_jaxpr(watched, return_shape=True)(h, train, valid)
    _check_constants(traced.consts)
    state, train_metrics, inspected, valid_metrics, parameters = found
    tree, generators = structure[-1]
    used = {id(v) for equation in traced.jaxpr.eqns for v in equation.invars} | {id(v) for v in traced.jaxpr.outvars}
    # The leaves of h are the first inputs of the jaxpr, in this order.
    tracers = [path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(h)]
    names = {name for name, v in zip(tracers, traced.jaxpr.invars, strict=False) if id(v) in used}
    count = sum(leaf.size for leaf in parameters)
    outputs = list(map(id, traced.jaxpr.outvars))
    trained = set(outputs[len(outputs) - len(parameters) :])
    _, batch, step, evaluation = parts(traced.jaxpr)
    shapes = ProgramShapes(
        state=state,
        names=tree.names(),
        trained=tuple(own in trained for own in outputs[: len(state)]),
        axes=tuple(named_axes(axes, name) for name in tree.names()),
        keys=generators,
        zeros=zeros(traced.jaxpr)[: len(state)],
        tree=tree if tree.plain or is_same(tree, _tree_of_another_trace(program, h)) else None,
        train=tuple(sorted(train_metrics)),
        inspected=tuple(sorted(inspected)),
        valid=tuple(sorted(valid_metrics)),
        parameters=count,
        # A traced hyperparameter counts as read where an operation uses it, a static one where the user's code asks for
        # it: attribute access alone says nothing of a tracer, which is often read only to be passed on.
        reads=frozenset(names | read.difference(tracers)),
        checks=tuple(dict.fromkeys(checks)),
        lapack=not primitive_names(traced.jaxpr).isdisjoint(DECOMPOSITIONS),
        draws=draws(traced),
        coarsest=coarsest(traced.jaxpr),
        windows=has_windows(traced),
        thin_sums=has_thin_sums(traced),
        uncertain=uncertain(traced),
        moves=moves_examples(traced.jaxpr),
        step=step.plus(batch, 1 / SHARING),
        evaluation=evaluation,
        constant_bytes=sum(c.size * c.dtype.itemsize for c in large_constants(traced)),
        remarks=tuple(remarks),
        operations=operations(traced.jaxpr),
        fingerprint=digest(without_addresses(str(traced.jaxpr))),
        leaks=True,
    )
    return shapes, alive[-1]


def _check_constants(constants: Sequence[Any]) -> None:
    """Raises ``ProgramError`` if a program uses an array that an earlier call of its functions computed and kept."""
    for constant in constants:
        if isinstance(constant, jax.core.Tracer):
            raise ProgramError(
                f"the program uses an array, {constant.dtype}{list(constant.shape)}, that an earlier call of its "
                "functions computed while it was traced, and kept: in a list, an attribute or a functools.cache. "
                "Compute it in each call, or with NumPy."
            )


def annotated(program: Program) -> Program:
    """Returns a program whose errors name the function that raised them: ``Program.step``."""
    own = {"finish": program.finishes, "inspect": program.inspect is not None}
    names = ["init", "batch", "step", "evaluate", "react", *(name for name, given in own.items() if given)]
    named: dict[str, Any] = {name: annotate_errors(f"Program.{name}", getattr(program, name)) for name in names}
    return replace(program, **named)


class Lifecycle(NamedTuple):
    """What calling every function of a program once gives.

    Attributes:
      state: the arrays of the first state.
      tree: the structure of the state.
      train, inspected, valid: the metrics of a step, and of an evaluation those of ``inspect`` and ``evaluate``, ().
      done: whether ``react`` calls the trial complete, bool ().
      finished: the arrays of the state that ``finish`` returns.
    """

    state: tuple[jax.Array, ...]
    tree: StateTree
    train: Metrics
    inspected: Metrics
    valid: Metrics
    done: Any
    finished: tuple[jax.Array, ...]


def trace_lifecycle(program: Program, h: Hparams, train: Arrays, valid: Arrays) -> Lifecycle:
    """Calls every function of a program once.

    Under ``make_jaxpr`` or ``eval_shape`` this traces the program; marks separate ``init``, ``batch``, ``step`` and the
    rest.

    Raises:
      ProgramError: as for ``trace_program``.
      Exception: whatever the user's functions raise.
    """
    key, own_step, program = lane_key(0, 0), program.step, annotated(program)
    initial = program.init(key, h)
    arrays, tree = split_state(initial)
    _check_arrays(tree, arrays)
    if any("rbg" in str(_generator(leaf)) for leaf in arrays):
        raise ProgramError(
            "the state holds an rbg key, and under vmap its numbers would depend on the neighbours. "
            'Write jax.random.key(seed, impl="threefry2x32").'
        )
    mark()
    batch = program.batch(key, jnp.int32(0), train, h)
    mark()
    step = annotate_errors("Program.step", _telling_numbers(own_step, initial))

    def stepped(arrays: Sequence[Any]) -> tuple[StateTree, tuple[jax.Array, ...], Any]:
        after = step(key, tree.fill(arrays), batch, h)
        if not (isinstance(after, tuple) and len(after) == 2):
            raise ProgramError(
                f"Program.step must return (state, metrics), got {type(after).__name__}. Write return state, metrics."
            )
        moved, structure = split_state(after[0])
        return structure, moved, after[1]

    first = tuple(map(settled, arrays, _carried_types(arrays, lambda arrays: stepped(arrays)[1])))
    structure, moved, metrics = stepped(first)
    _same_type("step", (tree, first), (structure, moved))
    mark()
    state = tree.fill(moved)
    train_metrics = scalars("step", metrics)
    valid_metrics = scalars("evaluate", program.evaluate(key, state, valid, h))
    inspected = {} if program.inspect is None else scalars("inspect", program.inspect(key, state, train, h))
    for name in inspected.keys() & train_metrics.keys():
        raise ProgramError(f"Program.inspect and Program.step both give {name!r}, as train/{name}. Rename one.")
    reaction = program.react(state, reported_metrics(train_metrics | inspected, valid_metrics), h)
    reacted, done = _reacted((tree, moved), reaction)
    finished, structure = split_state(program.finish(tree.fill(reacted), h))
    _same_type("finish", (tree, moved), (structure, finished))
    return Lifecycle(first, tree, train_metrics, inspected, valid_metrics, done, finished)


def trace_test(program: Program, shapes: ProgramShapes, h: Hparams, split: Arrays) -> None:
    """Traces what measures a trained state on the test split.

    Args:
      program: the program.
      shapes: what tracing found out about it.
      h: its hyperparameters; traced ones are ``ShapeDtypeStruct``s, ().
      split: the test split, as ``ShapeDtypeStruct``s.

    Raises:
      ProgramError: a metric is no scalar.
      Exception: whatever the user's function raises.
    """
    key, measure = lane_key(0, 0), annotate_errors("Program.test", program.test or program.evaluate)

    def tested(arrays: Sequence[Any], h: Hparams, split: Arrays) -> Any:
        return scalars("test", measure(key, rebuilt_state(program, shapes, key, h, arrays), split, h))

    jax.eval_shape(tested, unwrap_keys(shapes.state), h, split)


def _check_arrays(tree: StateTree, arrays: Sequence[Any]) -> None:
    """Raises ``ProgramError`` if the state has a leaf that is no array but the shape of one, or of parts of bytes."""
    for path, array in zip(tree.array_paths(), arrays, strict=True):
        where = f"state{jax.tree_util.keystr(path)} of Program.init"
        if isinstance(array, jax.ShapeDtypeStruct):
            raise ProgramError(f"{where} is a ShapeDtypeStruct, the shape of an array. Write jnp.zeros(shape, dtype).")
        if not is_key(array) and jnp.dtype(array.dtype).name in BELOW_BYTES:
            raise ProgramError(
                f"{where} is {array.dtype}, of which several share a byte, and no such array moves between devices "
                "and files. Keep it as int8, and cast it with .astype in step."
            )


def _telling_numbers(step: Callable[..., Any], state: Any) -> Callable[..., Any]:
    """Wraps ``step`` so that an error which needs a Python number names the numbers of the initial state.

    They come to it as arrays, as in ``jax.lax.scan``.
    """
    names = [f"state{jax.tree_util.keystr(path)}" for path in numbers_in(state)]

    def told(*arguments: Any) -> Any:
        try:
            return step(*arguments)
        except Exception as error:
            needs = isinstance(error, jax.errors.TracerBoolConversionError | jax.errors.TracerIntegerConversionError)
            if names and (needs or "concrete values of integer type" in str(error)):
                error.add_note(f"Program.step, to which numbers of the state come as arrays ({', '.join(names)}),")
            raise

    return told


def _carried_types(arrays: Sequence[jax.Array], step: Callable[[Any], Any]) -> list[Any]:
    """Returns the dtype of each array of the state between steps: that of ``init``, unless it is weakly typed.

    A Python number in the state takes the dtype that ``step`` gives it, as in the carry of ``jax.lax.scan``.
    """
    types = [x.dtype for x in arrays]
    if not any(map(is_weak, arrays)):
        return types
    after = jax.eval_shape(lambda: step(arrays))
    if len(after) != len(arrays):
        return types
    return [
        new.dtype if is_weak(old) and jnp.result_type(old, new.dtype) == new.dtype else old.dtype
        for old, new in zip(arrays, after, strict=True)
    ]


def _tree_of_another_trace(program: Program, h: Hparams) -> StateTree | None:
    """Returns the structure of the state as another trace of ``init`` makes it, None where it makes none."""
    found: list[StateTree] = []

    def init(h: Hparams) -> tuple[jax.Array, ...]:
        arrays, tree = split_state(program.init(lane_key(0, 0), h))
        found.append(tree)
        return arrays

    jax.eval_shape(init, h)
    return found[-1]


def _generator(leaf: Any) -> Hashable:
    """Returns the generator of a typed PRNG key, None for any other array."""
    return jax.random.key_impl(leaf) if is_key(leaf) else None


def _reacted(before: Parts, reaction: Any) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Validates what ``Program.react`` returned; returns the arrays of the new state, and ``done``."""
    if not (isinstance(reaction, tuple) and len(reaction) == 2):
        raise ProgramError(
            f"Program.react must return (state, done), got {type(reaction).__name__}. Write return state, done."
        )
    arrays, tree = split_state(reaction[0])
    _same_type("react", before, (tree, arrays))
    done = jnp.asarray(reaction[1])
    if done.shape != () or done.dtype != jnp.bool_:
        raise ProgramError(
            f"Program.react must give done as a bool (), got {done.dtype}{list(done.shape)}. "
            "Write return state, jnp.bool_(False) for a trial that is never done."
        )
    return arrays, done


def _same_type(where: str, before: Parts, after: Parts) -> None:
    """Raises unless both states have the same structure, shapes and dtypes; ``where`` is the function that returned."""
    changed = difference(before[0], after[0])
    if changed is not None:
        raise ProgramError(
            f"Program.{where} changes the structure of the state {changed}\n"
            "Return the structure that init gives; only arrays may change."
        )
    for path, x, y in zip(before[0].array_paths(), before[1], after[1], strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            raise ProgramError(
                f"Program.{where} changes state{jax.tree_util.keystr(path)} from {x.dtype}{list(x.shape)} to "
                f"{y.dtype}{list(y.shape)}. Give it the same shape and dtype in init, or "
                f"cast it with .astype in {where}."
            )
