"""The vectorized segment: many lanes of one group, advanced by one program. Pure functions."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hpjax.core.hparams import Hparams, with_fold
from hpjax.core.keys import lane_key
from hpjax.core.program import Arrays, Program
from hpjax.engine.lane import HEALTHY, Evaluation, advance_lane, evaluate_lane, start_lane
from hpjax.engine.shapes import Lane, ProgramShapes, float_type
from hpjax.engine.sharding import hidden_mesh


class SegmentInputs(NamedTuple):
    """The values that differ between the lanes of a group; arrays are (devices, chunks, width) except the last.

    Attributes:
      h: the traced hyperparameters; its leaves are the arrays.
      trial: int32, trial ids.
      alive: bool, which lanes train; the others keep their state.
      budget: int32, the step at which each lane ends.
      replicate: int32, the replicate of each lane.
      live_chunks: int32 (devices,), how many leading chunks each device computes.
    """

    h: Hparams
    trial: Any
    alive: Any
    budget: Any
    replicate: Any
    live_chunks: Any


class SegmentOutputs(NamedTuple):
    """The values that the host reads after a segment; arrays are (devices, chunks, width) except the last.

    Attributes:
      step: int32, steps taken.
      diverged: int32, the step of divergence or ``HEALTHY``.
      evaluation: the metrics and flags of the evaluation; NaN and False where the segment ends without one.
      alive: bool, the lanes that continue after it, as far as the device knows: the host may stop more.
      iterations: int32 (devices,), how many computed chunks had a live lane.
    """

    step: Any
    diverged: Any
    evaluation: Evaluation
    alive: Any
    iterations: Any


class SegmentConfig(NamedTuple):
    """The static values that decide a group's compiled program, besides the shapes of its arrays.

    Attributes:
      program: the functions that the lanes run.
      shapes: the shapes and dtypes of the program's values.
      width: lanes a chunk.
      independent: whether every trial has noise and batches of its own; else all trials of a replicate share theirs.
      own_budget: whether lanes may end at different steps; a finished one then keeps its state.
      spread: how lanes are spread over devices, ``"shard_map"`` or ``"pmap"``.
      lowered: whether convolutions and pooling are rewritten as matrix products.
      folds: how many folds there are; replicate ``r`` has seed ``r // folds`` and, where there is more than one, fold
        ``r % folds``.
      block: where the train split is a stream, how many batches a segment gets of it: the batch of step ``t`` is at
        index ``t % block``. None for a split that is an array.
    """

    program: Program
    shapes: ProgramShapes
    width: int
    independent: bool
    own_budget: bool
    spread: str = "shard_map"
    lowered: bool = False
    folds: int = 1
    block: int | None = None


def _run_chunk(
    config: SegmentConfig,
    old: Lane,
    inputs: SegmentInputs,
    stop: Any,
    evaluating: Any,
    seed: Any,
    splits: tuple[Arrays, Arrays],
) -> tuple[Lane, Evaluation]:
    """Advances the lanes of one chunk to step ``stop``; arrays of ``inputs`` are (width,), as in ``segment``."""
    program, shapes, (train, valid) = config.program, config.shapes, splits
    # The width is given by number: where a group has no traced hyperparameters and shares its keys, ``start`` has no
    # mapped argument from which vmap could find it out.
    vectorize = partial(jax.vmap, axis_size=config.width)
    # Shared keys stay outside vmap: then noise is drawn and the batch gathered once a step, not once a lane. A chunk
    # holds lanes of one replicate in that case (see layout.arrange), so one live lane's replicate is that of all. The
    # maximum picks it without a gather; dead lanes, which may be of another replicate, and empty slots count as 0.
    key_axis = 0 if config.independent else None
    replicate = inputs.replicate if config.independent else jnp.max(jnp.where(inputs.alive, inputs.replicate, 0))
    # Keys come from the seed, the replicate and, where trials are independent, the trial id: never from the slot, so
    # that packing changes no bit (law 2).
    key = (
        jax.vmap(partial(lane_key, seed))(replicate // config.folds, inputs.trial)
        if config.independent
        else lane_key(seed, replicate // config.folds)
    )
    # What differs between lanes: the key and the fold, unless the chunk shares them, and the hyperparameters.
    identity = (key, replicate % config.folds, inputs.h)
    axes = (key_axis, key_axis, 0)

    def hparams(fold: jax.Array, h: Hparams) -> Hparams:
        # Without folds ``h`` has no ``fold``, and reading it is an error.
        return with_fold(h, fold, config.folds) if config.folds > 1 else h

    # Where a segment is dispatched before the last one is collected, lanes may have ended without the host's knowledge.
    # A chunk in which nobody lives any more then starts nothing, steps nowhere and evaluates nothing.
    anyone = inputs.alive.any()
    # All live lanes of a group stand at the same step; dead ones may have stopped anywhere, so they do not count.
    begin = jnp.max(jnp.where(inputs.alive, old.step, 0))
    # Steps after the end of the chunk's last lane are not computed.
    end = jnp.minimum(stop, jnp.max(jnp.where(inputs.alive, inputs.budget, 0)))

    def init(_: Lane) -> Lane:
        def start(key: jax.Array, fold: jax.Array, h: Hparams) -> Lane:
            return start_lane(program, shapes, key, hparams(fold, h))

        return vectorize(start, in_axes=axes)(*identity)

    def advance(t: jax.Array, lanes: Lane) -> Lane:
        # The step is one number for the chunk, not one a lane: with a mapped index every lane would gather a batch.
        own = train if config.block is None else _at(train, t % config.block)

        def step(key: jax.Array, fold: jax.Array, h: Hparams, lane: Lane) -> Lane:
            return advance_lane(program, shapes, key, t, lane, own, hparams(fold, h))

        moved: Lane = vectorize(step, in_axes=(*axes, 0))(*identity, lanes)
        # A select over the whole state in each step is dear, so programs whose lanes all end together do without.
        return _keep(t < inputs.budget, moved, lanes) if config.own_budget else moved

    def evaluate(lanes: Lane) -> tuple[Lane, Evaluation]:
        def look(key: jax.Array, fold: jax.Array, h: Hparams, lane: Lane, budget: jax.Array) -> tuple[Lane, Evaluation]:
            return evaluate_lane(program, shapes, key, lane, budget, valid, hparams(fold, h))

        result: tuple[Lane, Evaluation] = vectorize(look, in_axes=(*axes, 0, 0))(*identity, lanes, inputs.budget)
        return result

    def skip(lanes: Lane) -> tuple[Lane, Evaluation]:
        return lanes, _no_evaluation(shapes, (config.width,))

    # The conditions and the trip count are scalars, outside vmap, so they are real branches and a real loop: one
    # program starts, advances and evaluates (law 3), and what is not needed costs nothing.
    lanes = lax.cond(anyone & (begin == 0), init, lambda lanes: lanes, old)
    lanes = lax.fori_loop(begin, end, advance, lanes)
    lanes, evaluation = lax.cond(anyone & evaluating, evaluate, skip, lanes)
    # Dead lanes were computed along with their chunk. Their state must stay what it was when they ended, because it is
    # what the run records of them.
    return _keep(inputs.alive, lanes, old), evaluation


def _at(tree: Any, index: Any) -> Any:
    """Returns the entry at ``index`` of the first axis of each array."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, keepdims=False), tree)


