"""What the waves of a run share."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from hpjax.core.space import Point
from hpjax.results.store.run_store import Store
from hpjax.sweep.planning.plan import Plan
from hpjax.sweep.planning.programs import GroupPrograms
from hpjax.sweep.running.scores import Scores
from hpjax.sweep.spec import SweepSpec


@dataclass
class RunContext:
    """What the waves of a run share, and change as it goes on.

    Attributes:
      spec: the sweep.
      plan: the plan of the rounds so far.
      store: where what happens is recorded.
      programs: the programs and the data on the devices.
      scores: of all trials.
      points: trial id to its hyperparameters now.
      compiled: the groups whose compilation is recorded.
      streams: closes the data streams that waves draw from.
      may_run_ahead: returns whether a segment may be dispatched before the one before it is read.
    """

    spec: SweepSpec
    plan: Plan
    store: Store
    programs: GroupPrograms
    scores: Scores
    points: dict[int, Point] = field(default_factory=dict)
    compiled: set[int] = field(default_factory=set)
    streams: ExitStack = field(default_factory=ExitStack)
    may_run_ahead: Callable[[], bool] = lambda: False

    @classmethod
    def of(cls, spec: SweepSpec, plan: Plan, store: Store) -> "RunContext":
        """Puts the data of a sweep on its devices; nothing is scored yet."""
        scores = Scores.none(plan.trials, plan.replicates, racing=spec.scheduler is not None)
        return cls(spec, plan, store, GroupPrograms.of(spec), scores)

    @property
    def best(self) -> tuple[int, float] | None:
        """Trial id and objective of the best trial so far, or None."""
        return self.scores.best(self.spec.objective)
