"""Programs: turns the groups of a plan into what the engine takes: compiled programs, lanes, and the data."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from hpjax.core.arrays import Array, Ints
from hpjax.core.errors import InputError
from hpjax.core.hparams import Hparams, with_fold
from hpjax.core.space import Point
from hpjax.core.user_code import first_line
from hpjax.engine import sharding
from hpjax.engine.compile import Compiled, compiling
from hpjax.engine.device_lanes import DeviceLanes, LaneTable
from hpjax.engine.padding.program import padded_hparams
from hpjax.engine.partition import Span, WaitsForLanesError, block_specs, may_wait
from hpjax.engine.probe import annotated
from hpjax.engine.segment import SegmentConfig
from hpjax.engine.takeover import renewal
from hpjax.engine.tracing import kinds_of, lane_hparams, shapes_of, stack_hparams, with_user_lines
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
        mesh = mesh_of(spec)
        train, valid = spec.splits
        once = None if spec.stream is not None else sharding.put(train, mesh, sharding.WHOLE)
        return cls(spec, mesh, (once, once if valid is train else sharding.put(valid, mesh, sharding.WHOLE)))

    def config(self, plan: Plan, group: int) -> SegmentConfig:
        """Returns all that the compiled program of a group depends on, the shapes of its arguments apart."""
        spec, arrangement, padding = self.spec, plan.arrangements[group], plan.padding(group)
        return SegmentConfig(
            spec.program if padding is None else padding.padded.program,
            plan.trained(group),
            arrangement.width,
            independent=spec.independent,
            own_budget=callable(spec.program.steps) or callable(spec.program.microsteps),
            spread=spec.spread,
            lowered=plan.trained(group).windows and arrangement.kernels == "batched",
            # Devices that share a lane draw parts of arrays, which JAX's own kernels do without an exchange.
            drawn=self.mesh.devices.flat[0].platform == "cpu" and spec.devices_per_lane == 1,
            folds=spec.folds or 1,
            block=None if spec.stream is None else spec.stream.block,
            span=self._span(plan, plan.partitions[group]),
        )

    def _span(self, plan: Plan, partition: tuple[PartitionSpec, ...]) -> Span | None:
        """Returns the devices that each lane spans, None for one."""
        gathers = plan.gathers and any(map(any, partition))
        return None if self.spec.devices_per_lane == 1 else Span(self.mesh, partition, gathers)

    def compile(self, plan: Plan, group: int, h: Hparams) -> Compiled:
        """Returns the programs of a group, which compile in the background once they are prepared.

        Args:
          plan: the plan.
          group: the number of the group.
          h: hyperparameters of its lanes, of which the shapes and dtypes count.
        """
        chunks = plan.arrangements[group].chunks
        return compiling(self.config(plan, group), h, *_split_shapes(self.spec), self.mesh, chunks)

    def lanes(self, plan: Plan, group: int, compiled: Compiled, table: LaneTable) -> DeviceLanes:
        """Returns the lanes of a table on the devices, before their first step."""
        return DeviceLanes(self.config(plan, group), compiled, table, self.spec.seed, *self.splits)

    def sample_block(self) -> Any:
        """Returns the first batch as a block of a stream, on the devices, where the train split is one; else None."""
        stream = self.spec.stream
        if stream is None:
            return None
        block = jax.tree.map(lambda x: np.broadcast_to(x, (stream.block, *x.shape)), stream.first)
        return sharding.put(block, self.mesh, block_specs(block, self.mesh))

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
        return LaneTable(trial, replicate, budget, self.hparams(plan, group, own))

    def hparams(self, plan: Plan, group: Group, points: Sequence[Point]) -> Hparams:
        """Returns the hyperparameters of lanes of a group as its program takes them, leaves (points,)."""
        h = stack_hparams(kinds_of(self.spec.space), points, points[0].keys() - group.static.keys())
        if (padding := plan.padding(group.number)) is None:
            return h
        return padded_hparams(h, np.full(len(points), padding.groups.index(group.number), np.int32))


def mesh_of(spec: SweepSpec) -> jax.sharding.Mesh:
    """Returns the mesh of a sweep's devices."""
    return sharding.mesh(sharding.devices(spec.devices), spec.devices_per_lane)


