"""What the user asked of a sweep, checked as far as that needs no tracing."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from hpjax.core.errors import InputError, check_int
from hpjax.core.objective import Objective, minimize
from hpjax.core.program import Program
from hpjax.core.space import Space
from hpjax.data.batches import pool
from hpjax.data.examples import examples_in
from hpjax.data.stream import Stream, first_batch_of
from hpjax.samplers import Sampler, Sobol
from hpjax.schedulers import Scheduler
from hpjax.sweep.shard import FIELD, Shard

RANDOMNESS = ("shared", "independent")
KERNELS = ("batched", "xla")
SPREAD = ("shard_map", "pmap")


@dataclass(frozen=True)
class Settings:
    """The arguments of ``Sweep``; see there."""

    program: Program
    space: Space
    trials: int | None = None
    rounds: int | tuple[int, ...] = 1
    replicates: int = 1
    folds: int | None = None
    sampler: Sampler = field(default_factory=Sobol)
    scheduler: Scheduler | None = None
    objective: Objective = field(default_factory=lambda: minimize("valid/loss"))
    seed: int = 0
    randomness: Literal["shared", "independent"] = "shared"
    width: int | tuple[int, ...] | None = None
    kernels: str | tuple[str, ...] | None = None
    devices: int | None = None
    spread: Literal["shard_map", "pmap"] = "shard_map"
    segment: int | None = None
    shard: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, kind, make in (
            ("program", Program, "Program or hpx.supervised(...)"),
            ("space", Space, "Space(learning_rate=...)"),
            ("sampler", Sampler, "Sobol()"),
            ("objective", Objective, 'hpx.minimize("valid/loss")'),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise InputError(f"Sweep.{name}", value, f"must be of type {kind.__name__}", f"Give {make}.")
        if isinstance(self.rounds, tuple | list) and self.rounds:
            object.__setattr__(self, "rounds", tuple(check_int("Sweep.rounds", each) for each in self.rounds))
        else:
            object.__setattr__(self, "rounds", check_int("Sweep.rounds", self.rounds))
        if isinstance(self.width, tuple | list) and self.width:
            object.__setattr__(self, "width", tuple(check_int("Sweep.width", each) for each in self.width))
        elif self.width is not None:
            object.__setattr__(self, "width", check_int("Sweep.width", self.width))
        for name in ("trials", "replicates", "segment", "devices"):
            if getattr(self, name) is not None or name == "replicates":
                object.__setattr__(self, name, check_int(f"Sweep.{name}", getattr(self, name)))
        self._check_stream()
        if self.folds is not None:
            pool = self.splits[0]
            examples = 0 if pool is None else examples_in(pool)
            if examples == 0:
                raise InputError("Sweep.folds", self.folds, "needs a program with data", "Leave folds out.")
            object.__setattr__(self, "folds", check_int("Sweep.folds", self.folds, least=2, most=examples))
        object.__setattr__(self, "seed", check_int("Sweep.seed", self.seed, least=0))
        if isinstance(self.kernels, list):
            object.__setattr__(self, "kernels", tuple(self.kernels))
        for each in self.kernels if isinstance(self.kernels, tuple) else (self.kernels,):
            if each not in (None, *KERNELS):
                raise InputError("Sweep.kernels", self.kernels, f"must be one of {KERNELS}, or None", "Spell it so.")
        for name, allowed in (("randomness", RANDOMNESS), ("spread", SPREAD)):
            if getattr(self, name) not in allowed:
                raise InputError(f"Sweep.{name}", getattr(self, name), f"must be one of {allowed}", "Spell it so.")
        if self.scheduler is not None and not isinstance(self.scheduler, Scheduler):
            raise InputError("Sweep.scheduler", self.scheduler, "must be a Scheduler", "Give Halving(min_steps=100).")
        if self.shard is not None:
            object.__setattr__(self, "shard", self._sharded(Shard.read(self.shard)))

    def _sharded(self, shard: Shard) -> Shard:
        """``shard``, where the sweep decides nothing on the way: jobs that do not see each other could not."""
        remedy = "Leave {} out, or run the whole sweep as one program, on several hosts where one is too small."
        if self.scheduler is not None:
            name = type(self.scheduler).__name__
            allowed = f"cannot go with {name}, which would compare the trials of each job without seeing the others"
            raise InputError(FIELD, str(shard), allowed, remedy.format("the scheduler"))
        if self.rounds not in (1, (self.trials,)):
            allowed = f"cannot go with {self.rounds} rounds, since no job would see what the others found in the first"
            raise InputError(FIELD, str(shard), allowed, remedy.format("rounds"))
        return shard

    def _check_stream(self) -> None:
        if self.stream is None:
            return
        shared = "cannot be with a data stream: one batch feeds all lanes, so that they share its order"
        if self.randomness == "independent":
            remedy = 'Leave it "shared", or give the data as arrays.'
            raise InputError("Sweep.randomness", self.randomness, shared, remedy)
        if self.folds is not None:
            raise InputError("Sweep.folds", self.folds, f"{shared}, and all of it", "Give the data as arrays.")

    @property
    def stream(self) -> Stream | None:
        """What the host draws batches from, None where the train split is on the devices."""
        train = self.program.splits[0]
        return train if isinstance(train, Stream) else None

    @property
    def lanes_a_trial(self) -> int:
        """How many replicates a trial has: number ``r`` has seed ``r // folds`` and fold ``r % folds``."""
        return self.replicates * (self.folds or 1)

    @cached_property
    def splits(self) -> tuple[Any, Any]:
        """What ``batch`` and ``evaluate`` get: the train and valid splits, or with folds twice the pool of both.

        Of a stream the first batch, in place of the train split.
        """
        if self.folds is None or self.program.data is None:
            train, valid = self.program.splits
            return first_batch_of(train), valid
        together = pool(self.program.data)
        return together, together
