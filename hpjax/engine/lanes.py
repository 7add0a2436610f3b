"""The vectorized segment: many lanes of one group, advanced by one compiled call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from hpjax.engine import lane as one
from hpjax.engine import layout, spread
from hpjax.engine.lane import HEALTHY, Evaluation, Lane, Shapes
from hpjax.engine.lower import lowering
from hpjax.hparams import Hparams, with_fold
from hpjax.keys import lane_key
from hpjax.program import Arrays, Program

Ints = NDArray[np.int32]


class Slots(NamedTuple):
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


class Emitted(NamedTuple):
    """What a segment tells the host; each array has shape (devices, chunks, width) but the last.

    Attributes:
      step: int32, steps taken.
      diverged: int32, the step of divergence or ``HEALTHY``.
      evaluation: what this evaluation found; NaN where the segment ends without one.
      iterations: int32 (devices,), chunks computed.
    """

    step: Any
    diverged: Any
    evaluation: Evaluation
    iterations: Any


class Recipe(NamedTuple):
    """What decides a group's compiled program, besides the shapes of its arrays.

    Attributes:
      program: what the lanes do.
      shapes: what it gives.
      width: lanes a chunk.
      own_luck: every trial has noise and batches of its own; else all of a replicate share theirs.
      own_budget: lanes may end at different steps; a finished one then keeps its state.
      spread: how lanes are spread over devices, ``"shard_map"`` or ``"pmap"``.
      lowered: whether convolutions and pooling are matrix products.
      folds: replicate ``r`` has seed ``r // folds`` and, where there is more than one, fold ``r % folds``.
      block: where the train split is a stream, how many batches a segment gets of it, that of step ``t`` at
        ``t % block``; else None.
    """

    program: Program
    shapes: Shapes
    width: int
    own_luck: bool
    own_budget: bool
    spread: str = "shard_map"
    lowered: bool = False
    folds: int = 1
    block: int | None = None


def _run_chunk(
    recipe: Recipe, old: Lane, slots: Slots, stop: Any, evaluating: Any, seed: Any, train: Arrays, valid: Arrays
) -> tuple[Lane, Evaluation]:
    """Advances the lanes of one chunk to step ``stop``; arrays of ``slots`` have shape (width,)."""
    program, shapes = recipe.program, recipe.shapes
    # The width by name: a group without traced hyperparameters has nothing else to tell it.
    many = partial(jax.vmap, axis_size=recipe.width)
    # Shared keys stay outside vmap: noise is drawn and the batch gathered once a step, not once a lane.
    key_axis = 0 if recipe.own_luck else None
    replicate = slots.replicate if recipe.own_luck else jnp.max(jnp.where(slots.alive, slots.replicate, 0))
    key = (
        jax.vmap(partial(lane_key, seed))(replicate // recipe.folds, slots.trial)
        if recipe.own_luck
        else lane_key(seed, replicate // recipe.folds)
    )
    # What tells a lane from its neighbours: its key, where it has one of its own its fold, and its hyperparameters.
    who = (key, replicate % recipe.folds, slots.h)
    axes = (key_axis, key_axis, 0)

    def hparams(fold: jax.Array, h: Hparams) -> Hparams:
        return with_fold(h, fold, recipe.folds) if recipe.folds > 1 else h

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
        def look(key: jax.Array, fold: jax.Array, h: Hparams, lane: Lane) -> tuple[Lane, Evaluation]:
            return one.evaluate(program, shapes, key, lane, valid, hparams(fold, h))

        result: tuple[Lane, Evaluation] = many(look, in_axes=(*axes, 0))(*who, lanes)
        return result

    def silent(lanes: Lane) -> tuple[Lane, Evaluation]:
        return lanes, _nothing(shapes, (recipe.width,))

    lanes = lax.cond(begin == 0, init, lambda lanes: lanes, old)
    lanes = lax.fori_loop(begin, end, advance, lanes)
    lanes, evaluation = lax.cond(evaluating, evaluate, silent, lanes)
    return _keep(slots.alive, lanes, old), evaluation


def _at(tree: Any, index: Any) -> Any:
    """What stands at ``index`` of the first axis of each array."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, keepdims=False), tree)


def _nothing(shapes: Shapes, grid: tuple[int, ...]) -> Evaluation:
    """What lanes find where they are not evaluated."""
    return Evaluation(
        {name: jnp.full(grid, jnp.nan, one.float_type()) for name in shapes.metrics}, jnp.zeros(grid, bool)
    )


