"""The programs of a group: many lanes start, advance and are evaluated together. Pure functions.

They are three programs, so that training begins before the evaluation is compiled, and compilers work side by side.

A *span* is what computes a chunk: one device, or the devices that share each of its lanes. "A device" here is a span,
which is one for what runs on it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hpjax.core.hparams import Hparams, with_fold
from hpjax.core.program import Arrays, Program
from hpjax.engine.lane import HEALTHY, Evaluation, StepKeys, advance_lane, counted_steps, evaluate_lane, start_lane
from hpjax.engine.lane_shards import LaneArrays
from hpjax.engine.partition import Span, divided_for
from hpjax.engine.shapes import Lane, ProgramShapes, float_type
from hpjax.engine.sharding import DATA


class SegmentInputs(NamedTuple):
    """The values that differ between the lanes of a group; arrays are (spans, chunks, width) except the last.

    Attributes:
      h: the traced hyperparameters; its leaves are the arrays.
      key: uint32 (spans, chunks, width, 2), the data of the lanes' keys.
      alive: bool, which lanes train; the others keep their state.
      budget: int32, the step at which each lane ends.
      replicate: int32, the replicate of each lane.
      live_chunks: int32 (spans,), how many leading chunks each span computes.
    """

    h: Hparams
    key: Any
    alive: Any
    budget: Any
    replicate: Any
    live_chunks: Any


class SegmentOutputs(NamedTuple):
    """The values that the host reads after a segment; arrays are (spans, chunks, width) except the last.

    Attributes:
      step: int32, steps taken.
      diverged: int32, the step of divergence or ``HEALTHY``.
      evaluation: the metrics and flags of the evaluation; None where the segment ends without one.
      alive: bool, the lanes that continue after it, as far as the device knows: the host may stop more.
      iterations: int32 (spans,), how many computed chunks had a live lane.
    """

    step: Any
    diverged: Any
    evaluation: Evaluation | None
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
      drawn: whether random numbers are drawn by other kernels than JAX's, where the program draws by itself.
      folds: how many folds there are; replicate ``r`` has seed ``r // folds`` and, where there is more than one, fold
        ``r % folds``.
      block: where the train split is a stream, how many batches a segment gets of it: the batch of step ``t`` is at
        index ``t % block``. None for a split that is an array.
      span: the devices that each lane spans, None for one.
    """

    program: Program
    shapes: ProgramShapes
    width: int
    independent: bool
    own_budget: bool
    spread: str = "shard_map"
    lowered: bool = False
    drawn: bool = False
    folds: int = 1
    block: int | None = None
    span: Span | None = None

    @property
    def arrays(self) -> LaneArrays:
        """What the arrays of a lane are, and how the devices that it spans split them."""
        span = self.span
        state, of = ((), 1) if span is None else (span.state, span.mesh.shape[DATA])
        return LaneArrays.of_program(self.shapes, state, of)

    def lanes(self, lane: Lane) -> Lane:
        """Returns lanes, of a chunk or of all, as their devices share them."""
        return lane if self.span is None else self.span.lanes(lane)


class _Chunk(NamedTuple):
    """What differs between the lanes of a chunk, and how ``vmap`` widens functions of it.

    Attributes:
      identity: the key, the fold and the hyperparameters.
      axes: the axis of each along which lanes lie; None for what the chunk shares.
      vectorize: ``jax.vmap`` for so many lanes.
      hparams: returns the hyperparameters that the program sees of a lane, from its fold and its own.
    """

    identity: tuple[jax.Array, jax.Array, Hparams]
    axes: tuple[int | None, int | None, int]
    vectorize: Callable[..., Any]
    hparams: Callable[[jax.Array, Hparams], Hparams]

    @classmethod
    def of(cls, config: SegmentConfig, inputs: SegmentInputs) -> "_Chunk":
        """Returns what one chunk has; arrays of ``inputs`` are (width,)."""

        # Shared keys stay outside vmap: then noise is drawn and the batch gathered once a step, not once a lane. A
        # chunk holds lanes of one replicate in that case (see layout.arrange), so one live lane's replicate is that of
        # all. The maximum picks it without a gather; dead lanes, which may be of another replicate, and empty slots
        # count as 0.
        def of_all(x: jax.Array) -> jax.Array:
            alive = inputs.alive.reshape(-1, *(1,) * (x.ndim - 1))
            return x if config.independent else jnp.max(jnp.where(alive, x, 0), axis=0)

        key_axis, replicate = 0 if config.independent else None, of_all(inputs.replicate)
        key = jax.random.wrap_key_data(of_all(inputs.key), impl="threefry2x32")

        def hparams(fold: jax.Array, h: Hparams) -> Hparams:
            # Without folds ``h`` has no ``fold``, and reading it is an error.
            return with_fold(h, fold, config.folds) if config.folds > 1 else h

        # The width is given by number: where a group has no traced hyperparameters and shares its keys, ``start`` has
        # no mapped argument from which vmap could find it out.
        vectorize = partial(jax.vmap, axis_size=config.width)
        return cls((key, replicate % config.folds, inputs.h), (key_axis, key_axis, 0), vectorize, hparams)


