"""A feed: one pass of a wave over a stream, with the next block on its way while the devices compute on this one."""

import threading
import time
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.data.stream import Pass, Position, Stream
from hpjax.engine import sharding

# Seconds that closing waits for a batch that is being drawn, and then for the iterator to end its own threads and
# processes.
PATIENCE, CLEANUP = 1.0, 30.0


class Block(NamedTuple):
    """Consecutive batches.

    Attributes:
      begin: the step of the first, a multiple of their number.
      arrays: the batches, (block, batch, ...), whole on each device; where no steps follow, zeros.
      before, after: where the stream was before they were drawn, and after.
    """

    begin: int
    arrays: Any
    before: Position
    after: Position


class BlockPrefetcher:
    """What a wave trains on, step by step. A thread of its own draws from the stream; close it to end that.

    Args:
      stream: what is drawn from.
      mesh: the devices.
      step: the first step that is needed.
      steps: how many there are.
      position: where the stream was at a step before, or the very beginning.
    """

    def __init__(self, stream: Stream, mesh: jax.sharding.Mesh, step: int, steps: int, position: Position) -> None:
        self._stream, self._mesh, self._steps, self._begin = stream, mesh, steps, position
        self._x64 = bool(getattr(jax.config, "jax_enable_x64"))  # noqa: B009  mypy does not know it
        self._current: Block | None = None
        self._asked: SimpleQueue[tuple[int, Future[Block]] | None] = SimpleQueue()
        self._closed = threading.Event()
        # A daemon: a source that hangs does not keep the process.
        self._thread = threading.Thread(target=self._draw, name=f"hpjax stream {stream.name}", daemon=True)
        self._thread.start()
        self._coming = self._ask(step - step % stream.block)

    def at(self, step: int) -> tuple[Any, float]:
        """The block that holds the batch of a step, no earlier than those before; and the seconds waited for it.

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
        if not isinstance(jax.tree.leaves(self._current.arrays)[0], jax.Array):
            self._current = self._current._replace(arrays=self._put(self._current.arrays))
        return self._current.arrays, time.perf_counter() - begun

    def offload(self) -> None:
        """Moves what is on the devices to the host, until it is needed there again."""
        begin, coming = self._coming
        if coming.exception() is None:
            waiting: Future[Block] = Future()
            waiting.set_result(_on_host(coming.result()))
            self._coming = begin, waiting
        if self._current is not None:
            self._current = _on_host(self._current)

    def position(self, step: int) -> Position:
        """Where the stream was before the block of a step that comes next; not what was drawn ahead."""
        if self._current is None:
            return self._begin
        used = step >= self._current.begin + self._stream.block
        return self._current.after if used else self._current.before

    def close(self) -> None:
        """Ends the thread, after the batch that it is drawing; one that hangs there is left behind."""
        self._closed.set()
        self._asked.put(None)
        self._current = None
        if threading.current_thread() is self._thread:  # where garbage happens to be collected
            return
        if wait([self._coming[1]], PATIENCE).done:
            self._thread.join(CLEANUP)

    def _ask(self, begin: int) -> tuple[int, "Future[Block]"]:
        coming: tuple[int, Future[Block]] = begin, Future()
        self._asked.put(coming)
        return coming

    def _draw(self) -> None:
        """What the thread does."""
        draws = Pass(self._stream, self._begin)
        with jax.enable_x64(self._x64):  # which each thread has for itself
            while (asked := self._asked.get()) is not None:
                self._answer(draws, *asked)
                del asked  # it holds a block

    def _answer(self, draws: Pass, begin: int, future: "Future[Block]") -> None:
        try:
            future.set_result(self._block(draws, begin))
        except BaseException as error:  # raised where it is waited for
            future.set_exception(error)

    def _block(self, draws: Pass, begin: int) -> Block:
        draws.skip(begin)
        before, size = draws.position(), self._stream.block
        # Anew for each block: where the device is the host, it may be the device's own array from then on.
        whole = jax.tree.map(lambda a: np.zeros((size, *a.shape), a.dtype), self._stream.first)
        for i in range(min(size, self._steps - begin)):
            if self._closed.is_set():
                raise RuntimeError("the feed is closed")
            # Copied at once: some iterators fill the same arrays again and again.
            jax.tree.map(lambda a, batch, i=i: a.__setitem__(i, batch), whole, draws.draw())
        return Block(begin, jax.block_until_ready(self._put(whole)), before, draws.position())

    def _put(self, arrays: Any) -> Any:
        return sharding.put(arrays, self._mesh, sharding.WHOLE)


def _on_host(block: Block) -> Block:
    return block._replace(arrays=jax.device_get(block.arrays))
