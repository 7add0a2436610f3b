"""One lane: the life of one replicate of one trial, as pure functions that ``vmap`` widens."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hpjax.core.hparams import Hparams
from hpjax.core.keys import Purpose, purpose_key, step_key
from hpjax.core.program import Arrays, Metrics, Program, State
from hpjax.engine.lowering import lowered
from hpjax.engine.partition import divided, gathered
from hpjax.engine.shapes import Lane, ProgramShapes, float_type, unwrap_keys, wrap_keys
from hpjax.engine.state_tree import StateTree, arrays_of, is_weak, split_state

# The value of ``Lane.diverged`` as long as every value was finite.
HEALTHY = -1


class Evaluation(NamedTuple):
    """The values that an evaluation gives.

    Attributes:
      metrics: name to value, (), under the names ``train/...``, averaged since the last evaluation, and ``valid/...``.
      done: bool (), whether the program calls its trial complete.
    """

    metrics: dict[str, Any]
    done: Any


class StepKeys(NamedTuple):
    """The keys of a lane that its steps need, which are the same in all of them; typed, ().

    Attributes:
      lane: the lane's own.
      batch: decides the order of the examples.
      step: that from which each step's is made.
    """

    lane: jax.Array
    batch: jax.Array
    step: jax.Array

    @classmethod
    def of(cls, key: jax.Array) -> "StepKeys":
        """Returns the keys of a lane with the key ``key``."""
        return cls(key, purpose_key(key, "batch"), purpose_key(key, "step"))


def start_lane(program: Program, shapes: ProgramShapes, key: jax.Array, h: Hparams) -> Lane:
    """Returns a lane before its first step; ``key`` is the lane's, and leaves of ``h`` are ()."""
    zero = jnp.zeros((), jnp.int32)
    arrays = lowered(lambda key, h: arrays_of(program.init(key, h)))(purpose_key(key, "init"), h)
    return Lane(
        state=unwrap_keys([settled(x, like.dtype) for x, like in zip(arrays, shapes.state, strict=True)]),
        totals={name: jnp.zeros((), float_type()) for name in shapes.train},
        counted=zero,
        step=zero,
        diverged=jnp.full_like(zero, HEALTHY),
    )


def rebuilt_state(program: Program, shapes: ProgramShapes, key: jax.Array, h: Hparams, arrays: Sequence[Any]) -> State:
    """Returns a program's state from its arrays, with what is no array as ``init`` makes it.

    Args:
      program: the program.
      shapes: what tracing found out about it.
      key: a lane's key, shape (); what is no array does not depend on it.
      h: the hyperparameters; functions in the state may close over them.
      arrays: the arrays of ``unwrap_keys``, in their order.
    """
    return _state_tree(program, shapes, key, h).fill(wrap_keys(arrays, shapes))


def _state_tree(program: Program, shapes: ProgramShapes, key: jax.Array, h: Hparams) -> StateTree:
    """Returns the structure of the state for this trace; arrays that ``init`` computes for it are dropped by XLA."""
    return split_state(program.init(purpose_key(key, "init"), h))[1] if shapes.tree is None else shapes.tree


def advance_lane(
    program: Program,
    shapes: ProgramShapes,
    keys: StepKeys,
    t: jax.Array,
    lane: Lane,
    train: Arrays,
    h: Hparams,
) -> Lane:
    """Returns a lane after optimizer step ``t``, int32 (), counted from 0, but for the numbers of its steps.

    Those are the same for all lanes of a chunk, and ``counted_steps`` adds them once for all steps of a segment.
    ``train`` is the split or, of a stream, the batch.
    """
    batch = divided(program.batch(keys.batch, t, train, h))
    tree = _state_tree(program, shapes, keys.lane, h)

    def step(key: jax.Array, arrays: Any, h: Hparams) -> Any:  # not of the batch, which may have more than arrays
        state, metrics = program.step(key, tree.fill(arrays), batch, h)
        return arrays_of(state), metrics

    compute = gathered(lowered(step), batch)
    arrays, metrics = compute(step_key(keys.step, t), wrap_keys(lane.state, shapes), h)
    values = {name: jnp.asarray(metrics[name]).astype(float_type()) for name in shapes.train}
    return Lane(
        state=unwrap_keys(arrays),
        totals={name: lane.totals[name] + value for name, value in values.items()},
        counted=lane.counted,
        step=lane.step,
        diverged=_first_bad_step(lane.diverged, values.values(), t + 1),
    )