def start_lanes(config: SegmentConfig, lanes: Lane, inputs: SegmentInputs) -> tuple[Lane, None]:
    """Initializes the lanes of one device, in place.

    Args:
      config: what the program was compiled for.
      lanes: the device's lanes, all zeros; leaves are (chunks, width, ...).
      inputs: (chunks, width), and ``live_chunks``, ().
    """

    def start_chunk(old: Lane, own: SegmentInputs) -> tuple[Lane, None]:
        chunk = _Chunk.of(config, own)

        def start(key: jax.Array, fold: jax.Array, h: Hparams) -> Lane:
            return start_lane(config.program, config.shapes, key, chunk.hparams(fold, h))

        new: Lane = chunk.vectorize(start, in_axes=chunk.axes)(*chunk.identity)
        # Half of a state, or more, are the zeros of an optimizer.
        state = tuple(o if zero else n for n, o, zero in zip(new.state, old.state, config.shapes.zeros, strict=True))
        return Lane(state, old.totals, old.counted, old.step, new.diverged), None

    # Empty slots get a state as well: a loop in the program's step, computed for them too, ends as it does for others.
    return _over_chunks(config, start_chunk, lanes, inputs, None, keep_dead=False)


def advance_lanes(
    config: SegmentConfig, lanes: Lane, inputs: SegmentInputs, stop: Any, train: Arrays
) -> tuple[Lane, SegmentOutputs]:
    """Advances the lanes of one device to step ``stop``; its leading, live chunks one after the other, in place.

    Args:
      config: what the program was compiled for.
      lanes: the device's lanes; leaves are (chunks, width, ...).
      inputs: (chunks, width), and ``live_chunks``, ().
      stop: the step at which the segment ends, int32 ().
      train: the train split, whole on the device; of a stream one block of batches.

    Returns:
      The lanes, and what the host reads of them; arrays as in ``inputs``.
    """

    def advance_chunk(old: Lane, own: SegmentInputs) -> tuple[Lane, jax.Array]:
        chunk = _Chunk.of(config, own)
        key, fold, h = chunk.identity
        keys = jax.vmap(StepKeys.of)(key) if config.independent else StepKeys.of(key)
        # All live lanes of a group stand at the same step; dead ones may have stopped anywhere, so they do not count.
        begin = jnp.max(jnp.where(own.alive, old.step, 0))
        # Steps after the end of the chunk's last lane are not computed, and of a chunk in which nobody lives none.
        end = jnp.minimum(stop, jnp.max(jnp.where(own.alive, own.budget, 0)))

        def advance(t: jax.Array, lanes: Lane) -> Lane:
            lanes = config.lanes(lanes)
            # The step is one number for the chunk, not one a lane: with a mapped index every lane would gather a batch.
            batches = train if config.block is None else _at(train, t % config.block)

            def step(keys: StepKeys, fold: jax.Array, h: Hparams, lane: Lane) -> Lane:
                h = chunk.hparams(fold, h)
                return advance_lane(config.program, config.shapes, keys, t, lane, batches, h)

            moved: Lane = chunk.vectorize(step, in_axes=(*chunk.axes, 0))(keys, fold, h, lanes)
            # A select over the whole state in each step is dear, so programs whose lanes all end together do without.
            if config.own_budget and config.width > 1:
                moved = jax.tree.map(partial(_select, t < own.budget), moved, lanes)
            return config.lanes(moved)

        # The trip count is a traced number: fewer steps take less time and compile nothing (law 3).
        lanes = lax.fori_loop(begin, end, advance, old)
        return counted_steps(lanes, jnp.minimum(end, own.budget)), own.alive.any()

    blank = jnp.zeros(inputs.alive.shape[:1], bool)
    # A lane that is alone in its chunk takes no step where it is dead.
    lanes, counted = _over_chunks(config, advance_chunk, lanes, inputs, blank, keep_dead=config.width > 1)
    step, diverged = jnp.copy(lanes.step), jnp.copy(lanes.diverged)
    iterations = counted.sum(dtype=jnp.int32)
    return lanes, SegmentOutputs(step, diverged, None, inputs.alive & (diverged == HEALTHY), iterations)