def _keep(mask: jax.Array, new: Lane, old: Lane) -> Lane:
    """``new`` where ``mask``, (width,), is true, else ``old``."""
    result: Lane = jax.tree.map(lambda n, o: jnp.where(mask.reshape(-1, *(1,) * (n.ndim - 1)), n, o), new, old)
    return result


def _segment(
    recipe: Recipe, lanes: Lane, slots: Slots, stop: Any, evaluating: Any, seed: Any, train: Arrays, valid: Arrays
) -> tuple[Lane, Emitted]:
    """What one device does with its own chunks, (chunks, width): the live ones, one after the other, in place."""
    blank = _nothing(recipe.shapes, slots.trial.shape)

    def body(c: jax.Array, carry: Any) -> Any:
        lanes, found, iterations = carry
        at = partial(_at, index=c)
        mine = slots._replace(**{name: at(getattr(slots, name)) for name in Slots._fields if name != "live_chunks"})
        new, emitted = _run_chunk(recipe, at(lanes), mine, stop, evaluating, seed, train, valid)
        lanes, found = jax.tree.map(
            lambda whole, part: lax.dynamic_update_index_in_dim(whole, part, c, 0), (lanes, found), (new, emitted)
        )
        return lanes, found, iterations + 1

    carry = (lanes, blank, jnp.zeros((), jnp.int32))
    lanes, found, iterations = lax.fori_loop(0, slots.live_chunks, body, carry)
    # Copies, since the lanes are donated to the next call before the host may have read these.
    return lanes, Emitted(jnp.copy(lanes.step), jnp.copy(lanes.diverged), found, iterations)


@dataclass(frozen=True)
class Compiled:
    """A group's program, compiled for lanes of one arrangement.

    Attributes:
      segment: the executable.
      mesh: the devices.
      spread: how lanes are spread over them.
      lanes: shapes of the lanes that it carries, (devices, chunks, width, ...).
    """

    segment: Any
    mesh: jax.sharding.Mesh
    spread: str
    lanes: Lane

    @cached_property
    def permute(self) -> Any:
        """The executable that moves lanes between slots: compiled when lanes first retire, never again.

        ``permute(lanes, source)`` has in slot i what was in flat slot ``source[i]``.
        """
        grid = self.lanes.step.shape

        def move(lanes: Lane, source: jax.Array) -> Lane:
            def moved(x: jax.Array) -> jax.Array:
                # Gathered whole, not by a masked sum over devices, which would lose the sign of zero.
                x = lax.all_gather(x, spread.AXIS)
                return x.reshape(-1, *x.shape[3:])[source]

            result: Lane = jax.tree.map(moved, lanes)
            return result

        function = spread.per_device(move, self.mesh, (spread.SPLIT, spread.SPLIT), self.spread)
        source = jax.ShapeDtypeStruct(grid, jnp.int32)
        return function.lower(*spread.structs((self.lanes, source), self.mesh, spread.SPLIT)).compile()


def _slot_structs(h: Hparams, grid: tuple[int, ...]) -> Slots:
    whole = jax.ShapeDtypeStruct(grid, jnp.int32)
    return Slots(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(grid, x.dtype), h),
        whole,
        jax.ShapeDtypeStruct(grid, jnp.bool_),
        whole,
        whole,
        jax.ShapeDtypeStruct(grid[:1], jnp.int32),
    )


# What each program was compiled to, for as long as the program lives: a second sweep of it compiles nothing.
_compiled: WeakKeyDictionary[Program, dict[Any, Compiled]] = WeakKeyDictionary()


def compile_segment(
    recipe: Recipe, h: Hparams, train: Arrays, valid: Arrays, mesh: jax.sharding.Mesh, chunks: int
) -> Compiled:
    """Compiles the segment of a group ahead of time, so that no later call can retrace.

    Args:
      recipe: what the lanes do.
      h: hyperparameters of the group whose leaves have a dtype.
      train, valid: the splits, or their shapes; of a stream those of a block.
      mesh: the devices.
      chunks: chunks a device.
    """
    # Equal keys mean equal programs: what else the shapes depend on follows from the program and these.
    types = tuple(leaf.dtype for leaf in jax.tree.leaves(h))
    key = (recipe[2:], jax.tree.structure(h), types, mesh, chunks, one.float_type())
    known = _compiled.setdefault(recipe.program, {})
    if key in known:
        return known[key]
    grid = (mesh.devices.size, chunks, recipe.width)
    many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*grid, *x.shape), x.dtype), one.blank(recipe.shapes))
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    split, whole = spread.SPLIT, spread.WHOLE
    specs = (split, split, whole, whole, whole, whole, whole)
    function = spread.per_device(partial(_segment, recipe), mesh, specs, recipe.spread)
    arguments = (
        *spread.structs((many, _slot_structs(h, grid)), mesh, split),
        *spread.structs((scalar, jax.ShapeDtypeStruct((), jnp.bool_), scalar, train, valid), mesh, whole),
    )
    with lowering(recipe.lowered):
        traced = function.lower(*arguments)
    known[key] = Compiled(traced.compile(), mesh, recipe.spread, many)
    return known[key]


