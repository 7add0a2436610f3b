"""The plan: groups × width × devices × segments, known before anything trains. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from jax.sharding import PartitionSpec

from hpjax.core import html
from hpjax.core.arrays import ceil_div
from hpjax.core.format import show
from hpjax.core.program import TrialLength
from hpjax.core.records import jsonable
from hpjax.core.space import Point
from hpjax.engine.exchanges import Exchanges
from hpjax.engine.padding.program import PaddedProgram
from hpjax.engine.partition import device_bytes
from hpjax.engine.shapes import ProgramShapes
from hpjax.engine.takeover import Takeover
from hpjax.engine.targets import Target
from hpjax.engine.tracing import Verdict
from hpjax.sweep.planning.arrangement import Arrangement
from hpjax.sweep.planning.footprint import Footprint
from hpjax.sweep.planning.pace import Pace
from hpjax.sweep.planning.report import report
from hpjax.sweep.shard import Shard

# Seconds that the host takes to record a lane: its row, what it measured, and its final state.
RECORDING = 1e-4


@dataclass(frozen=True)
class Group:
    """The trials that share one compiled program.

    Attributes:
      number: the number of the group, from 0, in the order in which groups train.
      static: name to value of the static hyperparameters, on which all of its trials agree.
      eval_every: calls of ``step`` between evaluations.
      trials: the ids of its trials, ascending.
    """

    number: int
    static: Mapping[str, Any]
    eval_every: int
    trials: tuple[int, ...]

    def __str__(self) -> str:
        return ", ".join(f"{name}={show(value)}" for name, value in self.static.items()) or "-"


class Padding(NamedTuple):
    """Groups that share one padded program.

    Attributes:
      groups: the numbers of the groups, in the order of the program's numbers.
      padded: the program.
      checking: the estimated seconds of compiling the program with which it is compared before the run trains.
      compiling, training: the estimated seconds of the programs of the groups, each on its own, in all; these and
        ``checking`` are 0 where the run that is resumed decided.
    """

    groups: tuple[int, ...]
    padded: PaddedProgram
    checking: float = 0.0
    compiling: float = 0.0
    training: float = 0.0


def _by_name(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns hyperparameters, name to value, with functions by their names."""
    return {name: jsonable(value) for name, value in values.items()}


