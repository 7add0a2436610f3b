"""The plan: groups × width × devices × segments, known before anything trains. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax

from hpjax.core import format as text
from hpjax.core.arrays import ceil_div
from hpjax.core.format import show
from hpjax.core.hparams import Hparams
from hpjax.core.program import TrialLength
from hpjax.engine.shapes import ProgramShapes
from hpjax.engine.tracing import Verdict
from hpjax.sweep.planning.width import Rate, best
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


def group(hparams: Sequence[Hparams], eval_every: Sequence[int], traced: frozenset[str]) -> list[Group]:
    """Groups trials: two share one exactly when their tree structures and ``eval_every`` are equal.

    Args:
      hparams: of each trial, in the order of the ids; traced values are leaves.
      eval_every: of each trial.
      traced: the names of the traced hyperparameters.

    Returns:
      Groups in the order of their first trials; each trial stands in exactly one.
    """
    members: dict[tuple[Any, int], list[int]] = {}
    for trial, (h, every) in enumerate(zip(hparams, eval_every, strict=True)):
        members.setdefault((jax.tree.structure(h), every), []).append(trial)
    groups = []
    for number, ((_, every), trials) in enumerate(members.items()):
        h = hparams[trials[0]]
        static = {name: h[name] for name in h if name not in traced}
        groups.append(Group(number, static, every, tuple(trials)))
    return groups


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
      widths: per group, lanes that one device computes at once.
      kernels: per group, ``"batched"`` where convolutions and pooling are matrix products, ``"xla"`` where they are
        XLA's own.
      rates: per group, what was measured of widths; nothing where they are by rule or given.
      narrowed: group to its own width, for those that ran out of memory.
      chunks: per group, chunks of ``width`` lanes a device.
      waves: per group, the trials that are on the devices together: all, where they fit. Of a shard its own trials.
      parks: whether waves that wait for a scheduler do so on the host, since not all fit on the devices.
      devices: how many devices, and of which kind.
      schedules: per trial, how long it takes.
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
    widths: tuple[int, ...]
    kernels: tuple[str, ...]
    rates: tuple[tuple[Rate, ...], ...]
    chunks: tuple[int, ...]
    waves: tuple[tuple[tuple[int, ...], ...], ...]
    offloads: bool
    devices: tuple[int, str]
    lengths: tuple[TrialLength, ...]
    segment: int | None
    data_bytes: int
    objective: str
    randomness: str
    seed: int
    shard: Shard | None = None
    hints: tuple[str, ...] = ()
    narrowed: Mapping[int, int] = field(default_factory=dict)
    stream: str = ""
    block: int | None = None

    @property
    def trials(self) -> int:
        """How many trials all rounds have together."""
        return sum(self.rounds)

    def width_of(self, group: int) -> int:
        """Lanes of a group that one device computes at once."""
        return self.narrowed.get(group, self.widths[group])

    def round_of(self, trial: int) -> int:
        """The round of a trial, from 0."""
        return next(r for r in range(len(self.rounds)) if trial < sum(self.rounds[: r + 1]))

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Per trial, how many optimizer steps it takes."""
        return tuple(schedule.steps for schedule in self.lengths)

    @cached_property
    def budgets(self) -> tuple[int, ...]:
        """Per trial, how many calls of ``step`` it takes; a call is an optimizer step unless gradients accumulate."""
        return tuple(schedule.steps * schedule.microsteps for schedule in self.lengths)

    @cached_property
    def own(self) -> tuple[int, ...]:
        """The trials that are trained here, ascending, as far as they are planned: all, or those of the shard."""
        return tuple(sorted(trial for waves in self.waves for wave in waves for trial in wave))

    @cached_property
    def own_groups(self) -> tuple[Group, ...]:
        """The groups that have trials that are trained here."""
        return tuple(g for g in self.groups if self.waves[g.number])

    @cached_property
    def lane_steps(self) -> int:
        """Calls of ``step`` of all lanes here; later rounds are taken to be like those that are planned."""
        mine = sum(self.budgets[trial] for trial in self.own)
        return round(mine * self.trials / len(self.budgets)) * self.replicates

    def group_seconds(self, group: Group) -> float:
        """What its trials will take, as measured, or to an order of magnitude by the work of a step."""
        return sum(self.split_seconds(group))

    def split_seconds(self, group: Group) -> tuple[float, float]:
        """The same of steps and of evaluations."""
        calls = self.replicates * sum(self.budgets[trial] for wave in self.waves[group.number] for trial in wave)
        shapes, (devices, kind) = self.shapes[group.number], self.devices
        looks = calls / group.eval_every * shapes.evaluation.seconds(kind) / devices
        if self.rates[group.number]:
            return calls / best(self.rates[group.number]).speed, looks
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
        return (self.chunks[group.number] + 1) * self.width_of(group.number) * lane + self.data_bytes

    def segments(self, group: Group) -> int:
        """Device calls of a wave of the group, if no trial ends early."""
        longest = max(self.budgets[trial] for wave in self.waves[group.number] for trial in wave)
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

    def _told(self, rates: Sequence[Rate]) -> str:
        """What was measured, as text."""
        either = len({rate.kernels for rate in rates}) > 1
        each = [f"{rate.width}{f' {rate.kernels}' if either else ''} → {rate.speed:,.0f}" for rate in rates]
        return f"lane-steps a second by width at most: {', '.join(each)}"

    def __str__(self) -> str:
        count, kind = self.devices
        seeds = self.replicates // (self.folds or 1)
        folds = f" ({text.count(seeds, 'seed')} × {self.folds} folds)" if self.folds else ""
        rounds = f" in {len(self.rounds)} rounds, of which the first is planned here," if len(self.rounds) > 1 else ""
        parts = " of one microbatch" if any(schedule.microsteps > 1 for schedule in self.lengths) else ""
        work = f", {text.count(self.lane_steps, 'lane-step')}{parts}"
        head = [
            f"{text.count(self.trials, 'trial')}{rounds} × {text.count(self.replicates, 'replicate')}{folds} = "
            f"{text.count(self.trials * self.replicates, 'lane')}{'' if self.shard else work}",
            *([f"shard {self.shard}: {len(self.own):,} of {self.trials:,} trials{work}"] if self.shard else []),
            f"objective {self.objective} · seed {self.seed} · {self.randomness} randomness",
            f"{text.count(count, f'{kind} device')}, data {text.size(self.data_bytes)} a device",
            *([f"data {self.stream}"] if self.stream else []),
            f"about {text.duration(self.run_seconds)} to run and {text.duration(self.compile_seconds)} to compile, "
            + ("as measured" if all(self.rates) else "by a rough estimate"),
        ]
        how = text.table(
            ("hyperparameter", "domain", "how", "why"),
            [(v.name, self.domains[v.name], "traced" if v.traced else "static", v.reason) for v in self.verdicts],
        )
        apart = len({g.eval_every for g in self.own_groups}) > 1
        groups = text.table(
            (
                "group",
                "static",
                "trials",
                "waves",
                "segments",
                "width",
                "chunks a device",
                "parameters a lane",
                "memory a device",
            ),
            [
                (
                    str(g.number),
                    f"{g}, eval_every={g.eval_every}" if apart else str(g),
                    f"{sum(map(len, self.waves[g.number])):,}",
                    f"{len(self.waves[g.number]):,}",
                    f"{self.segments(g):,}",
                    f"{self.width_of(g.number):,}",
                    f"{self.chunks[g.number]:,}",
                    f"{self.shapes[g.number].parameters:,}",
                    text.size(self.memory(g)),
                )
                for g in self.own_groups
            ],
        )
        measured = [
            f"group {g.number}: {self._told(self.rates[g.number])}" for g in self.own_groups if self.rates[g.number]
        ]
        unknown = [str(g.number) for g in self.own_groups if not self.rates[g.number]] if measured else []
        if unknown:
            measured.append(
                f"no time was left to measure group {', '.join(unknown)}; the next measurement goes on there"
            )
        small = [
            f"group {number} ran out of memory at the width {self.widths[number]}: it trains at {width}."
            for number, width in sorted(self.narrowed.items())
        ]
        programs = f"{text.count(len(self.own_groups), 'compiled program')}"
        return "\n".join(
            [
                *head,
                "",
                how,
                "",
                f"{programs}, one a group",
                groups,
                *measured,
                *(f"\nhint: {h}" for h in (*small, *self.hints)),
            ]
        )
