"""Events: what a sweep says of itself while it runs. Told apart by ``kind``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hpjax.results.store.rows import Change


@dataclass(frozen=True, kw_only=True)
class _OfGroup:
    """What events of one group have in common.

    Attributes:
      group: the number of the group.
      groups: how many groups are trained.
      round: the number of the round.
      lanes: how many lanes the wave has.
    """

    group: int
    groups: int
    round: int
    lanes: int


@dataclass(frozen=True, kw_only=True)
class Resumed(_OfGroup):
    """The run goes on from a checkpoint.

    Attributes:
      step: calls of ``step`` that the wave's longest-running lanes took before.
      live: lanes of the wave that still run.
      lane_steps: calls of ``step`` that all lanes of the run took before.
      spared: calls that lanes which ended early will not take.
    """

    kind: Literal["resumed"] = field(default="resumed", init=False)
    step: int
    live: int
    lane_steps: int
    spared: int


@dataclass(frozen=True, kw_only=True)
class WidthHalved(_OfGroup):
    """A group ran out of memory, and begins anew at half its width.

    Attributes:
      lost: lane-steps that have to be computed again.
    """

    kind: Literal["width_halved"] = field(default="width_halved", init=False)
    lost: int


@dataclass(frozen=True, kw_only=True)
class CompileStarted(_OfGroup):
    """The run waits until the program of a group is compiled."""

    kind: Literal["compile"] = field(default="compile", init=False)


@dataclass(frozen=True, kw_only=True)
class CompileFinished(_OfGroup):
    """The program of a group is compiled.

    Attributes:
      seconds: how long the run waited for it.
    """

    kind: Literal["compiled"] = field(default="compiled", init=False)
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SegmentFinished(_OfGroup):
    """A device call ended.

    Attributes:
      step, steps: calls of ``step`` that the longest-running lanes took, and those they will take; each is an
        optimizer step, unless the program accumulates gradients over several.
      live: lanes still running.
      lane_steps: calls that all lanes took in this segment.
      spared: calls that lanes which ended before their budget will not take.
      evaluated: the lanes that this evaluation measured, as trial ids and replicates, each int (lanes,).
      metrics: name to values of these lanes, float (lanes,); empty where the segment ended without an evaluation.
      changes: lanes whose status changed.
      best: trial id and objective of the best trial so far, or None.
      seconds: how long the segment took.
      waited: how many of these it waited for the batches of a data stream.
    """

    kind: Literal["segment"] = field(default="segment", init=False)
    step: int
    steps: int
    live: int
    lane_steps: int
    spared: int
    evaluated: tuple[Any, Any]
    metrics: Mapping[str, Any]
    changes: tuple[Change, ...]
    best: tuple[int, float] | None
    seconds: float
    waited: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A scheduler decided on all trials of a round.

    Attributes:
      round: the number of the round.
      step, steps: calls of ``step`` at which it decided, and those that a complete trial takes.
      live, lanes: lanes still running, and all of the round.
      spared: calls that stopped lanes will not take.
      changes: lanes that were stopped, or run again from the state of another.
      best: trial id and objective of the best trial so far, or None.
    """

    kind: Literal["decision"] = field(default="decision", init=False)
    round: int
    step: int
    steps: int
    live: int
    lanes: int
    spared: int
    changes: tuple[Change, ...]
    best: tuple[int, float] | None


Event = Resumed | WidthHalved | CompileStarted | CompileFinished | SegmentFinished | Decision