def next_stop(step: int, last: int, eval_every: int, segment: int | None, block: int | None) -> tuple[int, bool]:
    """Returns where the segment that begins at ``step`` ends, and whether it ends with an evaluation.

    Segments end at the multiples of ``eval_every`` and of ``block``, after ``segment`` steps, and at the ``last`` step.

    Args:
      step: calls of ``step`` before the segment.
      last: calls that the longest trial takes.
      eval_every: calls between evaluations.
      segment: calls in a segment at most, None for any number.
      block: batches in a block of a data stream, of which a segment has one; None without a stream.
    """
    stops = [(step // every + 1) * every for every in (eval_every, block) if every is not None]
    stop = min(at for at in (*stops, last, step + (segment or last)) if at > step)
    return stop, stop % eval_every == 0 or stop == last


@dataclass(frozen=True)
class Plan:
    """What a sweep will do, known before it does it; ``print(plan)`` shows it in full.

    Groups and trials are those of the rounds that are planned so far. A plan pickles, with functions among the
    hyperparameters by their names.

    Attributes:
      rounds: how many trials each round has, those to come included.
      replicates: lanes of a trial.
      folds: how many folds each seed is trained on, None without cross-validation.
      groups: the trials that share a program, for each program, in the order in which they train.
      shapes: per group, the shapes of what its program gives.
      verdicts: per hyperparameter, whether it is traced, and why.
      domains: per hyperparameter, its domain as text.
      arrangements: per group, how it is placed on the devices.
      offloads: whether waves that wait for a scheduler do so on the host, since not all of them fit on the devices.
      devices: how many devices there are, and of which kind.
      devices_per_lane: how many of them each lane spans.
      partitions: per group, how each array of its program's state is split over the devices of a lane.
      gathers: whether weights that are split are gathered to meet examples; else XLA decides what devices exchange.
      points: per trial, its hyperparameters.
      lengths: per trial, how long it takes.
      segment: steps of a device call at most; None goes from evaluation to evaluation.
      data_bytes: bytes that the data takes on each device: the train and valid splits, or two blocks of a stream in
        place of the train split; and large arrays that the program closes over.
      objective, randomness, seed: as given to the sweep.
      shard: the part of the trials that is trained here, None for all.
      hints: what would make the sweep faster, or is likely a mistake.
      stream: a description of the data stream; empty without one.
      block: batches in a block of the stream, None without one. A device call takes no more steps.
      takeovers: per group, what its trials do with the state of another one when they go on from it.
      paddings: the groups that share padded programs.
      pace: how many times as long as estimated things take here.
      exchanges: per group, what the devices of a lane exchange by its compiled program, None where that is not known;
        empty where nothing was compiled.
      target: the devices that are not there and for which this is planned, None for those that are.
      footprints: what each program takes of the devices of the target, in the order of ``programs``.
      widest: how many lanes of each program a device of the target has room for at once.
    """

    rounds: tuple[int, ...]
    replicates: int
    folds: int | None
    groups: tuple[Group, ...]
    shapes: tuple[ProgramShapes, ...]
    verdicts: tuple[Verdict, ...]
    domains: Mapping[str, str]
    arrangements: tuple[Arrangement, ...]
    offloads: bool
    devices: tuple[int, str]
    devices_per_lane: int
    partitions: tuple[tuple[PartitionSpec, ...], ...]
    gathers: bool
    points: tuple[Point, ...]
    lengths: tuple[TrialLength, ...]
    segment: int | None
    data_bytes: int
    objective: str
    randomness: str
    seed: int
    shard: Shard | None = None
    hints: tuple[str, ...] = ()
    stream: str = ""
    block: int | None = None
    takeovers: tuple[Takeover, ...] = ()
    paddings: tuple[Padding, ...] = ()
    pace: Pace = field(default_factory=Pace)
    exchanges: tuple[Exchanges | None, ...] = ()
    target: Target | None = None
    footprints: tuple[Footprint, ...] = ()
    widest: tuple[int, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        points = tuple(map(_by_name, self.points))
        groups = tuple(replace(each, static=_by_name(each.static)) for each in self.groups)
        shapes = tuple(each._replace(tree=None) for each in self.shapes)
        none: Any = None  # in place of functions
        paddings = tuple(each._replace(padded=each.padded._replace(program=none)) for each in self.paddings)
        target = self.target and self.target._replace(devices=())
        own = {"points": points, "groups": groups, "shapes": shapes, "paddings": paddings, "target": target}
        return vars(self) | own

    def padding(self, group: int) -> Padding | None:
        """Returns the padding of which a group is part, None where it has a program of its own."""
        return next((each for each in self.paddings if group in each.groups), None)

    def together(self, group: int) -> tuple[int, ...]:
        """Returns the numbers of the groups that share the program of a group, it among them."""
        padding = self.padding(group)
        return (group,) if padding is None else padding.groups

    def trained(self, group: int) -> ProgramShapes:
        """Returns the shapes of the program that trains a group: its own, or the padded one."""
        padding = self.padding(group)
        return self.shapes[group] if padding is None else padding.padded.shapes

    @property
    def spans(self) -> int:
        """How many lanes, or chunks of lanes, train side by side: the devices, divided by those that a lane spans."""
        return max(self.devices[0] // self.devices_per_lane, 1)  # what was trained on more devices is read on fewer

    def lane_bytes(self, group: int) -> int:
        """Returns the bytes that the state of a lane of a group takes on each of its devices."""
        return device_bytes(self.partitions[group], self.trained(group), self.devices_per_lane)

    @property
    def trials(self) -> int:
        """How many trials all rounds have together."""
        return sum(self.rounds)

    @property
    def free(self) -> frozenset[str]:
        """The hyperparameters that may change while a trial runs."""
        kept = set[str]().union(*(takeover.kept for takeover in self.takeovers))
        return frozenset(verdict.name for verdict in self.verdicts if verdict.traced) - kept

    @property
    def widths(self) -> tuple[int, ...]:
        """Per group, lanes that one device computes at once, as planned."""
        return tuple(each.planned_width for each in self.arrangements)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Per group, which kernels compute convolutions and pooling."""
        return tuple(each.kernels for each in self.arrangements)

    def round_of(self, trial: int) -> int:
        """Returns the number of a trial's round, from 0."""
        return next(r for r in range(len(self.rounds)) if trial < sum(self.rounds[: r + 1]))

    @cached_property
    def last_round_begin(self) -> int:
        """The first trial of the round that was planned last."""
        return sum(self.rounds[: self.round_of(len(self.points) - 1)])

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Per trial, how many optimizer steps it takes."""
        return tuple(length.steps for length in self.lengths)

    @cached_property
    def budgets(self) -> tuple[int, ...]:
        """Per trial, how many calls of ``step`` it takes; a call is an optimizer step unless gradients accumulate."""
        return tuple(length.steps * length.microsteps for length in self.lengths)

    @cached_property
    def own(self) -> tuple[int, ...]:
        """The trials that are trained here, ascending: all that are planned, or those of the shard."""
        return tuple(sorted(trial for each in self.arrangements for wave in each.waves for trial in wave))

    @cached_property
    def own_groups(self) -> tuple[Group, ...]:
        """The groups that have trials that are trained here."""
        return tuple(g for g in self.groups if self.arrangements[g.number].waves)

    @cached_property
    def programs(self) -> tuple[tuple[int, ...], ...]:
        """For each program that is compiled here, the numbers of the groups that it trains."""
        return tuple(dict.fromkeys(self.together(g.number) for g in self.own_groups))

    @cached_property
    def lane_steps(self) -> int:
        """Calls of ``step`` of all lanes here, if later rounds are like those that are planned."""
        mine = sum(self.budgets[trial] for trial in self.own)
        return round(mine * self.trials / len(self.budgets)) * self.replicates

    def _budgets_of(self, group: Group) -> list[int]:
        """Returns the calls of ``step`` of each trial of a group that is trained here."""
        return [self.budgets[trial] for wave in self.arrangements[group.number].waves for trial in wave]

    def group_seconds(self, group: Group) -> float:
        """Returns the seconds that the trials of a group will take: as measured, or to an order of magnitude."""
        return sum(self.split_seconds(group))

    def group_steps(self, group: Group) -> int:
        """Returns the calls of ``step`` of all lanes of a group that is trained here."""
        return self.replicates * sum(self._budgets_of(group))

    def split_seconds(self, group: Group) -> tuple[float, float]:
        """Returns the seconds that the steps of a group's trials will take, and those of their evaluations."""
        calls, measured = self.group_steps(group), self.arrangements[group.number].lane_step
        step, evaluation = (seconds * self.pace.running for seconds in self.estimated_seconds(group))
        if measured is not None:
            step = measured * self.slowed
        return calls * step, calls * evaluation

    @property
    def slowed(self) -> float:
        """How many times as long as if nothing else ran training takes, which on an accelerator waits for nothing."""
        return self.pace.busy if self.devices[1] == "cpu" else 1.0

    def estimated_seconds(self, group: Group) -> tuple[float, float]:
        """Returns the seconds of a lane-step of a group and of its part of an evaluation, whatever the machine."""
        shapes, (devices, kind) = self.trained(group.number), self.devices
        evaluating = shapes.evaluation.seconds(kind) / group.eval_every
        return shapes.step.seconds(kind) / devices, evaluating / devices

    @cached_property
    def run_seconds(self) -> float:
        """Seconds that all trials here will take without compilations, if later rounds are like those planned."""
        lanes = len(self.own) * self.replicates
        planned = sum(self.group_seconds(g) for g in self.own_groups) + lanes * RECORDING * self.pace.running
        return planned * self.trials / len(self.budgets)

    @cached_property
    def compile_seconds(self) -> float:
        """Seconds that compiling will take, to an order of magnitude; most of them pass while groups train."""
        checking = sum(padding.checking for padding in self.paddings)
        return self.pace.compiling * (
            checking + sum(self.trained(groups[0]).compile_seconds for groups in self.programs)
        )

    @cached_property
    def best_seconds(self) -> float:
        """Seconds that all trials here take at best on the devices of the target, by their footprints."""
        assert self.target is not None, "asked of plans for a target alone"
        total = 0.0
        for footprint, groups in zip(self.footprints, self.programs, strict=True):
            steps = sum(self.group_steps(self.groups[number]) for number in groups)
            total += steps * footprint.seconds(self.target.chip) / self.spans
        return total * self.trials / len(self.budgets)

    def memory(self, group: Group) -> int:
        """Returns about how many bytes each device needs while a wave of a group trains.

        These are the states of its lanes, the data, and for the gradients and batches of one chunk as much as its
        states.
        """
        lane = self.lane_bytes(group.number)
        own = self.arrangements[group.number]
        return (own.chunks + 1) * own.width * lane + self.data_bytes

    def segments(self, group: Group) -> int:
        """Returns how many device calls a wave of a group makes if no trial ends early."""
        longest = max(self._budgets_of(group))
        if self.block is not None:
            step = count = 0
            while step < longest:
                step, _ = next_stop(step, longest, group.eval_every, self.segment, self.block)
                count += 1
            return count
        # From one evaluation to the next, each in calls of at most `segment` steps.
        whole, rest = divmod(longest, group.eval_every)
        call = self.segment or longest
        return whole * ceil_div(group.eval_every, call) + ceil_div(rest, call)

    def __str__(self) -> str:
        return report(self)

    def _repr_html_(self) -> str:
        return html.text(report(self))
