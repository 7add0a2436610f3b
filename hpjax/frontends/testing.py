"""Checks of what every sampler and scheduler promises, to run on your own ones."""

import copy
import math

import numpy as np

from hpjax.core.arrays import ceil_div
from hpjax.core.choice import Choice
from hpjax.core.errors import InputError
from hpjax.core.intervals import Int, LogUniform, ReverseLogUniform, Uniform
from hpjax.core.space import Point, Space
from hpjax.samplers import Observation, Sampler
from hpjax.schedulers import Race, Scheduler

__all__ = ["check_sampler", "check_scheduler"]

SPACE = Space(
    rate=LogUniform(1e-4, 1.0, default=0.01),
    momentum=ReverseLogUniform(0.5, 0.99, default=0.9),
    dropout=Uniform(0, 0.5, default=0.1),
    layers=Int(1, 4, default=2),
)
CHOICES = SPACE & Space(activation=Choice("relu", "tanh", "gelu", default="relu"))
ALTERNATIVES = Space(optimizer="sgd", rate=LogUniform(1e-3, 1.0), momentum=Uniform(0, 0.99)) | Space(
    optimizer="adam", rate=LogUniform(1e-5, 1e-1), b2=ReverseLogUniform(0.9, 0.9999)
)


def check_sampler(sampler: Sampler, *spaces: Space, n: int = 6) -> None:
    """Asks a sampler for three rounds of points in several spaces, and checks what it proposes.

    It checks that as many points come as were asked for, that they lie in the space, that the space's baseline comes
    first and only once, that the same question has the same answer, that asking changes neither the sampler nor the
    history, and that infinite scores, those of diverged trials, do no harm.

    Args:
      sampler: the sampler, with settings that suit ``n``.
      *spaces: the spaces; by default one of numbers, one with choices, and one of alternatives.
      n: points a round.

    Raises:
      InputError: ``sampler`` is no instance of ``Sampler``.
      AssertionError: a promise is not kept.

    Example:
      >>> hpx.testing.check_sampler(hpx.Sobol())
    """
    if not isinstance(sampler, Sampler):
        raise InputError("check_sampler.sampler", sampler, "must be a Sampler", "Write check_sampler(hpx.Sobol()).")
    for space in spaces or (SPACE, CHOICES, ALTERNATIVES):
        history: list[Observation] = []
        for number in range(3):
            before, copied = copy.deepcopy(history), copy.deepcopy(sampler)
            points = sampler.ask(space, history, n, seed=1)
            assert len(points) == n, f"asked for {n} points, got {len(points)}"
            baseline = space.baseline()
            if baseline is not None:
                first = [point == baseline for point in points]
                assert first == [number == 0, *[False] * (n - 1)], "the baseline comes first and only once"
            for point in points:
                space.branch_of(point)
            assert history == before, "the history is not the sampler's to change"
            assert sampler.ask(space, history, n, seed=1) == points, "the same question must have the same answer"
            assert copied.ask(space, history, n, seed=1) == points, "a copy must answer as the sampler itself"
            history += [Observation(p, _scores(len(history) + i, p), 10, number) for i, p in enumerate(points)]
        assert sampler.ask(space, [], 0, seed=1) == []
        hopeless = [seen._replace(scores=(math.inf, math.inf)) for seen in history]
        assert len(sampler.ask(space, hopeless, n, seed=1)) == n, "all may diverge"


def _scores(number: int, point: Point) -> tuple[float, float]:
    """Returns the scores of two replicates, the second of which diverges in every seventh trial."""
    size = sum(math.sin(3 * value) for value in point.values() if isinstance(value, int | float))
    return size, math.inf if number % 7 == 3 else size + 0.1


