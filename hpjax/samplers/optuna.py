"""Optuna: proposes what any sampler of Optuna suggests, batch by batch."""

import copy
import math
import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpjax.core.choice import Choice
from hpjax.core.domains import Domain
from hpjax.core.errors import InputError, missing
from hpjax.core.intervals import Int, LogInt, LogUniform, ReverseLogUniform
from hpjax.core.space import Point, Space, point_key
from hpjax.samplers.base import Observation, Sampler
from hpjax.samplers.distinct import untried
from hpjax.samplers.random import Random

# The parameter of an Optuna study that chooses among the alternatives of a space.
ALTERNATIVE = "alternative"
# After so many proposals in a row of points that are known the rest of a batch is drawn by chance.
MOST_REPEATED = 20


@dataclass(frozen=True)
class Optuna(Sampler):
    """Proposes points by a sampler of Optuna: TPE, CMA-ES, QMC, NSGA-II, … It needs the package ``optuna``.

    Use it with ``Sweep(rounds=...)``: each round reports the scores of the round before to an Optuna study in memory,
    and asks it for a batch. A point that was tried already, or that is in the batch, is not tried again while others
    are left: Optuna gets the score that it has. Hyperparameters of one alternative are conditional in Optuna, too. A
    trial that diverged is reported with the worst score so far. The sweep's seed decides all random choices: only the
    settings of ``sampler`` are used, not its state. CMA-ES needs the package ``cmaes``, and supports neither choices
    nor alternatives.

    T. Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019.

    Args:
      sampler: an instance, ``optuna.samplers.TPESampler(multivariate=True, constant_liar=True)``.

    Raises:
      InputError: ``sampler`` is no sampler of Optuna, or one that runs out of points.

    Example:
      >>> import optuna
      >>> sampler = Optuna(optuna.samplers.TPESampler())
      >>> len(sampler.ask(hpx.Space(x=hpx.Uniform(0, 1)), [], 4, seed=0))
      4
    """

    sampler: Any
    # The study of the last call, so that the next round need not repeat all calls before it.
    _kept: list[tuple[Space, list[Point], int, "Study"]] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler
        except ImportError:
            raise missing("hpx.Optuna", "optuna") from None
        if not isinstance(self.sampler, BaseSampler):
            raise InputError(
                "Optuna.sampler",
                self.sampler,
                "must be a sampler of Optuna",
                "Write Optuna(optuna.samplers.TPESampler()).",
            )
        if isinstance(self.sampler, BruteForceSampler | GridSampler):
            allowed = "must be one that never runs out of points, which it can only report to Optuna's own loop"
            raise InputError("Optuna.sampler", self.sampler, allowed, "Write sampler=hpx.Grid().")

    def __deepcopy__(self, memo: Any) -> "Optuna":
        return Optuna(copy.deepcopy(self.sampler, memo))

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        study = self._study(space, history, seed)
        asked = study.ask(n)
        self._kept[:] = [(space, [*[seen.point for seen in history], *asked], seed, study)]
        return asked

    def _study(self, space: Space, history: Sequence[Observation], seed: int) -> "Study":
        """Returns a study that has proposed the trials of ``history`` and knows their scores."""
        now = (space, [seen.point for seen in history], seed)
        kept = next((study for *then, study in self._kept if tuple(then) == now), None)
        study = kept or Study(self.sampler, space, seed)
        if kept is None:
            # After a resume: every call of the study is repeated, with the same seed.
            for number in sorted({seen.round for seen in history}):
                mine = [seen for seen in history if seen.round == number]
                study.ask(len(mine) - (number == 0 and mine[0].point == space.baseline()))
                study.tell(mine)
        else:
            study.tell([seen for seen in history if seen.round == history[-1].round])
        return study


