"""Prefetches the batches of a data stream: while the devices compute on one block, a thread draws the next."""

import threading
import time
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.data.stream import Part, Pass, Position, Stream
from hpjax.engine import sharding
from hpjax.engine.lane_shards import part_here
from hpjax.engine.partition import block_specs

# Seconds that closing waits for a batch that is being drawn, and after that for the iterator to end its own threads
# and processes.
DRAW_SECONDS, CLEANUP_SECONDS = 1.0, 30.0


class Block(NamedTuple):
    """Consecutive batches of a stream.

    Attributes:
      begin: the step that takes the first of them, a multiple of how many there are.
      arrays: the batches, leaves of shape (block, batch, ...), whole on each device or, where a lane spans several,
        divided among these; zeros in place of batches after the last step.
      before, after: the position in the stream before they were drawn, and after.
    """

    begin: int
    arrays: Any
    before: Position
    after: Position


class BlockPrefetcher:
    """One pass of a wave over a stream, block by block. A thread of its own draws the batches until ``close``.

    Args:
      stream: the stream that batches are drawn from.
      mesh: the devices that get them.
      step: the first step whose batch is needed.
      steps: how many steps the wave takes in all, counted from 0.
      position: the position in the stream at ``step`` or before it.
    """

    def __init__(self, stream: Stream, mesh: jax.sharding.Mesh, step: int, steps: int, position: Position) -> None:
        self._stream, self._mesh, self._steps, self._begin = stream, mesh, steps, position
        self._part = stream.drawn(Part(*part_here(mesh)), mesh.shape.get(sharding.DATA, 1))
        self._x64 = bool(getattr(jax.config, "jax_enable_x64"))  # noqa: B009  mypy does not know it
        self._current: Block | None = None
        self._asked: SimpleQueue[tuple[int, Future[Block]] | None] = SimpleQueue()
        self._closed = threading.Event()
        # A daemon: a source that hangs does not keep the process.
        self._thread = threading.Thread(target=self._draw, name=f"hpjax stream {stream.name}", daemon=True)
        self._thread.start()
        self._coming = self._ask(step - step % stream.block)

    def at(self, step: int) -> tuple[Any, float]:
        """Returns the block that holds the batch of a step, and the seconds that it waited for it.

        Args:
          step: which step; at or after those that were asked for before.

        Raises:
          RunError, InputError: the stream fails, or a batch is not like the first.
        """
        begun, begin = time.perf_counter(), step - step % self._stream.block
        if self._current is None or self._current.begin != begin:
            self._current = None  # the devices have no more than two
            if self._coming[0] != begin:
                self._coming[1].result()
                self._coming = self._ask(begin)
            self._current = self._coming[1].result()
            if begin + self._stream.block < self._steps:
                self._coming = self._ask(begin + self._stream.block)
        if isinstance(jax.tree.leaves(self._current.arrays)[0], sharding.HostCopy):
            again = sharding.put_copies(self._current.arrays, self._mesh, self._specs)
            self._current = self._current._replace(arrays=again)
        return self._current.arrays, time.perf_counter() - begun

    def offload(self) -> None:
        """Moves its blocks from the devices to the host, until ``at`` needs them there again."""
        begin, coming = self._coming
        if coming.exception() is None:
            waiting: Future[Block] = Future()
            waiting.set_result(_on_host(coming.result()))
            self._coming = begin, waiting
        if self._current is not None:
            self._current = _on_host(self._current)

    def position(self, step: int) -> Position:
        """Returns the position in the stream before the block that the next step needs.

        A block that is drawn ahead does not count: whoever goes on from this position draws it again.

        Args:
          step: the next step.
        """
        if self._current is None:
            return self._begin
        used = step >= self._current.begin + self._stream.block
        return self._current.after if used else self._current.before

    def close(self) -> None:
        """Ends the thread after the batch that it is drawing, and frees the blocks. A thread that hangs stays."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._asked.put(None)
        begin, coming = self._coming
        # A run keeps its prefetchers to the end, to close them again; their blocks must not wait for that.
        self._current, self._coming = None, (begin, Future())
        if threading.current_thread() is self._thread:  # an iterator's garbage collection may bring it here
            return
        if wait([coming], DRAW_SECONDS).done:
            self._thread.join(CLEANUP_SECONDS)

    def _ask(self, begin: int) -> tuple[int, "Future[Block]"]:
        """Has the thread draw the block that begins at a step."""
        coming: tuple[int, Future[Block]] = begin, Future()
        self._asked.put(coming)
        return coming

    def _draw(self) -> None:
        """Draws the blocks that are asked for; runs in the thread."""
        draws = Pass(self._stream, self._begin, self._part)
        with jax.enable_x64(self._x64):  # JAX has this setting for each thread apart
            while (asked := self._asked.get()) is not None:
                self._answer(draws, *asked)
                del asked  # or the block would stay in memory until the next one is asked for

    def _answer(self, draws: Pass, begin: int, future: "Future[Block]") -> None:
        """Draws one block into its future."""
        try:
            future.set_result(self._block(draws, begin))
        except BaseException as error:  # whatever it is: the main thread raises it where it waits for the block
            future.set_exception(error)

    def _block(self, draws: Pass, begin: int) -> Block:
        """Draws one block and puts it on the devices."""
        draws.skip(begin)
        before, size = draws.position(), self._stream.block
        # New arrays for each block: a CPU device may use them in place, without a copy.
        own = jax.tree.map(lambda a: np.zeros((size, *a.shape), a.dtype), self._part.of(self._stream.first))
        for i in range(min(size, self._steps - begin)):
            if self._closed.is_set():
                raise RuntimeError("the prefetcher is closed")
            # Copied before the next draw: some iterators fill the same arrays again and again.
            jax.tree.map(lambda a, batch, i=i: a.__setitem__(i, batch), own, draws.draw())
        return Block(begin, jax.block_until_ready(self._put(own)), before, draws.position())

    @property
    def _specs(self) -> Any:
        return block_specs(self._stream.shapes, self._mesh)

    def _put(self, own: Any) -> Any:
        """Returns a block on the devices, from what this host drew of it."""
        if self._part.total == 1:
            return sharding.put(own, self._mesh, self._specs)
        return sharding.put_own(own, self._stream.shapes, self._mesh, self._specs)


def _on_host(block: Block) -> Block:
    return block._replace(arrays=sharding.copies(block.arrays))