def check_groups(spec: SweepSpec, plan: Plan, first: int) -> None:
    """Traces the programs of groups for the devices where it is not certain that they work for many lanes on these.

    Args:
      spec: the sweep.
      plan: the plan.
      first: the number of the first group that was not checked before.

    Raises:
      InputError, ProgramError: lanes cannot share a program, or not on these devices.
    """
    if plan.devices[0] % plan.devices_per_lane:
        return  # what was trained on more devices can be read here, and whoever trains is told
    mesh = mesh_of(spec)
    for group in plan.groups[first:]:
        first = plan.together(group.number)[0] == group.number  # of those that share a program one stands for all
        shapes = plan.trained(group.number)
        uncertain, waits = shapes.uncertain, shapes.moves and may_wait(mesh)
        if not (first and (uncertain or waits)):
            continue
        programs, what = GroupPrograms(spec, mesh, (None, None)), ", ".join(uncertain)
        h = programs.hparams(plan, group, [plan.points[group.trials[0]]])
        if waits:
            _check_waiting(programs.compile(plan, group.number, h), spec)
        if not uncertain:
            continue
        try:
            programs.compile(plan, group.number, h).check()
        except Exception as unnamed:
            if spec.devices_per_lane > 1 and _traces_on_one_device_a_lane(spec, plan, group, h):
                said = first_line(unnamed).rstrip(".")
                allowed = f"must be 1 with {what}, which JAX does not divide among devices ({said})"
                remedy = f"Write devices_per_lane=1, or a program without {uncertain[0]}."
                raise InputError("Sweep.devices_per_lane", spec.devices_per_lane, allowed, remedy) from None
            error = _named(unnamed, programs, plan, group, h)
            raise with_user_lines(error, {}, f"for many lanes at once, with {what}, ") from None


def _check_waiting(compiled: Compiled, spec: SweepSpec) -> None:
    """Compiles the programs of a group, and raises where lanes on a CPU would wait for each other.

    Raises:
      InputError: they would.
    """
    try:
        for executable in (compiled.start, compiled.advance, compiled.evaluate):
            executable.future.result()
    except WaitsForLanesError as error:
        why, _, remedy = str(error).partition(". ")
        allowed = f"must be {spec.devices_per_lane}, as many as a lane spans: {why}"
        raise InputError("Sweep.devices", len(sharding.devices(spec.devices)), allowed, remedy) from None
    except Exception:
        return  # what else there is to say of it, others say


def _traces_on_one_device_a_lane(spec: SweepSpec, plan: Plan, group: Group, h: Hparams) -> bool:
    """Returns whether the programs of a group can be compiled where each lane has one device, as far as tracing shows.

    JAX divides neither calls of functions on the host nor kernels of Pallas for a TPU among devices.
    """
    alone = replace(spec, devices_per_lane=1)
    try:
        GroupPrograms(alone, mesh_of(alone), (None, None)).compile(plan, group.number, h).check()
    except Exception:
        return False
    return True


def _named(error: Exception, programs: GroupPrograms, plan: Plan, group: Group, h: Hparams) -> Exception:
    """Returns the error of a group's programs as it is raised by functions whose errors name them."""
    config, chunks = programs.config(plan, group.number), plan.arrangements[group.number].chunks
    config = config._replace(program=annotated(config.program))
    try:
        Compiled(config, h, *_split_shapes(programs.spec), programs.mesh, chunks).check()
    except Exception as named:
        return named
    return error


def _split_shapes(spec: SweepSpec) -> tuple[Any, Any]:
    """Returns the shapes of the splits as a segment takes them; of a stream, those of one block of batches."""
    train, valid = map(shapes_of, spec.splits)
    return train if spec.stream is None else spec.stream.shapes, valid


def lane_ids(plan: Plan, trials: Collection[int]) -> tuple[Ints, Ints]:
    """Returns the trial and the replicate of each lane of some trials, in the order of their table, int32 (lanes,)."""
    # Sorted by their ends: a chunk costs as long as one of its lanes runs, so its lanes had better end together.
    ordered = sorted(trials, key=lambda t: (-plan.budgets[t], t))
    replicate = np.repeat(np.arange(plan.replicates, dtype=np.int32), len(ordered))
    return np.tile(np.array(ordered, np.int32), plan.replicates), replicate