class Study:
    """A study of Optuna over a space.

    Args:
      sampler: a sampler of Optuna; the study uses a copy.
      space: the space to propose points of.
      seed: decides every random choice.
    """

    def __init__(self, sampler: Any, space: Space, seed: int) -> None:
        import optuna

        self._optuna, self._space = optuna, space
        with silent(optuna):
            self._study = optuna.create_study(sampler=_seeded(copy.deepcopy(sampler), seed))
        # The trials that Optuna proposed of each point that has no score yet, and the scores of the others.
        self._pending: dict[Hashable, list[Any]] = {}
        self._values: dict[Hashable, float] = {}
        baseline = space.baseline()
        self._known = set() if baseline is None else {point_key(baseline)}
        self._worst = -math.inf
        self._seed = seed

    def ask(self, n: int) -> list[Point]:
        """Returns ``n`` more points, none that was asked for before while the space has others."""
        found: list[Point] = []
        repeated = 0
        while len(found) < n and repeated < MOST_REPEATED:
            trial, point = self._asked()
            key = point_key(point)
            if key in self._values:
                self._study.tell(trial, self._values[key])
            else:
                self._pending.setdefault(key, []).append(trial)
            repeated = repeated + 1 if key in self._known else 0
            if not repeated:
                self._known.add(key)
                found.append(point)
        # Optuna proposes what is known already, again and again: then by chance, of what is left.
        chance = Random().propose(self._space, [], 0, len(self._known) + n, self._seed)
        rest = [*untried(chance, self._known), *chance][: n - len(found)]
        self._known |= set(map(point_key, rest))
        return found + rest

    def tell(self, seen: Sequence[Observation]) -> None:
        """Reports the scores of a round to Optuna. Points that it did not propose, such as the baseline, are added."""
        finite = [each.score for each in seen if math.isfinite(each.score)]
        self._worst = max([self._worst, *finite])
        bad = self._worst if math.isfinite(self._worst) else 1.0
        for each in seen:
            value, key = each.score if math.isfinite(each.score) else bad, point_key(each.point)
            trials = self._pending.pop(key, [])
            for trial in trials:
                self._study.tell(trial, value)
            if not trials:
                self._add(each.point, value)
            self._values[key] = value
            self._known.add(key)

    def _add(self, point: Point, value: float) -> None:
        index = self._space.branch_of(point)
        branch = self._space.branches[index]
        distributions = {self._named(name, index): self._distribution(domain) for name, domain in branch.items()}
        params = {self._named(name, index): _parameter(domain, point[name]) for name, domain in branch.items()}
        if len(self._space.branches) > 1:
            options = list(range(len(self._space.branches)))
            distributions[ALTERNATIVE] = self._optuna.distributions.CategoricalDistribution(options)
            params[ALTERNATIVE] = index
        trial = self._optuna.trial.create_trial(params=params, distributions=distributions, value=value)
        self._study.add_trial(trial)

    def _asked(self) -> tuple[Any, Point]:
        if len(self._space.branches) == 1:
            branch = self._space.branches[0]
            trial = self._study.ask({name: self._distribution(domain) for name, domain in branch.items()})
            return trial, {name: _value(domain, trial.params[name]) for name, domain in branch.items()}
        trial = self._study.ask()
        index = trial.suggest_categorical(ALTERNATIVE, list(range(len(self._space.branches))))
        point = {
            name: _value(domain, self._suggested(trial, self._named(name, index), domain))
            for name, domain in self._space.branches[index].items()
        }
        return trial, point

    def _named(self, name: str, index: int) -> str:
        """Returns Optuna's name of a hyperparameter: alternatives share one if their domains are equal, too."""
        return name if len(set(map(str, self._space.domains(name)))) == 1 else f"{name} of {index}"

    def _suggested(self, trial: Any, name: str, domain: Domain) -> Any:
        given = self._distribution(domain)
        if isinstance(domain, Choice):
            return trial.suggest_categorical(name, given.choices)
        suggest = trial.suggest_int if isinstance(domain, Int) else trial.suggest_float
        return suggest(name, given.low, given.high, log=given.log)

    def _distribution(self, domain: Domain) -> Any:
        kinds = self._optuna.distributions
        if isinstance(domain, Choice):
            return kinds.CategoricalDistribution(list(range(len(domain.grid()))))
        low, high = getattr(domain, "low"), getattr(domain, "high")  # noqa: B009  all other domains are intervals
        if isinstance(domain, Int):
            return kinds.IntDistribution(low, high, log=isinstance(domain, LogInt))
        if isinstance(domain, ReverseLogUniform):
            return kinds.FloatDistribution(1 - high, 1 - low, log=True)
        return kinds.FloatDistribution(low, high, log=isinstance(domain, LogUniform))


def _value(domain: Domain, parameter: Any) -> Any:
    """Returns the value in our domain of a parameter of Optuna."""
    if isinstance(domain, Choice):
        return domain.grid()[parameter]
    return domain.from_unit(domain.to_unit(1 - parameter if isinstance(domain, ReverseLogUniform) else parameter))


def _parameter(domain: Domain, value: Any) -> Any:
    """Returns Optuna's parameter for a value: the index of an option, and 1 − value for a reverse log scale."""
    if isinstance(domain, Choice):
        return domain.index(value)
    return 1 - value if isinstance(domain, ReverseLogUniform) else value


def _seeded(sampler: Any, seed: int) -> Any:
    """Seeds all random generators inside ``sampler`` and returns it; Optuna has no other way to seed an instance."""
    for value in vars(sampler).values():
        rng = getattr(value, "rng", None)
        if isinstance(rng, np.random.RandomState):
            rng.seed(seed)
        elif type(value).__module__.startswith("optuna.samplers") and hasattr(value, "sample_independent"):
            _seeded(value, seed)
    return sampler


@contextmanager
def silent(optuna: Any) -> Iterator[None]:
    """Silences Optuna's messages that a study was created, and that names of metrics may change some day."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
