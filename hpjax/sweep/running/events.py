"""Events: what ``Sweep.events`` yields while a sweep runs. Their ``kind`` tells them apart."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from hpjax.engine.exchanges import Exchanges
from hpjax.results.store.rows import Change
from hpjax.sweep.planning.width import Rate


class WaveFields(TypedDict):
    """The fields that all events of a wave have in common; see ``_OfGroup``."""

    group: int
    groups: int
    round: int
    lanes: int


@dataclass(frozen=True, kw_only=True)
class _OfGroup:
    """What the events of one group have in common; each class documents these fields, too, for the reference."""

    group: int
    groups: int
    round: int
    lanes: int


@dataclass(frozen=True, kw_only=True)
class Resumed(_OfGroup):
    """The run goes on from a checkpoint; of the first wave that is not finished.

    Attributes:
      kind: ``"resumed"``.
      group: the number of the group.
      groups: how many groups the run trains.
      round: the number of the round.
      lanes: how many lanes the wave has.
      step: calls of ``step`` that the wave's longest-running lanes took before.
      live: how many lanes of the wave still run.
      lane_steps: calls of ``step`` that all lanes of the run took before.
      spared: calls of ``step`` that lanes which ended early will not take.
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
      kind: ``"width_halved"``.
      group: the number of the group.
      groups: how many groups the run trains.
      round: the number of the round.
      lanes: how many lanes the wave has.
      lost: how many lane-steps have to be computed again.
    """

    kind: Literal["width_halved"] = field(default="width_halved", init=False)
    lost: int


@dataclass(frozen=True, kw_only=True)
class WidthMeasured(_OfGroup):
    """The speeds of some widths of a group were measured between its segments. Later runs begin with the best.

    Attributes:
      kind: ``"width_measured"``.
      group: the number of the group.
      groups: how many groups the run trains.
      round: the number of the round.
      lanes: how many lanes the wave has.
      rates: what was measured, each a named tuple: ``width``, ``kernels``, ``speed`` as a share of the fastest.
      width: the width with which the group trains from now on.
      anew: whether it begins anew, with a better width than it had. Under a scheduler all groups do.
      lost: how many lane-steps have to be computed again.
      seconds: how long the run stood still for it, s.
    """

    kind: Literal["width_measured"] = field(default="width_measured", init=False)
    rates: tuple[Rate, ...]
    width: int
    anew: bool
    lost: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CompileStarted(_OfGroup):
    """The run waits until the program of a group is compiled.

    Attributes:
      kind: ``"compile"``.
      group: the number of the group.
      groups: how many groups the run trains.
      round: the number of the round.
      lanes: how many lanes the wave has.
    """

    kind: Literal["compile"] = field(default="compile", init=False)


@dataclass(frozen=True, kw_only=True)
class CompileFinished(_OfGroup):
    """The program of a group is compiled.

    Attributes:
      kind: ``"compiled"``.
      group: the number of the group.
      groups: how many groups the run trains.
      round: the number of the round.
      lanes: how many lanes the wave has.
      seconds: how long the run waited for the program, s.
      exchanges: what the devices of a chunk of lanes exchange in a step, a named tuple: ``times``, and ``bytes`` in
        all; None where each lane has one device, or JAX writes compiled programs in an unknown way.
    """

    kind: Literal["compiled"] = field(default="compiled", init=False)
    seconds: float
    exchanges: Exchanges | None


@dataclass(frozen=True, kw_only=True)
class SegmentFinished(_OfGroup):
    """A segment, which is one device call, ended.

    Attributes:
      kind: ``"segment"``.
      group: the number of the group.
      groups: how many groups the run trains.
      round: the number of the round.
      lanes: how many lanes the wave has.
      step: calls of ``step`` that the longest-running lanes took; each is an optimizer step, unless the program
        accumulates gradients over several.
      steps: calls of ``step`` that the longest-running lanes will take in all.
      live: how many lanes of the wave still run.
      lane_steps: calls of ``step`` that all lanes took in this segment.
      spared: calls of ``step`` that lanes which ended before their budget in this segment will not take.
      evaluated: the lanes that this evaluation measured, as trial ids, replicates, and the optimizer steps that they
        took, each int (lanes,).
      metrics: name to values of these lanes, float (lanes,); empty where the segment ended without an evaluation.
      changes: the lanes whose status changed, each a named tuple: ``trial``, ``replicate``, ``status``, ``step``.
      best: id and objective of the best trial so far, or None.
      seconds: how long the segment took, s.
      waited: how long it waited for the batches of a data stream, s; part of ``seconds``.

    Example:
      >>> sweep = hpx.Sweep(program, space, trials=4)
      >>> [event.step for event in sweep.events() if event.kind == "segment"]
      [5, 10]
    """

    kind: Literal["segment"] = field(default="segment", init=False)
    step: int
    steps: int
    live: int
    lane_steps: int
    spared: int
    evaluated: tuple[Any, Any, Any]
    metrics: Mapping[str, Any]
    changes: tuple[Change, ...]
    best: tuple[int, float] | None
    seconds: float
    waited: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A scheduler decided on all trials of a round.

    Attributes:
      kind: ``"decision"``.
      round: the number of the round.
      step: the call of ``step`` after which it decided.
      steps: calls of ``step`` that the longest trial takes if it is complete.
      live: how many lanes of the round still run.
      lanes: how many lanes the round has.
      spared: calls of ``step`` that stopped lanes will not take.
      changes: the lanes that were stopped, and those that had ended and run again from the state of another, each a
        named tuple: ``trial``, ``replicate``, ``status``, ``step``.
      best: id and objective of the best trial so far, or None.
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


@dataclass(frozen=True, kw_only=True)
class GroupFailed(_OfGroup):
    """A group cannot train: its program does not compile, fails on the devices, or needs too much memory.

    Attributes:
      kind: ``"group_failed"``.
      group: the number of the group.
      groups: how many groups the run trains.
      round: the number of the round.
      lanes: how many lanes its first wave that failed has.
      reason: why, on one line.
      spared: calls of ``step`` that its lanes will not take.
      changes: the lanes that failed, each a named tuple: ``trial``, ``replicate``, ``status``, ``step``.
      best: id and objective of the best trial so far, or None.
    """

    kind: Literal["group_failed"] = field(default="group_failed", init=False)
    reason: str
    spared: int
    changes: tuple[Change, ...]
    best: tuple[int, float] | None


Event = (
    GroupFailed | Resumed | WidthHalved | WidthMeasured | CompileStarted | CompileFinished | SegmentFinished | Decision
)