def _no_evaluation(shapes: ProgramShapes, grid: tuple[int, ...]) -> Evaluation:
    """Returns the evaluation of lanes that are not evaluated: NaN and False, of the shape ``grid``."""
    return Evaluation({name: jnp.full(grid, jnp.nan, float_type()) for name in shapes.metrics}, jnp.zeros(grid, bool))


def _keep(mask: jax.Array, new: Lane, old: Lane) -> Lane:
    """Returns ``new`` where ``mask``, bool (width,), is true, and ``old`` elsewhere."""
    result: Lane = jax.tree.map(lambda n, o: jnp.where(mask.reshape(-1, *(1,) * (n.ndim - 1)), n, o), new, old)
    return result


@hidden_mesh()
def segment(
    config: SegmentConfig,
    lanes: Lane,
    inputs: SegmentInputs,
    stop: Any,
    evaluating: Any,
    seed: Any,
    splits: tuple[Arrays, Arrays],
) -> tuple[Lane, SegmentOutputs]:
    """Advances the lanes of one device to step ``stop``; its leading, live chunks one after the other, in place.

    Args:
      config: what the program was compiled for.
      lanes: the device's lanes; leaves are (chunks, width, ...).
      inputs: (chunks, width), and ``live_chunks``, ().
      stop: the step at which the segment ends, int32 ().
      evaluating: whether it ends with an evaluation, bool ().
      seed: the sweep's seed, int32 ().
      splits: the train and the valid split, whole on the device; of a stream one block of batches.

    Returns:
      The lanes, and what the host reads of them; arrays as in ``inputs``.
    """
    blank = _no_evaluation(config.shapes, inputs.trial.shape)

    def body(c: jax.Array, carry: Any) -> Any:
        lanes, evaluations, iterations = carry
        at = partial(_at, index=c)
        own = inputs._replace(
            **{name: at(getattr(inputs, name)) for name in SegmentInputs._fields if name != "live_chunks"}
        )
        new, evaluation = _run_chunk(config, at(lanes), own, stop, evaluating, seed, splits)
        # Written back at the same place of the carry, so that XLA updates the donated buffers in place: a device holds
        # the state of all lanes once, and the intermediate values of one chunk.
        lanes, evaluations = jax.tree.map(
            lambda whole, part: lax.dynamic_update_index_in_dim(whole, part, c, 0),
            (lanes, evaluations),
            (new, evaluation),
        )
        return lanes, evaluations, iterations + own.alive.any()

    carry = (lanes, blank, jnp.zeros((), jnp.int32))
    # The trip count is a traced number: fewer live chunks take less time and compile nothing (laws 3 and 4).
    lanes, evaluations, iterations = lax.fori_loop(0, inputs.live_chunks, body, carry)
    # The device decides by itself which lanes have ended, so that the next segment can be dispatched before the host
    # has read this one. A lane that reached its budget still counts as live until it is evaluated there.
    over = (lanes.diverged != HEALTHY) | evaluations.done | (evaluating & (lanes.step >= inputs.budget))
    # Copies, because the lanes are donated to the next call, perhaps before the host has read these.
    step, diverged = jnp.copy(lanes.step), jnp.copy(lanes.diverged)
    return lanes, SegmentOutputs(step, diverged, evaluations, inputs.alive & ~over, iterations)