def counted_steps(lane: Lane, end: jax.Array) -> Lane:
    """Returns a lane that took its steps up to ``end``, int32 (), with their numbers, unless it had taken more."""
    end = jnp.maximum(lane.step, end)
    return lane._replace(counted=lane.counted + end - lane.step, step=end)


def evaluate_lane(
    program: Program,
    shapes: ProgramShapes,
    key: jax.Array,
    lane: Lane,
    budget: jax.Array,
    splits: tuple[Arrays, Arrays],
    h: Hparams,
) -> tuple[Lane, Evaluation]:
    """Returns the lane after the program's reaction to an evaluation, its averages begun anew, and the evaluation.

    Of ``splits``, those of training and validation, the first is not looked at unless the program has ``inspect``.
    The program's ``finish`` is applied to a lane that is done, or that has reached ``budget``, int32 ().
    """
    tree = _state_tree(program, shapes, key, h)
    state = tree.fill(wrap_keys(lane.state, shapes))

    def measured(
        function: Callable[..., Metrics], purpose: Purpose, split: Arrays, names: Iterable[str]
    ) -> dict[str, jax.Array]:
        def look(key: jax.Array, arrays: Any, split: Arrays, h: Hparams) -> Metrics:
            return function(key, tree.fill(arrays), split, h)

        own_key = step_key(purpose_key(key, purpose), lane.step)
        metrics = gathered(lowered(look), split)(own_key, wrap_keys(lane.state, shapes), split, h)
        return {name: jnp.asarray(metrics[name]).astype(float_type()) for name in names}

    train, valid = splits
    values = measured(program.evaluate, "evaluate", valid, shapes.valid)
    inspected = {} if program.inspect is None else measured(program.inspect, "inspect", train, shapes.inspected)
    # A lane that took no step since the last evaluation has 0 / 1, not 0 / 0: NaN means divergence.
    means = {name: total / jnp.maximum(lane.counted, 1).astype(total.dtype) for name, total in lane.totals.items()}
    metrics_seen = reported_metrics(means | inspected, values)
    # Parameters are looked at here and not in each step, where that would read all of them once more.
    checked = [*values.values(), *(_inexact(program.parameters(state)) if program.names_parameters else ())]
    state, done = program.react(state, metrics_seen, h)
    after, done = arrays_of(state), jnp.asarray(done)
    if program.finishes:
        # Both are computed and one is selected: under vmap a condition would compute both as well.
        finished = unwrap_keys(arrays_of(program.finish(state, h)))
        ended = done | (lane.step >= budget)
        chosen = [lax.select(ended, new, old) for new, old in zip(finished, unwrap_keys(after), strict=True)]
        after = wrap_keys(chosen, shapes)
        checked += _inexact(program.parameters(tree.fill(after))) if program.names_parameters else []
    fresh = Lane(
        state=unwrap_keys(after),
        totals=jax.tree.map(jnp.zeros_like, lane.totals),
        counted=jnp.zeros_like(lane.counted),
        step=lane.step,
        diverged=_first_bad_step(lane.diverged, checked, lane.step),
    )
    return fresh, Evaluation(metrics_seen, done)


def reported_metrics(train: Metrics, valid: Metrics) -> dict[str, jax.Array]:
    """Returns the metrics of training and of validation under the names by which they are reported."""
    return {**{f"train/{name}": v for name, v in train.items()}, **{f"valid/{name}": v for name, v in valid.items()}}


def _inexact(tree: Any) -> list[jax.Array]:
    """Returns the leaves that can hold NaN."""
    return [leaf for leaf in arrays_of(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def settled(array: jax.Array, dtype: Any) -> jax.Array:
    """Returns an array of ``init`` with the dtype that it has in the carry; see ``probe.trace_lifecycle``."""
    return array if array.dtype == dtype and not is_weak(array) else lax.convert_element_type(array, dtype)


def _first_bad_step(diverged: jax.Array, values: Iterable[jax.Array], step: jax.Array) -> jax.Array:
    """Returns ``diverged``, or ``step`` where it is ``HEALTHY`` and one of ``values`` is not finite."""
    finite = jnp.array(True)
    for value in values:
        finite &= jnp.isfinite(value).all()
    return lax.select(finite | (diverged != HEALTHY), diverged, step)