class Cohort(NamedTuple):
    """The lanes that enter a group together: arrays of shape (lanes,).

    Attributes:
      trial: int32 trial ids.
      replicate: int32.
      budget: int32, the call of ``step`` after which each ends.
      h: the hyperparameters; leaves of shape (lanes,).
    """

    trial: Ints
    replicate: Ints
    budget: Ints
    h: Hparams


class Report(NamedTuple):
    """What a segment brought, for the lanes that were live when it began; arrays of shape (live,).

    Attributes:
      lanes: their numbers in the cohort.
      step: steps taken.
      diverged: the step of divergence, or ``HEALTHY``.
      done: bool, whether the program calls its trial complete.
      metrics: name to values, empty where the segment ended without an evaluation.
      iterations: chunks computed by all devices.
    """

    lanes: Ints
    step: Ints
    diverged: Ints
    done: NDArray[np.bool_]
    metrics: dict[str, NDArray[np.floating[Any]]]
    iterations: int


def luck_of(replicate: Ints, own_luck: bool) -> Ints:
    """Equal numbers for lanes that may stand in one chunk: those of a replicate, or where each draws for itself all."""
    return np.zeros_like(replicate) if own_luck else replicate


class Lanes:
    """The lanes of one group on their devices; ``train`` and ``valid`` are there already, whole on each.

    Where the train split is a stream, each segment brings a block of it in its place.

    Finished lanes keep their state behind the live ones, which stand in front: a segment computes the
    chunks of the live ones and no others.
    """

    def __init__(self, recipe: Recipe, compiled: Compiled, cohort: Cohort, seed: int, train: Arrays, valid: Arrays):
        self._recipe, self._compiled, self._cohort = recipe, compiled, cohort
        self._mesh = compiled.mesh
        self._fixed = (spread.put(np.int32(seed), self._mesh, spread.WHOLE), train, valid)
        self._luck = luck_of(cohort.replicate, recipe.own_luck)
        self.live = np.ones(len(cohort.trial), bool)
        self._place()
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), compiled.lanes)
        self._lanes: Lane = spread.put(zeros, self._mesh, spread.SPLIT)

    def _place(self) -> None:
        cohort = self._cohort
        devices, chunks, width = self._compiled.lanes.step.shape
        self._layout = layout.arrange(self._luck, self.live, width, devices, chunks)
        slots = self._layout.slots
        filled = np.where(slots == layout.EMPTY, 0, slots)
        self._slots = spread.put(
            Slots(
                jax.tree.map(lambda x: x[filled], cohort.h),
                cohort.trial[filled],
                (slots != layout.EMPTY) & self.live[filled],
                cohort.budget[filled],
                cohort.replicate[filled],
                self._layout.live_chunks,
            ),
            self._mesh,
            spread.SPLIT,
        )

    def park(self) -> None:
        """Moves the state to the host, until it is needed on the devices again."""
        self._lanes = spread.fetch(self._lanes, self._mesh)

    def advance(self, stop: int, evaluate: bool, block: Arrays = None) -> Report:
        """Takes the live lanes to step ``stop``, or to their own end before it, in one device call.

        Args:
          stop: the step.
          evaluate: whether they are evaluated there.
          block: of a stream the batches of these steps, on the devices.
        """
        self._return()
        seed, train, valid = self._fixed
        self._lanes, emitted = self._compiled.segment(
            self._lanes,
            self._slots,
            np.int32(stop),
            np.bool_(evaluate),
            seed,
            train if self._recipe.block is None else block,
            valid,
        )
        found: Emitted = spread.fetch(emitted, self._mesh)
        lanes = np.flatnonzero(self.live).astype(np.int32)
        at = self._layout.positions(len(self.live))[lanes]
        return Report(
            lanes,
            found.step.reshape(-1)[at],
            found.diverged.reshape(-1)[at],
            found.evaluation.done.reshape(-1)[at],
            {name: values.reshape(-1)[at] for name, values in found.evaluation.metrics.items()} if evaluate else {},
            int(found.iterations.sum()),
        )

    def retire(self, lanes: Sequence[int] | Ints) -> None:
        """Ends lanes: they keep their state and cost nothing from the next segment on."""
        if len(lanes) == 0:
            return
        self.live[np.asarray(lanes)] = False
        before, shape = self._layout, self._layout.slots.shape
        if not self.live.any():
            return
        fewer = layout.chunks_needed(self._luck[self.live], shape[2], shape[0]) < before.live_chunks.max()
        # A chunk without a live lane would still be computed, and an uneven device would keep the others waiting.
        if fewer or layout.idle_chunks(before, self.live):
            self._place()
            self._move(before.positions(len(self.live)))
        else:
            slots = self._layout.slots
            alive = (slots != layout.EMPTY) & self.live[np.where(slots == layout.EMPTY, 0, slots)]
            self._slots = self._slots._replace(alive=spread.put(alive, self._mesh, spread.SPLIT))

    def _return(self) -> None:
        if not isinstance(self._lanes.step, jax.Array):
            self._lanes = spread.put(self._lanes, self._mesh, spread.SPLIT)

    def lane(self, number: int) -> Lane:
        """One lane of those that are parked."""
        at = np.unravel_index(self._layout.positions(len(self.live))[number], self._lanes.step.shape)
        found: Lane = jax.tree.map(lambda x: x[at].copy(), self._lanes)
        return found

    def clone(self, sources: Mapping[int, int | Lane], points: Hparams) -> None:
        """Lanes go on, or run again, from the state of others.

        Args:
          sources: lane to the lane whose state it takes over, all at once; or that state itself, where it comes from
            elsewhere.
          points: the hyperparameters that they go on with; leaves of shape (lanes that take over,), in that order.
        """
        targets = np.fromiter(sources, np.int32, len(sources))
        for whole, new in zip(jax.tree.leaves(self._cohort.h), jax.tree.leaves(points), strict=True):
            whole[targets] = new
        self.live[targets] = True
        before = self._layout.positions(len(self.live))
        self._place()
        source = np.arange(len(self.live))
        source[targets] = [lane if isinstance(lane, int) else target for target, lane in sources.items()]
        self._move(before[source])
        foreign = {target: lane for target, lane in sources.items() if not isinstance(lane, int)}
        if foreign:
            self._lanes = jax.tree.map(np.array, spread.fetch(self._lanes, self._mesh))
            after = self._layout.positions(len(self.live))
            for target, lane in foreign.items():
                at = np.unravel_index(after[target], self._lanes.step.shape)
                jax.tree.map(lambda x, new, at=at: x.__setitem__(at, new), self._lanes, lane)

    def _move(self, positions: Ints) -> None:
        """Takes each lane's state from that flat slot to where the layout now wants it."""
        self._return()
        slots = self._layout.slots
        wanted = np.where(slots == layout.EMPTY, 0, positions[slots]).astype(np.int32)
        self._lanes = self._compiled.permute(self._lanes, spread.put(wanted, self._mesh, spread.SPLIT))

    def snapshot(self) -> Lane:
        """Every lane of the cohort, on the host; leaves of shape (lanes, ...)."""
        at = self._layout.positions(len(self.live))
        found: Lane = jax.tree.map(lambda x: spread.fetch(x, self._mesh).reshape(-1, *x.shape[3:])[at], self._lanes)
        return found

    def restore(self, lanes: Lane, live: NDArray[np.bool_]) -> None:
        """Makes every lane what it was when ``snapshot`` was called, wherever it then stood; ``live`` as then."""
        self.live = live.copy()
        self._place()
        at = self._layout.positions(len(self.live))

        def placed(like: Any, values: NDArray[Any]) -> NDArray[Any]:
            whole = np.zeros(like.shape, like.dtype)
            whole.reshape(-1, *like.shape[3:])[at] = values
            return whole

        host = jax.tree.map(placed, self._compiled.lanes, lanes)
        self._lanes = spread.put(host, self._mesh, spread.SPLIT)


__all__ = ["HEALTHY", "Cohort", "Compiled", "Lanes", "Recipe", "Report", "compile_segment", "luck_of"]