def evaluate_lanes(
    config: SegmentConfig, lanes: Lane, inputs: SegmentInputs, splits: tuple[Arrays, Arrays]
) -> tuple[Lane, tuple[Evaluation, jax.Array, jax.Array]]:
    """Evaluates the live lanes of one device, and has the program react to it, in place.

    Args:
      config: what the program was compiled for.
      lanes: the device's lanes; leaves are (chunks, width, ...).
      inputs: (chunks, width), and ``live_chunks``, ().
      splits: the train and valid splits, whole on the device; None in place of a train split that nothing looks at.

    Returns:
      The lanes; and of them the evaluation, and ``diverged`` and ``alive`` after it, as in ``SegmentOutputs``.
    """
    train, valid = splits
    splits = divided_for(config.program.inspect, train), divided_for(config.program.evaluate, valid)

    def evaluate_chunk(old: Lane, own: SegmentInputs) -> tuple[Lane, Evaluation]:
        chunk = _Chunk.of(config, own)

        def look(key: jax.Array, fold: jax.Array, h: Hparams, lane: Lane, budget: jax.Array) -> tuple[Lane, Evaluation]:
            h = chunk.hparams(fold, h)
            return evaluate_lane(config.program, config.shapes, key, lane, budget, splits, h)

        evaluated: tuple[Lane, Evaluation] = chunk.vectorize(look, in_axes=(*chunk.axes, 0, 0))(
            *chunk.identity, old, own.budget
        )
        return evaluated

    blank = _no_evaluation(config.shapes, inputs.alive.shape)
    lanes, evaluation = _over_chunks(config, evaluate_chunk, lanes, inputs, blank)
    # The device decides by itself which lanes have ended, so that the next segment can be dispatched before the host
    # has read this one. A lane that reached its budget still counts as live until it is evaluated there.
    diverged = jnp.copy(lanes.diverged)
    over = (diverged != HEALTHY) | evaluation.done | (lanes.step >= inputs.budget)
    return lanes, (evaluation, diverged, inputs.alive & ~over)


def _over_chunks(
    config: SegmentConfig,
    run: Callable[[Lane, SegmentInputs], tuple[Lane, Any]],
    lanes: Lane,
    inputs: SegmentInputs,
    blank: Any,
    keep_dead: bool = True,
) -> tuple[Lane, Any]:
    """Runs a function of each live chunk, one after the other, and returns the lanes and what it gives besides.

    Args:
      config: what the program was compiled for.
      run: a function of a chunk's lanes and inputs.
      lanes: the device's lanes; leaves are (chunks, width, ...).
      inputs: (chunks, width), and ``live_chunks``, ().
      blank: what the other chunks give, a pytree of arrays (chunks, ...).
      keep_dead: whether dead lanes, which are computed along with their chunk, keep the state that they have: it is
        what the run records of them.
    """

    def body(c: jax.Array, carry: Any) -> Any:
        at = partial(_at, index=c)
        own = inputs._replace(
            **{name: at(getattr(inputs, name)) for name in SegmentInputs._fields if name != "live_chunks"}
        )
        old, found = carry
        old = config.lanes(old)

        def held(whole: jax.Array) -> jax.Array:
            return lax.dynamic_slice_in_dim(whole, c, 1, axis=1)

        before = jax.tree.map(lambda whole: lax.squeeze(held(whole), (0, 1)), old)
        after, new = run(before, own)

        # Written back at the same place of the carry, so that XLA updates the donated buffers in place: a device holds
        # the state of all lanes once, and the intermediate values of one chunk.
        def written(whole: jax.Array, part: jax.Array) -> Any:
            return lax.dynamic_update_slice_in_dim(whole, part, c, axis=1)

        def updated(whole: jax.Array, before: jax.Array, after: jax.Array) -> Any:
            if after is before:  # what a function does not change, as an evaluation most of the state, costs nothing
                return whole
            after = after[None, None]
            # Dead lanes' states are read from the place to which they are written, with the axis of chunks: so XLA
            # makes one kernel of reading, selecting and writing. Selecting from ``before`` would take a second slice
            # of each array, and hold it in memory for as long as the function runs.
            return written(whole, _select(own.alive, after, held(whole), axis=2) if keep_dead else after)

        found = jax.tree.map(lambda whole, part: written(whole, part[None, None]), found, new)
        return config.lanes(jax.tree.map(updated, old, before, after)), found

    # Carried with the first axis of what the device was given, (1, chunks, width, ...): where a chunk has one lane, XLA
    # would copy all lanes into another layout of the same bytes to take that axis off, and hold them twice.
    carry: Any = jax.tree.map(lambda x: x[None], (lanes, blank))
    # The trip count is a traced number: fewer live chunks take less time and compile nothing (laws 3 and 4).
    carry = lax.fori_loop(0, inputs.live_chunks, body, carry)
    found: tuple[Lane, Any] = jax.tree.map(lambda x: lax.squeeze(x, (0,)), carry)
    return found


def _at(tree: Any, index: Any) -> Any:
    """Returns the entry at ``index`` of the first axis of each array."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, keepdims=False), tree)


def _no_evaluation(shapes: ProgramShapes, grid: tuple[int, ...]) -> Evaluation:
    """Returns the evaluation of lanes that are not evaluated: NaN and False, of the shape ``grid``."""
    return Evaluation({name: jnp.full(grid, jnp.nan, float_type()) for name in shapes.metrics}, jnp.zeros(grid, bool))


def _select(mask: jax.Array, new: jax.Array, old: jax.Array, axis: int = 0) -> jax.Array:
    """Returns ``new`` where ``mask``, bool (width,), is true, and ``old`` elsewhere; lanes lie along ``axis``."""
    return old if new is old else lax.select(lax.broadcast_in_dim(mask, old.shape, (axis,)), new, old)
