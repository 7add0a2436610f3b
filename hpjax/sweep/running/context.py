"""The context of a run: what all of its waves share."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from jax.tree_util import tree_leaves_with_path

from hpjax.core.space import Point
from hpjax.engine.state_tree import names_of
from hpjax.results.store.run_store import Store
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.running.artifacts import ArtifactMaker
from hpjax.sweep.running.scores import Scores
from hpjax.sweep.running.timing import Timing
from hpjax.sweep.spec import SweepSpec


@dataclass
class RunContext:
    """What the waves of a run share, and change as the run goes on.

    Attributes:
      spec: the sweep.
      plan: the plan of the rounds so far.
      store: the store that records what happens.
      programs: the programs and the data on the devices.
      scores: the scores of all trials.
      points: trial id to the hyperparameters that the trial has now.
      compiled: the numbers of the groups whose compilation is recorded.
      artifacts: makes the artifacts of trials at evaluations.
      timing: how long it takes beside the estimates.
      streams: closes the prefetchers that draw from the data stream, at the end of the run.
      may_run_ahead: returns whether a segment may be dispatched before the one before it is read.
      begun: when the run began, by ``time.perf_counter``; of one that was resumed, as if it had not been interrupted.
    """

    spec: SweepSpec
    plan: Plan
    store: Store
    programs: GroupPrograms
    scores: Scores
    artifacts: ArtifactMaker
    timing: Timing
    points: dict[int, Point] = field(default_factory=dict)
    compiled: set[int] = field(default_factory=set)
    streams: ExitStack = field(default_factory=ExitStack)
    may_run_ahead: Callable[[], bool] = lambda: False
    begun: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, spec: SweepSpec, plan: Plan, store: Store) -> "RunContext":
        """Returns the context of a run that begins, and puts the data of the sweep on its devices."""
        store.states.share([(names_of(path), np.asarray(x)) for path, x in tree_leaves_with_path(spec.program.shared)])
        scores = Scores.none(plan.trials, plan.replicates, racing=spec.scheduler is not None)
        programs = GroupPrograms.of(spec)
        return cls(spec, plan, store, programs, scores, ArtifactMaker(programs, store.artifacts), Timing(plan.devices))

    @property
    def seconds(self) -> float:
        """How long the run took so far, without interruptions."""
        return time.perf_counter() - self.begun

    @property
    def best(self) -> tuple[int, float] | None:
        """Id and objective of the best trial so far, or None before the first evaluation."""
        return self.scores.best(self.spec.objective)
