"""The spec of a sweep: what the user asked for, checked as far as that needs no tracing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, TypeVar

import jax

from hpjax.core.errors import InputError, check_int
from hpjax.core.objective import Objective
from hpjax.core.program import Program
from hpjax.core.space import Space
from hpjax.data.batches import pool
from hpjax.data.examples import examples_in
from hpjax.data.stream import Stream, first_batch_of
from hpjax.engine.partition import Rule
from hpjax.results.store.manifest import StudyRecord
from hpjax.samplers import Sampler
from hpjax.schedulers import Scheduler
from hpjax.sweep.artifact_choice import ArtifactChoice
from hpjax.sweep.shard import FIELD, Shard

RANDOMNESS = ("shared", "independent")
KERNELS = ("batched", "xla")
# What is taken where nothing was measured, by platform; elsewhere the first of these. On a v5e, whose memory pads the
# channels of patches to multiples of 128, 64 lanes of the CNN in experiments/benchmarks move 175 MB a lane-step by
# matrix products and 101 MB by XLA's convolutions; on an H100 46 and 49 MB.
KERNELS_OF = {"tpu": "xla"}
SPREAD = ("shard_map", "pmap")

T = TypeVar("T")


@dataclass(frozen=True)
class SweepSpec:
    """The arguments of ``Sweep``, which documents them, with whole numbers as ints and lists as tuples.

    Raises:
      InputError: an argument cannot be used.
    """

    program: Program
    space: Space
    trials: int | None
    rounds: int | tuple[int, ...]
    replicates: int
    folds: int | None
    sampler: Sampler
    scheduler: Scheduler | None
    objective: Objective
    seed: int
    randomness: Literal["shared", "independent"]
    width: int | tuple[int, ...] | None
    kernels: str | tuple[str, ...] | None
    devices: int | tuple[jax.Device, ...] | None
    spread: Literal["shard_map", "pmap"]
    devices_per_lane: int
    partition: Rule | Literal["fsdp"] | None
    segment: int | None
    shard: Shard | None
    artifacts: ArtifactChoice
    study: StudyRecord | None

    def __post_init__(self) -> None:
        for name, kind, example in (
            ("program", Program, "hpx.Program(...) or hpx.supervised(...)"),
            ("space", Space, "hpx.Space(learning_rate=...)"),
            ("sampler", Sampler, "hpx.Sobol()"),
            ("objective", Objective, 'hpx.minimize("valid/loss")'),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                allowed = f"must be of type {kind.__name__}"
                raise InputError(f"Sweep.{name}", value, allowed, f"Write {name}={example}.")
        self._set("replicates", check_int("Sweep.replicates", self.replicates))
        self._set("seed", check_int("Sweep.seed", self.seed, least=0))
        self._set("devices_per_lane", check_int("Sweep.devices_per_lane", self.devices_per_lane))
        for name in ("trials", "segment", "devices"):
            described = (
                name == "devices" and isinstance(self.devices, tuple) and isinstance(self.devices[0], jax.Device)
            )
            if getattr(self, name) is not None and not described:
                self._set(name, check_int(f"Sweep.{name}", getattr(self, name)))
        self._set("rounds", _each(self.rounds, partial(check_int, "Sweep.rounds")))
        if self.width is not None:
            self._set("width", _each(self.width, partial(check_int, "Sweep.width")))
        if self.kernels is not None:
            self._set("kernels", _each(self.kernels, partial(_one_of, "kernels", KERNELS)))
        _one_of("randomness", RANDOMNESS, self.randomness)
        _one_of("spread", SPREAD, self.spread)
        if self.scheduler is not None and not isinstance(self.scheduler, Scheduler):
            allowed = "must be a Scheduler or None"
            raise InputError("Sweep.scheduler", self.scheduler, allowed, "Write scheduler=hpx.Halving(min_steps=100).")
        self._check_span()
        self._check_stream()
        self._check_folds()
        self._set("artifacts", self._artifacts())
        if self.shard is not None:
            self._set("shard", Shard.read(self.shard))
            self._check_shard()

    def _set(self, name: str, value: Any) -> None:
        """Replaces a field while the frozen object is made."""
        object.__setattr__(self, name, value)

    def _artifacts(self) -> ArtifactChoice:
        """Returns the choice of the trials that have artifacts: by default the best four, where the program has any."""
        has, asked = self.program.artifacts is not None, self.artifacts
        choice = ArtifactChoice.read("best:4" if has and asked is None else () if asked is None else asked)
        if not has and choice != ArtifactChoice.none():
            remedy = "Write hpx.supervised(..., artifacts=...), or leave it out."
            raise InputError("Sweep.artifacts", asked, "needs a program with artifacts", remedy)
        return choice

    def _check_span(self) -> None:
        """Raises ``InputError`` where lanes cannot span so many devices, or not in this way."""
        if not (self.partition is None or self.partition == "fsdp" or callable(self.partition)):
            allowed = 'must be "fsdp", a function of path and shape, or None'
            remedy = 'Write partition="fsdp", or leave it out: each device then has the whole state.'
            raise InputError("Sweep.partition", self.partition, allowed, remedy)
        if self.devices_per_lane > 1 and self.spread == "pmap":
            allowed = f"has each device train lanes of its own, and devices_per_lane is {self.devices_per_lane}"
            raise InputError("Sweep.spread", self.spread, allowed, 'Write spread="shard_map".')

    def _check_stream(self) -> None:
        """Raises ``InputError`` where a data stream cannot give what is asked for."""
        if self.stream is None:
            return
        shared = "cannot be had with a data stream: all lanes share its batches, in its order"
        if self.randomness == "independent":
            remedy = 'Write randomness="shared", or give the data as arrays: hpx.data.from_arrays(x, y).'
            raise InputError("Sweep.randomness", self.randomness, shared, remedy)
        if self.folds is not None:
            remedy = "Leave folds out, or give the data as arrays: hpx.data.from_arrays(x, y)."
            raise InputError("Sweep.folds", self.folds, f"{shared}, so that none can leave a fold out", remedy)

    def _check_folds(self) -> None:
        """Raises ``InputError`` unless there are at least as many examples as folds."""
        if self.folds is None:
            return
        pooled = self.splits[0]
        examples = 0 if pooled is None else examples_in(pooled)
        if examples == 0:
            raise InputError("Sweep.folds", self.folds, "needs a program with data", "Leave folds out.")
        self._set("folds", check_int("Sweep.folds", self.folds, least=2, most=examples))

    def _check_shard(self) -> None:
        """Raises ``InputError`` if the sweep decides anything by results, which jobs apart could not agree on."""
        remedy = "Leave {} out, or run the whole sweep as one program, on several hosts where one is too small."
        if self.scheduler is not None:
            name = type(self.scheduler).__name__
            allowed = f"cannot go with {name}, which would compare the trials of each job without seeing the others"
            raise InputError(FIELD, str(self.shard), allowed, remedy.format("the scheduler"))
        if self.rounds not in (1, (self.trials,)):
            allowed = f"cannot go with {self.rounds} rounds, since no job would see what the others found in the first"
            raise InputError(FIELD, str(self.shard), allowed, remedy.format("rounds"))

    @property
    def stream(self) -> Stream | None:
        """The stream from which the host draws batches, None if the train split is on the devices."""
        train = self.program.splits[0]
        return train if isinstance(train, Stream) else None

    @property
    def independent(self) -> bool:
        """Whether each trial draws random numbers of its own."""
        return self.randomness == "independent"

    @property
    def lanes_a_trial(self) -> int:
        """How many lanes a trial has: lane ``r`` has the seed ``r // folds`` and the fold ``r % folds``."""
        return self.replicates * (self.folds or 1)

    @cached_property
    def splits(self) -> tuple[Any, Any]:
        """What ``batch`` and ``evaluate`` get: the train and valid splits, or with folds twice the pool of both.

        In place of a train split that is a stream stands its first batch.
        """
        if self.folds is None or self.program.data is None:
            train, valid = self.program.splits
            return first_batch_of(train), valid
        pooled = pool(self.program.data)
        return pooled, pooled


def of_group(asked: T | tuple[T, ...] | None, group: int) -> T | None:
    """Returns what was asked for one group; None leaves it to the plan.

    Args:
      asked: one value for all groups, a tuple with one for each, or None.
      group: the number of the group.
    """
    if isinstance(asked, tuple):
        return asked[group] if group < len(asked) else None
    return asked


def _each(value: Any, check: Callable[[Any], Any]) -> Any:
    """Returns a checked value, or a tuple of checked values for a tuple, a list, or an array of one axis."""
    several = isinstance(value, tuple | list) or getattr(value, "ndim", 0) == 1
    return tuple(map(check, value)) if several and len(value) else check(value)


def _one_of(name: str, allowed: tuple[str, str], value: Any) -> Any:
    """Returns a value; raises ``InputError`` unless it is one of two."""
    if value not in allowed:
        remedy = f"Write {name}={allowed[0]!r}, or leave it out."
        raise InputError(f"Sweep.{name}", value, f"must be one of {allowed}", remedy)
    return value
