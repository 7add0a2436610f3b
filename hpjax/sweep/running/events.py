"""Events: what a sweep says of itself while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hpjax.results.store.rows import Change


@dataclass(frozen=True)
class Event:
    """What happened while a sweep runs: a group began to compile, a segment was computed, a scheduler decided.

    Attributes:
      kind: ``"compile"``, ``"compiled"``, ``"segment"`` or ``"decision"``; ``"resumed"`` where a run goes on from a
        checkpoint, with the lane-steps computed and spared before it; ``"narrowed"`` where a group ran out of memory
        and begins anew at half its width, with the lane-steps that are lost, as a negative number.
      group, groups: the number of the group, and how many are trained; a decision is on all of them, and has group -1.
      round: the number of the round.
      step, steps: calls of ``step`` that the longest-running lanes took, and those they will take; each is
        an optimizer step, unless the program accumulates gradients over several.
      live, lanes: lanes still running, and all of them: of the wave, or in a decision of all waves.
      lane_steps: calls that all lanes took in this segment.
      spared: calls that lanes which ended, before their budget, will not take.
      evaluated: the lanes that this evaluation measured, as trial ids and replicates, each (lanes,).
      metrics: name to values of these lanes; empty where the segment ended without an evaluation.
      changes: lanes whose status changed.
      best: trial id and objective of the best trial so far, or None.
      seconds: what the compilation or the segment took.
      waited: how many of them the segment waited for the batches of a stream.
    """

    kind: Literal["resumed", "narrowed", "compile", "compiled", "segment", "decision"]
    group: int
    groups: int
    round: int
    step: int
    steps: int
    live: int
    lanes: int
    lane_steps: int = 0
    spared: int = 0
    evaluated: tuple[Any, Any] = ((), ())
    metrics: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    best: tuple[int, float] | None = None
    seconds: float = 0.0
    waited: float = 0.0
