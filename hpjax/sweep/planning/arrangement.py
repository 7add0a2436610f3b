"""Arrangements: how many lanes of a group one device computes at once, in which chunks and waves. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.engine import layout
from hpjax.engine.device_lanes import rng_groups
from hpjax.sweep.planning.width import Measured, chunks_that_fit

# Bytes of host memory that the states of a wave may take where the devices are CPUs. So a sweep of more trials takes
# more waves, but no more memory.
HOST_BYTES = 2**30

Waves = tuple[tuple[int, ...], ...]


class Capacity(NamedTuple):
    """What decides how many lanes fit on the devices, and which of them may be computed together.

    Attributes:
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
      devices: how many devices there are.
      spans: how many of them, or groups of them that share a lane, share the lanes.
      memory: bytes of memory of each device, None where unknown, as for CPUs.
      near: bytes of the memory on its chip in which the compiler keeps arrays, 0 where it does not.
      data_bytes: bytes of it that the data takes.
      replicates: lanes of a trial.
      independent: whether each trial draws random numbers of its own. If so, any lanes may share a chunk; otherwise
        only lanes of one replicate, which share their random numbers.
      racing: whether a scheduler compares the trials of a round, for which all of its waves are in memory together.
    """

    platform: str
    devices: int
    spans: int
    memory: int | None
    near: int
    data_bytes: int
    replicates: int
    independent: bool
    racing: bool

    def lanes_together(self, trials: int) -> int:
        """Returns how many lanes of so many trials may be in one chunk."""
        return trials * (self.replicates if self.independent else 1)

    def chunks(self, trials: int, width: int) -> int:
        """Returns how many chunks each device needs for the lanes of so many trials."""
        replicate = np.repeat(np.arange(self.replicates, dtype=np.int32), trials)
        return layout.chunks_needed(rng_groups(replicate, self.independent), width, self.spans)

    def chunks_that_fit(self, width: int, lane_bytes: int) -> int | None:
        """Returns how many chunks of such lanes a device has memory for, None for any number."""
        # Smaller waves save memory only where one trains after the other; a race has the states of all in memory.
        if self.memory is None and not self.racing:
            return chunks_that_fit(HOST_BYTES // self.devices, 0, width * lane_bytes)
        return chunks_that_fit(self.memory, self.data_bytes, width * lane_bytes)

    def waves(self, trials: Sequence[int], width: int, chunks: int | None) -> Waves:
        """Splits trials into as few and as equal waves as fit into ``chunks`` on each device.

        Args:
          trials: the trials to split.
          width: lanes of a chunk.
          chunks: how many chunks a device may have, None for any number.
        """
        if not trials:
            return ()
        most = layout.most_trials(lambda count: self.chunks(count, width), chunks, len(trials))
        return tuple(tuple(trials[i : i + most]) for i in range(0, len(trials), most))


@dataclass(frozen=True)
class Arrangement:
    """How one group is placed on the devices.

    Attributes:
      width: lanes that one device computes at once.
      kernels: ``"batched"`` where convolutions and pooling are matrix products, ``"xla"`` where they are XLA's own.
      chunks: chunks of ``width`` lanes on each device, enough for the largest wave.
      waves: ids of the trials that are on the devices together, a tuple for each wave; a shard has its own trials only.
      measured: what was measured of widths; nothing where the width was given, or chosen by rule.
      planned_width: the width with which the run began.
      why: why the width is another one than planned; empty where it is not.
    """

    width: int
    kernels: str
    chunks: int
    waves: Waves
    measured: Measured
    planned_width: int
    why: str = ""

    @classmethod
    def of(
        cls, capacity: Capacity, lane_bytes: int, trials: Sequence[int], width: int, kernels: str, measured: Measured
    ) -> "Arrangement":
        """Returns an arrangement of trials, whose lanes take ``lane_bytes`` each, in waves that fit."""
        waves = capacity.waves(trials, width, capacity.chunks_that_fit(width, lane_bytes))
        return cls(width, kernels, 1, (), measured, width).with_waves(capacity, waves)

    @property
    def trials(self) -> int:
        """How many trials all waves have together."""
        return sum(map(len, self.waves))

    @property
    def lane_step(self) -> float | None:
        """The seconds of a lane-step at its own width if nothing else runs, None where that was not measured."""
        return self.measured.seconds(self.width, self.kernels)

    def with_waves(self, capacity: Capacity, waves: Waves) -> "Arrangement":
        """Returns the arrangement with these waves, and as many chunks as the largest of them needs."""
        chunks = max((capacity.chunks(len(wave), self.width) for wave in waves), default=1)
        return replace(self, waves=waves, chunks=chunks)

    def with_trials(self, capacity: Capacity, trials: Sequence[int]) -> "Arrangement":
        """Returns the arrangement with more trials, in waves that fit the chunks for which its program is compiled."""
        return replace(self, waves=(*self.waves, *capacity.waves(trials, self.width, self.chunks)))

    def with_width(self, capacity: Capacity, width: int, why: str) -> "Arrangement":
        """Returns the arrangement at another width, with the same waves, and why that is."""
        return replace(self, width=width, why=why).with_waves(capacity, self.waves)

    def halved(self, capacity: Capacity) -> "Arrangement":
        """Returns the arrangement at half the width, for a group that ran out of memory."""
        why = f"ran out of memory at the width {self.width}"
        return self.with_width(capacity, ceil_div(self.width, 2), why)

    def split(self, capacity: Capacity, lane_bytes: int, trials: Sequence[int]) -> Waves:
        """Splits the trials of a wave that was made for other devices into waves that fit on these."""
        return capacity.waves(trials, self.width, capacity.chunks_that_fit(self.width, lane_bytes))

    def state_bytes(self, lane_bytes: int, waves: int) -> int:
        """Returns the bytes that the states of so many waves take on each device."""
        return waves * self.chunks * self.width * lane_bytes