def check_scheduler(scheduler: Scheduler, trials: int = 27, budget: int = 81, eval_every: int = 1) -> None:
    """Runs made-up races with a scheduler, and checks its decisions.

    It checks that only live trials are stopped, that the steps of decisions go forward, that the same race has the same
    decisions, that some trial reaches the end, and that a trial clones the state of a live one of its own group,
    with a point of the space that keeps the static hyperparameters.

    Args:
      scheduler: the scheduler, with settings that suit ``trials`` and ``budget``.
      trials: how many trials start together.
      budget: the steps of each.
      eval_every: the steps between evaluations.

    Raises:
      InputError: ``scheduler`` is no instance of ``Scheduler``, or cannot schedule these trials.
      AssertionError: a promise is not kept.

    Example:
      >>> hpx.testing.check_scheduler(hpx.Halving(factor=3))
    """
    if not isinstance(scheduler, Scheduler):
        raise InputError(
            "check_scheduler.scheduler", scheduler, "must be a Scheduler", "Write check_scheduler(hpx.Halving())."
        )
    scheduler.check(trials, budget, eval_every)
    for seed in range(3):
        first = _raced(scheduler, trials, budget, eval_every, seed)
        again = _raced(copy.deepcopy(scheduler), trials, budget, eval_every, seed)
        assert first == again, "the same race must have the same decisions"
        assert first[-1], "nobody reached the end"


def _raced(scheduler: Scheduler, trials: int, budget: int, eval_every: int, seed: int) -> list[list[int]]:
    """Runs a race whose scores fall with the steps, and in which one trial in nine diverges.

    Returns:
      The ids of the live trials after each decision and, as the last entry, at the end.
    """
    rng = np.random.default_rng(seed)
    level, live, lost = rng.random(trials), set(range(trials)), set[int]()
    points = dict(enumerate(SPACE.from_unit(u) for u in rng.random((trials, len(SPACE.dimensions)))))
    curves: dict[int, tuple[float, ...]] = dict.fromkeys(range(trials), ())
    step = 0
    stages: list[list[int]] = []
    scheduler = scheduler.within(budget)
    while True:
        wanted = scheduler.next(step)
        assert wanted > step, f"next({step}) is {wanted}: it must go forward"
        wanted = ceil_div(wanted, eval_every) * eval_every
        for at in range(step + eval_every, min(wanted, budget) + 1, eval_every):
            for trial in sorted(live):
                gone = at >= budget // 2 and trial % 9 == 4 and points[trial]["rate"] > 1e-4
                curves[trial] = (
                    *curves[trial],
                    math.inf if gone else float(level[trial] + (3 + 0.1 * rng.normal()) / at),
                )
        fresh = {trial for trial in live if math.isinf(curves[trial][-1])}
        live, lost, step = live - fresh, lost | fresh, wanted
        if step >= budget or not live:
            return [*stages, sorted(live)]
        race = Race(
            step,
            budget,
            tuple(sorted(live)),
            dict(curves),
            points=dict(points),
            groups={trial: trial % 2 for trial in curves},
            free=frozenset({"rate", "momentum", "dropout"}),
            space=SPACE,
            seed=seed,
        )
        decided = list(scheduler.decide(race))
        assert len(set(decided)) == len(decided), "a trial is stopped twice"
        assert set(decided) <= live, "trials are stopped that do not run"
        assert list(scheduler.decide(race)) == decided, "the same race must have the same decision"
        live -= set(decided)
        race = race._replace(live=tuple(sorted(live)), population=tuple(sorted(live | lost)))
        clones = scheduler.replace(race)
        for trial, clone in clones.items():
            assert trial in race.population, "a trial is replaced that was stopped"
            assert clone.source in live, "the state of a trial that does not run is cloned"
            assert trial % 2 == clone.source % 2, "the state of a trial of another group is cloned"
            SPACE.branch_of(clone.point)
            assert clone.point["layers"] == points[clone.source]["layers"], "what is static changed"
        points |= {trial: clone.point for trial, clone in clones.items()}
        live, lost = live | clones.keys(), lost - clones.keys()
        stages.append(sorted(live))
