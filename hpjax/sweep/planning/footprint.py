"""Footprints: what a compiled program takes of a device, and how fast its steps are at best. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hpjax.engine.chips import Chip
from hpjax.engine.hlo import Traffic


class Memory(NamedTuple):
    """The bytes of each device that a program takes, by the compiler's analysis.

    Attributes:
      state: of the lanes.
      data: of the data and the other arguments.
      temporaries: of what is computed in between, and of results beside the lanes.
    """

    state: int
    data: int
    temporaries: int

    @classmethod
    def of(cls, compiled: Any) -> "Memory":
        """Returns what a compiled program takes whose first argument is donated, a ``jax.stages.Compiled``."""
        found = compiled.memory_analysis()
        state = int(found.alias_size_in_bytes)
        more = int(found.temp_size_in_bytes + found.output_size_in_bytes)
        return cls(state, int(found.argument_size_in_bytes) - state, more - state)


class Footprint(NamedTuple):
    """What the program of a group takes of each device, which holds one chunk of its lanes.

    Attributes:
      group: the number of the group.
      width: lanes that one device computes at once.
      memory: what a device takes.
      step: what a step of the chunk runs.
      collectives: how many operations of each kind have devices exchange arrays, in all of its programs.
      flops: the multiplications and additions of a lane-step in products and convolutions, those of numbers of 16 bits
        and those of others; of a lane that spans several devices, the share of each.
      compile_seconds: how long its programs took to trace and to compile here, one after the other.
    """

    group: int
    width: int
    memory: Memory
    step: Traffic
    collectives: Mapping[str, int]
    flops: tuple[float, float]
    compile_seconds: float

    @property
    def bytes(self) -> float:
        """The bytes of a lane-step between memory and chip."""
        return self.step.bytes / self.width

    @property
    def near_bytes(self) -> float:
        """The bytes of a lane-step that stay in the memory on the chip."""
        return self.step.near_bytes / self.width

    @property
    def padding(self) -> float:
        """The share of these bytes that only fill arrays up to the sizes that layouts have."""
        moved = self.step.bytes + self.step.near_bytes
        return self.step.padding / moved if moved else 0.0

    def seconds(self, chip: Chip) -> float:
        """Returns the seconds of a lane-step at best: what takes longest of arithmetic and the traffic of memories."""
        return max(self._times(chip).values())

    def bound(self, chip: Chip) -> str:
        """Returns what a step waits for at best: ``"arithmetic"``, ``"memory"``, or ``"memory on chip"``."""
        times = self._times(chip)
        return max(times, key=times.__getitem__)

    def _times(self, chip: Chip) -> dict[str, float]:
        return {
            "arithmetic": self.flops[0] / chip.bfloat16 + self.flops[1] / chip.float32,
            "memory": self.bytes / chip.bandwidth,
            "memory on chip": self.near_bytes / chip.near_bandwidth,
        }
