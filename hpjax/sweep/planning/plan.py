"""The plan: groups × width × devices × segments, known before anything trains. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hpjax.core.arrays import ceil_div
from hpjax.core.format import show
from hpjax.core.program import TrialLength
from hpjax.core.space import Point
from hpjax.engine.shapes import ProgramShapes
from hpjax.engine.tracing import Verdict
from hpjax.sweep.planning.arrangement import Arrangement
from hpjax.sweep.planning.report import report
from hpjax.sweep.planning.width import best
from hpjax.sweep.shard import Shard


@dataclass(frozen=True)
class Group:
    """The trials that share one compiled program.

    Attributes:
      number: from 0, in the order in which groups train.
      static: the static hyperparameters that all of its trials agree on.
      eval_every: calls of ``step`` between evaluations.
      trials: the ids, ascending.
    """

    number: int
    static: Mapping[str, Any]
    eval_every: int
    trials: tuple[int, ...]

    def __str__(self) -> str:
        return ", ".join(f"{name}={show(value)}" for name, value in self.static.items()) or "-"


def next_stop(step: int, last: int, eval_every: int, segment: int | None, block: int | None) -> tuple[int, bool]:
    """Where the segment that begins at ``step`` ends, and whether with an evaluation.

    It ends at the multiples of ``eval_every`` and of ``block``, after ``segment`` steps, and at the ``last`` one.
    """
    stops = [(step // every + 1) * every for every in (eval_every, block) if every is not None]
    stop = min(at for at in (*stops, last, step + (segment or last)) if at > step)
    return stop, stop % eval_every == 0 or stop == last


@dataclass(frozen=True)
class Plan:
    """What a sweep will do, known before it does it. ``print(plan)`` tells it in full.

    Attributes:
      rounds: how many trials each round has; what is known of groups and trials is that of the rounds planned so far.
      replicates: lanes a trial.
      folds: how many folds the replicates of a seed are, None for none.
      groups: one compiled program each, in the order in which they train.
      shapes: what the program of each group gives.
      verdicts: per hyperparameter, whether it is traced, and why.
      domains: per hyperparameter, its domain as text.
      arrangements: per group, how it stands on the devices.
      offloads: whether waves that wait for a scheduler do so on the host, since not all fit on the devices.
      devices: how many devices, and of which kind.
      points: per trial, its hyperparameters.
      lengths: per trial, how long it takes.
      segment: steps a device call at most; None goes from evaluation to evaluation.
      data_bytes: size of the train and valid splits, of which each device has one copy; of a stream two blocks.
      objective, randomness, seed: as given to the sweep.
      shard: the part of the trials that is trained here, None for all.
      hints: what would make the sweep faster.
      stream: what the train split is where it is no arrays; else empty.
      block: steps of which a device call has the batches of a stream, at most; else None.
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

    @property
    def trials(self) -> int:
        """How many trials all rounds have together."""
        return sum(self.rounds)

    @property
    def widths(self) -> tuple[int, ...]:
        """Per group, lanes that one device computes at once, as planned."""
        return tuple(each.planned_width for each in self.arrangements)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Per group, which kernels compute convolutions and pooling."""
        return tuple(each.kernels for each in self.arrangements)

    def round_of(self, trial: int) -> int:
        """The round of a trial, from 0."""
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
        """The trials that are trained here, ascending, as far as they are planned: all, or those of the shard."""
        return tuple(sorted(trial for each in self.arrangements for wave in each.waves for trial in wave))

    @cached_property
    def own_groups(self) -> tuple[Group, ...]:
        """The groups that have trials that are trained here."""
        return tuple(g for g in self.groups if self.arrangements[g.number].waves)

    @cached_property
    def lane_steps(self) -> int:
        """Calls of ``step`` of all lanes here; later rounds are taken to be like those that are planned."""
        mine = sum(self.budgets[trial] for trial in self.own)
        return round(mine * self.trials / len(self.budgets)) * self.replicates

    def _budgets_of(self, group: Group) -> list[int]:
        return [self.budgets[trial] for wave in self.arrangements[group.number].waves for trial in wave]

    def group_seconds(self, group: Group) -> float:
        """What its trials will take, as measured, or to an order of magnitude by the work of a step."""
        return sum(self.split_seconds(group))

    def split_seconds(self, group: Group) -> tuple[float, float]:
        """The same of steps and of evaluations."""
        calls = self.replicates * sum(self._budgets_of(group))
        shapes, (devices, kind) = self.shapes[group.number], self.devices
        looks = calls / group.eval_every * shapes.evaluation.seconds(kind) / devices
        if rates := self.arrangements[group.number].rates:
            return calls / best(rates).speed, looks
        return calls * shapes.step.seconds(kind) / devices, looks

    @cached_property
    def run_seconds(self) -> float:
        """What all trials here will take, compilations apart; later rounds are taken to be like those planned."""
        planned = sum(self.group_seconds(g) for g in self.own_groups)
        return planned * self.trials / len(self.budgets)

    @cached_property
    def compile_seconds(self) -> float:
        """What compiling takes, to an order of magnitude; most of it while groups train."""
        return sum(self.shapes[g.number].compile_seconds for g in self.own_groups)

    def memory(self, group: Group) -> int:
        """Estimated bytes a device while a wave of the group trains: lanes, data, one chunk's gradients and batch."""
        lane = self.shapes[group.number].lane_bytes
        own = self.arrangements[group.number]
        return (own.chunks + 1) * own.width * lane + self.data_bytes

    def segments(self, group: Group) -> int:
        """Device calls of a wave of the group, if no trial ends early."""
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
