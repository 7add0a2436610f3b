"""PBT: replaces bad trials by copies of good ones, and changes their hyperparameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.choice import Choice
from hpjax.core.domains import Domain
from hpjax.core.errors import InputError, check_float, check_int
from hpjax.core.intervals import ReverseLogUniform
from hpjax.core.space import Point
from hpjax.schedulers.base import Clone, Race, Scheduler
from hpjax.schedulers.rungs import check_evaluations

EXPLOIT, EXPLORE = ("truncation", "tournament"), ("perturb", "resample", "crossover")
# A perturbation multiplies by 0.8 or 1.2, as in the paper; where that cannot be, it moves by a tenth of the domain.
CHANGE, PART = 0.2, 0.1


@dataclass(frozen=True)
class PBT(Scheduler):
    """Population based training.

    Every ``every`` steps a bad trial clones the state of a better one of its group, by one gather on the devices
    (exploit), and continues with other values of the traced hyperparameters (explore). A trial that diverged is
    replaced, too. Static hyperparameters do not change. ``result.lineage`` records which trial cloned which.

    M. Jaderberg et al., "Population Based Training of Neural Networks", 2017.

    Args:
      every: calls of ``step`` between decisions, 1 or more.
      exploit: ``"truncation"`` replaces the worst fifth by trials drawn from the best fifth; ``"tournament"`` replaces
        every trial by another one, drawn at random, if that is better.
      explore: ``"perturb"`` multiplies each value by 0.8 or 1.2 (1 − value for ``ReverseLogUniform``), or takes a
        neighbouring option of a choice. Where a product would be the same value, as of small integers, it takes the
        nearest other one; zero, and values of a domain across zero, move by a tenth of the domain; at an end of the
        domain a value moves back. ``"resample"`` draws each value from its domain; ``"crossover"`` takes each value
        from one of two better trials, and perturbs it.
      resample: the probability in [0, 1] that a value is drawn from its domain instead.
      share: the share of a group that truncation replaces, from 0.01 to 0.5.

    Raises:
      InputError: a group has fewer than 4 trials, the first decision lies beyond the budget, or an argument is unknown
        or outside its range.

    Example:
      >>> PBT(every=100, exploit="tournament").next(150)
      200
    """

    every: int
    exploit: Literal["truncation", "tournament"] = "truncation"
    explore: Literal["perturb", "resample", "crossover"] = "perturb"
    resample: float = 0.0
    share: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", check_int("PBT.every", self.every))
        for name, known in (("exploit", EXPLOIT), ("explore", EXPLORE)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"PBT.{name}", getattr(self, name), f"must be one of {known}", f"Write {name}={known[0]!r}."
                )
        resample = check_float("PBT.resample", self.resample, 0, 1, "Write resample=0.25.")
        object.__setattr__(self, "resample", resample)
        object.__setattr__(self, "share", check_float("PBT.share", self.share, 0.01, 0.5, "Write share=0.2."))

    def check(self, trials: int, budget: int, eval_every: int) -> None:
        if trials < 4:
            raise InputError("Sweep.trials", trials, "must be 4 or more, a population", "Write trials=20.")
        check_evaluations("PBT", budget, eval_every)
        if ceil_div(self.every, eval_every) * eval_every >= budget:
            allowed = f"must be below the budget, {budget} steps, at an evaluation, which come every {eval_every}"
            remedy = f"Write every={max(budget // 10, 1)} and evaluate at least as often, or train longer."
            raise InputError("PBT.every", self.every, allowed, remedy)

    def check_groups(self, trials: Sequence[int]) -> None:
        if max(trials) < 4:
            allowed = "must be 4 or more in a group, since its trials clone each other's states"
            needed = ceil_div(sum(trials) * 4, max(trials))
            remedy = f"Write trials={needed}, or name fewer values of static hyperparameters."
            raise InputError("PBT", max(trials), allowed, remedy)

    def next(self, step: int) -> int:
        return (step // self.every + 1) * self.every

    def decide(self, race: Race) -> Sequence[int]:
        return ()

    def replace(self, race: Race) -> Mapping[int, Clone]:
        rng = np.random.default_rng([race.seed, race.step])
        clones: dict[int, Clone] = {}
        for group in sorted(set(race.groups.values())):
            members = [trial for trial in race.population if race.groups[trial] == group]
            clones |= self._replaced(race, race.ranked(members), rng)
        return clones

    def _replaced(self, race: Race, ranked: list[int], rng: np.random.Generator) -> dict[int, Clone]:
        """Returns the replacements in one group, whose trials are given from best to worst."""
        healthy = [trial for trial in ranked if trial in race.live and np.isfinite(race.curves[trial][-1])]
        if len(ranked) < 2 or not healthy:
            return {}
        count = max(int(self.share * len(ranked)), 1)
        best = healthy[:count]
        clones = {}
        for place, trial in enumerate(ranked):
            lost = trial not in healthy
            if self.exploit == "truncation" or lost:
                behind = (lost or place >= len(ranked) - count) and trial not in best
                source = int(rng.choice(best)) if behind else trial
            else:
                source = int(rng.choice([other for other in ranked if other != trial]))
                source = source if source in healthy and ranked.index(source) < place else trial
            if source != trial:
                other = int(rng.choice(best))
                clones[trial] = Clone(source, self._explored(race, race.points[source], race.points[other], rng))
        return clones

    def _explored(self, race: Race, point: Point, other: Point, rng: np.random.Generator) -> Point:
        """Returns hyperparameters near ``point``; ``other`` is the second parent of a crossover."""
        assert race.space is not None
        domains = race.space.branches[race.space.branch_of(point)]
        found = dict(point)
        for name in sorted(race.free & point.keys()):
            crossed = self.explore == "crossover" and rng.random() < 0.5
            if crossed and name in other and domains[name].contains(other[name]):
                found[name] = other[name]
            if self.explore == "resample" or rng.random() < self.resample:
                found[name] = domains[name].from_unit(rng.random())
            else:
                found[name] = _perturbed(domains[name], found[name], rng)
        return found


def _perturbed(domain: Domain, value: Any, rng: np.random.Generator) -> Any:
    """Returns a value near ``value``, inside the domain; another one wherever the domain has one."""
    sign = int(rng.choice((-1, 1)))
    ways = (_moved(domain, value, way) for way in (sign, -sign))
    return next((moved for moved in ways if moved != value), value)


def _moved(domain: Domain, value: Any, sign: int) -> Any:
    """Returns the value one perturbation up, or down where ``sign`` is -1; ``value`` itself at an end of the domain."""
    if isinstance(domain, Choice):
        at = domain.index(value) + sign
        return domain.options[at] if 0 <= at < len(domain.options) else value
    u, ends = domain.to_unit(value), domain.range()
    if ends is None or value == 0 or ends.low < 0 < ends.high:
        step = PART * sign
    elif isinstance(domain, ReverseLogUniform):
        step = domain.to_unit(1 - (1 - value) * (1 - CHANGE * sign)) - u
    else:
        step = domain.to_unit(value * (1 + CHANGE * sign)) - u
    step = step or PART * sign
    # Values are rounded: a step that is too small to reach another value is doubled until it is not.
    while (found := domain.from_unit(min(max(u + step, 0.0), 1.0))) == value and 0 < u + step < 1:
        step *= 2
    return found
