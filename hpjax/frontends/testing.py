"""What every sampler and scheduler promises, as checks to run on your own."""

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
    """Asks a sampler for three rounds in several spaces, and checks what it proposes.

    Points lie in the space; the same question has the same answer, and asking changes nothing; ``n`` are asked for and
    given; what came of earlier rounds is taken in, infinite scores among it; the baseline comes first and only once.

    Args:
      sampler: with settings that suit ``n``.
      *spaces: by default one of numbers, one with choices, and one of alternatives.
      n: points a round.

    Raises:
      AssertionError: a promise that is not kept.

    Example:
      >>> import hpjax.testing
      >>> hpjax.testing.check_sampler(hpx.Sobol())
    """
    if not isinstance(sampler, Sampler):
        raise InputError("check_sampler.sampler", sampler, "must be a Sampler", "Give an instance.")
    for space in spaces or (SPACE, CHOICES, ALTERNATIVES):
        history: list[Observation] = []
        for number in range(3):
            before, told = copy.deepcopy(history), copy.deepcopy(sampler)
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
            assert told.ask(space, history, n, seed=1) == points, "a copy must answer as the sampler itself"
            history += [Observation(p, _scores(len(history) + i, p), 10, number) for i, p in enumerate(points)]
        assert sampler.ask(space, [], 0, seed=1) == []
        hopeless = [seen._replace(scores=(math.inf, math.inf)) for seen in history]
        assert len(sampler.ask(space, hopeless, n, seed=1)) == n, "all may diverge"


def _scores(number: int, point: Point) -> tuple[float, float]:
    """Of two replicates, one of which diverges now and then."""
    size = sum(math.sin(3 * value) for value in point.values() if isinstance(value, int | float))
    return size, math.inf if number % 7 == 3 else size + 0.1


def check_scheduler(scheduler: Scheduler, trials: int = 27, budget: int = 81, eval_every: int = 1) -> None:
    """Runs races with a scheduler, and checks its decisions.

    It decides on live trials only, and at steps that go forward; the same race has the same decisions, whatever was
    asked in between; somebody reaches the end, and not those that diverged; a trial takes over the state of a live one
    of its group, with values of the space, and keeps what is static.

    Args:
      scheduler: one that can schedule so many trials.
      trials: that start together.
      budget: steps of each.
      eval_every: steps between evaluations.

    Raises:
      AssertionError: a promise that is not kept.

    Example:
      >>> import hpjax.testing
      >>> hpjax.testing.check_scheduler(hpx.Halving(factor=3))
    """
    if not isinstance(scheduler, Scheduler):
        raise InputError("check_scheduler.scheduler", scheduler, "must be a Scheduler", "Give an instance.")
    scheduler.check(trials, budget, eval_every)
    for seed in range(3):
        first = _raced(scheduler, trials, budget, eval_every, seed)
        again = _raced(copy.deepcopy(scheduler), trials, budget, eval_every, seed)
        assert first == again, "the same race must have the same decisions"
        assert first[-1], "nobody reached the end"


def _raced(scheduler: Scheduler, trials: int, budget: int, eval_every: int, seed: int) -> list[list[int]]:
    """Who was live after each decision, in a race whose scores fall, as the seed decides; one in nine diverges."""
    rng = np.random.default_rng(seed)
    level, live, lost = rng.random(trials), set(range(trials)), set[int]()
    points = dict(enumerate(SPACE.from_unit(u) for u in rng.random((trials, len(SPACE.dimensions)))))
    curves: dict[int, tuple[float, ...]] = dict.fromkeys(range(trials), ())
    step = 0
    stages: list[list[int]] = []
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
            assert clone.source in live, "a state is taken over of a trial that does not run"
            assert trial % 2 == clone.source % 2, "a state is taken over of another group"
            SPACE.branch_of(clone.point)
            assert clone.point["layers"] == points[clone.source]["layers"], "what is static changed"
        points |= {trial: clone.point for trial, clone in clones.items()}
        live, lost = live | clones.keys(), lost - clones.keys()
        stages.append(sorted(live))
