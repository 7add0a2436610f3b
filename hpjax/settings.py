"""What the user asked of a sweep, checked as far as that needs no tracing."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hpjax.engine import width
from hpjax.errors import InputError
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
                raise InputError(f"Sweep.{name}", value, f"must be a {kind.__name__}", f"Give {make}.")
        for name in ("trials", "replicates", "segment"):
            value = getattr(self, name)
            if value is None and name != "replicates":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"Sweep.{name}", value, "must be a whole number, 1 or more", "Give at least 1.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**31:
            raise InputError("Sweep.seed", self.seed, "must be a whole number from 0 to 2**31 - 1", "Use a small one.")
        if self.randomness not in RANDOMNESS:
            raise InputError("Sweep.randomness", self.randomness, f"must be one of {RANDOMNESS}", "Spell it so.")
        if self.scheduler is not None and not callable(getattr(self.scheduler, "decide", None)):
            raise InputError("Sweep.scheduler", self.scheduler, "must have decide(step, scores)", "See hpx.Scheduler.")
        width.check(self.width)
