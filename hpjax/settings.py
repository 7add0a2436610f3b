"""What the user asked of a sweep, checked as far as that needs no tracing."""

from dataclasses import dataclass, field
from typing import Literal

from hpjax.errors import InputError, whole
from hpjax.objective import Objective, minimize
from hpjax.program import Program
from hpjax.samplers import Sampler, Sobol
from hpjax.schedulers import Scheduler
from hpjax.space import Space

RANDOMNESS = ("shared", "independent")


@dataclass(frozen=True)
class Settings:
    """The arguments of ``Sweep``; see there."""

    program: Program
    space: Space
    trials: int | None = None
    replicates: int = 1
    sampler: Sampler = field(default_factory=Sobol)
    scheduler: Scheduler | None = None
    objective: Objective = field(default_factory=lambda: minimize("valid/loss"))
    seed: int = 0
    randomness: Literal["shared", "independent"] = "shared"
    width: int | None = None
    devices: int | None = None
    segment: int | None = None

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
        for name in ("trials", "replicates", "segment", "width", "devices"):
            if getattr(self, name) is not None or name == "replicates":
                object.__setattr__(self, name, whole(f"Sweep.{name}", getattr(self, name)))
        object.__setattr__(self, "seed", whole("Sweep.seed", self.seed, least=0))
        if self.randomness not in RANDOMNESS:
            raise InputError("Sweep.randomness", self.randomness, f"must be one of {RANDOMNESS}", "Spell it so.")
        if self.scheduler is not None and (
            isinstance(self.scheduler, type) or not callable(getattr(self.scheduler, "decide", None))
        ):
            raise InputError(
                "Sweep.scheduler", self.scheduler, "must be an object with decide(step, scores)", "See hpx.Scheduler."
            )
