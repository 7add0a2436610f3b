"""The vectorized segment: many lanes of one group, advanced by one program. Pure."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hpjax.core.hparams import Hparams, with_fold
from hpjax.core.keys import lane_key
from hpjax.core.program import Arrays, Program
from hpjax.engine import lane as one
from hpjax.engine.lane import HEALTHY, Evaluation
from hpjax.engine.shapes import Lane, ProgramShapes, float_type


class SegmentInputs(NamedTuple):
    """What tells the lanes of a group apart; each array has shape (devices, chunks, width) but the last.

    Attributes:
      h: the traced hyperparameters, leaves.
      trial: int32 trial ids.
      alive: bool; the others keep their state.
      budget: int32, the step at which each lane ends.
      replicate: int32; that of each lane.
      live_chunks: int32 (devices,), how many leading chunks each device computes.
    """

    h: Hparams
    trial: Any
    alive: Any
    budget: Any
    replicate: Any
    live_chunks: Any


class SegmentOutputs(NamedTuple):
    """What a segment tells the host; each array has shape (devices, chunks, width) but the last.

    Attributes:
      step: int32, steps taken.
      diverged: int32, the step of divergence or ``HEALTHY``.
      evaluation: what this evaluation found; NaN where the segment ends without one.
      alive: bool, the lanes that go on after it, as far as the device knows.
      iterations: int32 (devices,), chunks with a lane that was alive.
    """

    step: Any
    diverged: Any
    evaluation: Evaluation
    alive: Any
    iterations: Any


class SegmentConfig(NamedTuple):
    """What decides a group's compiled program, besides the shapes of its arrays.

    Attributes:
      program: what the lanes do.
      shapes: what it gives.
      width: lanes a chunk.
      independent: every trial has noise and batches of its own; else all of a replicate share theirs.
      own_budget: lanes may end at different steps; a finished one then keeps its state.
      spread: how lanes are spread over devices, ``"shard_map"`` or ``"pmap"``.
      lowered: whether convolutions and pooling are matrix products.
      folds: replicate ``r`` has seed ``r // folds`` and, where there is more than one, fold ``r % folds``.
      block: where the train split is a stream, how many batches a segment gets of it, that of step ``t`` at
        ``t % block``; else None.
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
    recipe: SegmentConfig,
    old: Lane,
    slots: SegmentInputs,
    stop: Any,
    evaluating: Any,
    seed: Any,
    train: Arrays,
    valid: Arrays,
) -> tuple[Lane, Evaluation]:
    """Advances the lanes of one chunk to step ``stop``; arrays of ``slots`` have shape (width,)."""
    program, shapes = recipe.program, recipe.shapes
    # The width by name: a group without traced hyperparameters has nothing else to tell it.
    many = partial(jax.vmap, axis_size=recipe.width)
    # Shared keys stay outside vmap: noise is drawn and the batch gathered once a step, not once a lane.
    key_axis = 0 if recipe.independent else None
    replicate = slots.replicate if recipe.independent else jnp.max(jnp.where(slots.alive, slots.replicate, 0))
    key = (
        jax.vmap(partial(lane_key, seed))(replicate // recipe.folds, slots.trial)
        if recipe.independent
        else lane_key(seed, replicate // recipe.folds)
    )
    # What tells a lane from its neighbours: its key, where it has one of its own its fold, and its hyperparameters.
    who = (key, replicate % recipe.folds, slots.h)
    axes = (key_axis, key_axis, 0)

    def hparams(fold: jax.Array, h: Hparams) -> Hparams:
        return with_fold(h, fold, recipe.folds) if recipe.folds > 1 else h

    # Where a segment is launched before the last one is read, lanes may have ended of which the host does not know.
    anyone = slots.alive.any()
    begin = jnp.max(jnp.where(slots.alive, old.step, 0))
    end = jnp.minimum(stop, jnp.max(jnp.where(slots.alive, slots.budget, 0)))

    def init(_: Lane) -> Lane:
        def start(key: jax.Array, fold: jax.Array, h: Hparams) -> Lane:
            return one.start(program, shapes, key, hparams(fold, h))

        return many(start, in_axes=axes)(*who)

    def advance(t: jax.Array, lanes: Lane) -> Lane:
        mine = train if recipe.block is None else _at(train, t % recipe.block)

        def move(key: jax.Array, fold: jax.Array, h: Hparams, lane: Lane) -> Lane:
            return one.advance(program, shapes, key, t, lane, mine, hparams(fold, h))

        moved: Lane = many(move, in_axes=(*axes, 0))(*who, lanes)
        return _keep(t < slots.budget, moved, lanes) if recipe.own_budget else moved

    def evaluate(lanes: Lane) -> tuple[Lane, Evaluation]:
        def look(key: jax.Array, fold: jax.Array, h: Hparams, lane: Lane, budget: jax.Array) -> tuple[Lane, Evaluation]:
            return one.evaluate(program, shapes, key, lane, budget, valid, hparams(fold, h))

        result: tuple[Lane, Evaluation] = many(look, in_axes=(*axes, 0, 0))(*who, lanes, slots.budget)
        return result

    def silent(lanes: Lane) -> tuple[Lane, Evaluation]:
        return lanes, _nothing(shapes, (recipe.width,))

    lanes = lax.cond(anyone & (begin == 0), init, lambda lanes: lanes, old)
    lanes = lax.fori_loop(begin, end, advance, lanes)
    lanes, evaluation = lax.cond(anyone & evaluating, evaluate, silent, lanes)
    return _keep(slots.alive, lanes, old), evaluation


def _at(tree: Any, index: Any) -> Any:
    """What stands at ``index`` of the first axis of each array."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, keepdims=False), tree)


def _nothing(shapes: ProgramShapes, grid: tuple[int, ...]) -> Evaluation:
    """What lanes find where they are not evaluated."""
    return Evaluation({name: jnp.full(grid, jnp.nan, float_type()) for name in shapes.metrics}, jnp.zeros(grid, bool))


def _keep(mask: jax.Array, new: Lane, old: Lane) -> Lane:
    """``new`` where ``mask``, (width,), is true, else ``old``."""
    result: Lane = jax.tree.map(lambda n, o: jnp.where(mask.reshape(-1, *(1,) * (n.ndim - 1)), n, o), new, old)
    return result


def segment(
    recipe: SegmentConfig,
    lanes: Lane,
    slots: SegmentInputs,
    stop: Any,
    evaluating: Any,
    seed: Any,
    train: Arrays,
    valid: Arrays,
) -> tuple[Lane, SegmentOutputs]:
    """What one device does with its own chunks, (chunks, width): the live ones, one after the other, in place."""
    blank = _nothing(recipe.shapes, slots.trial.shape)

    def body(c: jax.Array, carry: Any) -> Any:
        lanes, found, iterations = carry
        at = partial(_at, index=c)
        mine = slots._replace(
            **{name: at(getattr(slots, name)) for name in SegmentInputs._fields if name != "live_chunks"}
        )
        new, emitted = _run_chunk(recipe, at(lanes), mine, stop, evaluating, seed, train, valid)
        lanes, found = jax.tree.map(
            lambda whole, part: lax.dynamic_update_index_in_dim(whole, part, c, 0), (lanes, found), (new, emitted)
        )
        return lanes, found, iterations + mine.alive.any()

    carry = (lanes, blank, jnp.zeros((), jnp.int32))
    lanes, found, iterations = lax.fori_loop(0, slots.live_chunks, body, carry)
    over = (lanes.diverged != HEALTHY) | found.done | (evaluating & (lanes.step >= slots.budget))
    # Copies, since the lanes are donated to the next call before the host may have read these.
    return lanes, SegmentOutputs(jnp.copy(lanes.step), jnp.copy(lanes.diverged), found, slots.alive & ~over, iterations)
