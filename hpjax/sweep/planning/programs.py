"""Programs: turns the groups of a plan into what the engine takes: compiled programs, lanes, and the data."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import numpy as np

from hpjax.core.arrays import Array, Ints
from hpjax.core.hparams import Hparams, with_fold
from hpjax.core.space import Point
from hpjax.engine import sharding
from hpjax.engine.compile import Compiled, compiling
from hpjax.engine.device_lanes import DeviceLanes, LaneTable
from hpjax.engine.segment import SegmentConfig
from hpjax.engine.takeover import renewal
from hpjax.engine.tracing import kinds_of, lane_hparams, shapes_of, stack_hparams
from hpjax.sweep.planning.plan import Group, Plan
from hpjax.sweep.spec import SweepSpec


class GroupPrograms(NamedTuple):
    """The programs and lanes of the groups of a sweep, on its devices.

    Attributes:
      spec: the sweep.
      mesh: the devices.
      splits: the train and valid splits, whole on each device; None in place of a train split that is a stream.
    """

    spec: SweepSpec
    mesh: jax.sharding.Mesh
    splits: tuple[Any, Any]

    @classmethod
    def of(cls, spec: SweepSpec) -> "GroupPrograms":
        """Puts the data of a sweep on its devices."""
        mesh = sharding.mesh(sharding.devices(spec.devices))
        train, valid = spec.splits
        once = None if spec.stream is not None else sharding.put(train, mesh, sharding.WHOLE)
        return cls(spec, mesh, (once, once if valid is train else sharding.put(valid, mesh, sharding.WHOLE)))

    def config(self, plan: Plan, group: int) -> SegmentConfig:
        """Returns all that the compiled program of a group depends on, the shapes of its arguments apart."""
        spec, arrangement = self.spec, plan.arrangements[group]
        return SegmentConfig(
            spec.program,
            plan.shapes[group],
            arrangement.width,
            independent=spec.independent,
            own_budget=callable(spec.program.steps) or callable(spec.program.microsteps),
            spread=spec.spread,
            lowered=plan.shapes[group].windows and arrangement.kernels == "batched",
            folds=spec.folds or 1,
            block=None if spec.stream is None else spec.stream.block,
        )

    def compile(self, plan: Plan, group: int, h: Hparams) -> Future[Compiled]:
        """Begins to compile the program of a group in the background.

        Args:
          plan: the plan.
          group: the number of the group.
          h: hyperparameters of its lanes, of which the shapes and dtypes count.
        """
        train, valid = map(shapes_of, self.splits)
        if self.spec.stream is not None:
            train = self.spec.stream.shapes
        return compiling(self.config(plan, group), h, train, valid, self.mesh, plan.arrangements[group].chunks)

    def lanes(self, plan: Plan, group: int, compiled: Compiled, table: LaneTable) -> DeviceLanes:
        """Returns the lanes of a table on the devices, before their first step."""
        return DeviceLanes(self.config(plan, group), compiled, table, self.spec.seed, *self.splits)

    def renewal(self, plan: Plan, group: Group) -> Callable[[Point, int], list[Array]]:
        """Returns a function of a point and a replicate to the arrays of a lane's state that a takeover renews.

        They are those of ``Takeover.renewed``, in its order.
        """
        takeover, folds = plan.takeovers[group.number], self.spec.folds or 1
        if not takeover.renewed:
            return lambda point, replicate: []
        compute = renewal(self.spec.program, plan.shapes[group.number], takeover)
        kinds = kinds_of(self.spec.space)

        def renewed(point: Point, replicate: int) -> list[Array]:
            h = lane_hparams(kinds, point, point.keys() - group.static.keys())
            h = with_fold(h, np.int32(replicate % folds), folds) if folds > 1 else h
            return list(map(np.asarray, compute(h)))

        return renewed

    def lane_table(self, plan: Plan, group: Group, trials: Collection[int], points: Mapping[int, Point]) -> LaneTable:
        """Returns the table of the lanes of some trials of a group.

        Args:
          plan: the plan.
          group: the group.
          trials: the ids of its trials.
          points: trial id to hyperparameters.
        """
        trial, replicate = lane_ids(plan, trials)
        own = [points[int(t)] for t in trial]
        budget = np.array([plan.budgets[t] for t in trial], np.int32)
        h = stack_hparams(kinds_of(self.spec.space), own, own[0].keys() - group.static.keys())
        return LaneTable(trial, replicate, budget, h)


def lane_ids(plan: Plan, trials: Collection[int]) -> tuple[Ints, Ints]:
    """Returns the trial and the replicate of each lane of some trials, in the order of their table, int32 (lanes,)."""
    # Sorted by their ends: a chunk costs as long as one of its lanes runs, so its lanes had better end together.
    ordered = sorted(trials, key=lambda t: (-plan.budgets[t], t))
    replicate = np.repeat(np.arange(plan.replicates, dtype=np.int32), len(ordered))
    return np.tile(np.array(ordered, np.int32), plan.replicates), replicate
