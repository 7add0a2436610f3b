"""What comparisons of optimizers on several tasks say together: scores by performance profiles, as of AlgoPerf."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError, check_float
from hpjax.core.format import show, table
from hpjax.results.analysis import Estimate, profile_scores
from hpjax.results.analysis.to_target import areas_of, draws_of_studies
from hpjax.results.style import Width
from hpjax.studies import plot
from hpjax.studies.chosen import CONFIDENCE
from hpjax.studies.optimizers_result import OptimizersResult
from hpjax.studies.study import StudyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Compared by identity, as the answers in it are.
@dataclass(frozen=True, eq=False)
class OptimizerScores(StudyResult):
    """The scores of optimizers over several tasks; ``print`` them. ``optimizer_scores`` makes them.

    Attributes:
      answers: task to its answer.
      worst: up to so many times the steps of the fastest optimizer a task counts.
      scores: optimizer to score, from 0 to 1, the best one first; with the interval in which it is in 95 % of draws of
        tuning studies. That knows nothing of other trials, seeds and tasks.
      ratios: optimizer to its steps over those of the fastest, task by task; infinite where the target is not reached.
    """

    answers: Mapping[str, OptimizersResult]
    worst: float
    scores: Mapping[str, Estimate]
    ratios: Mapping[str, tuple[float, ...]]

    def table(self) -> dict[str, Array]:
        """Returns columns with a row for each optimizer: its score, the ends of the interval, and ratios by task."""
        columns = {"optimizer": np.array(list(self.scores))}
        columns |= {end: np.array([getattr(score, end) for score in self.scores.values()]) for end in Estimate._fields}
        ratios = np.array([self.ratios[name] for name in self.scores])
        return columns | {task: ratios[:, i] for i, task in enumerate(self.answers)}

    def report(self) -> str:
        """Returns the scores as text, with the ratios by task."""
        head = (
            f"score: area under the performance profile up to {show(self.worst)} times the steps of the fastest; then "
            "steps over those of the fastest, by task"
        )
        rows = [
            [
                name,
                f"{score.value:.2f}",
                f"{score.low:.2f} to {score.high:.2f}",
                *(f"{ratio:.2f}" if np.isfinite(ratio) else "-" for ratio in self.ratios[name]),
            ]
            for name, score in self.scores.items()
        ]
        return "\n".join([head, table(["optimizer", "score", "95 %", *self.answers], rows)])

    def figure(self, width: Width) -> "Figure":
        """Returns the scores as a figure; see ``hpx.studies.plot.profiles``."""
        return plot.profiles(self, width)


def optimizer_scores(answers: Mapping[str, OptimizersResult], worst: float = 4.0) -> OptimizerScores:
    """Returns the score of each optimizer over several tasks, by its steps to their targets, as AlgoPerf scores them.

    It is the area under the performance profile; see ``hpx.analysis.profile_scores``.

    Args:
      answers: task to its answer, each with a target and the same optimizers.
      worst: up to so many times the steps of the fastest.

    Raises:
      InputError: there is no answer, one has no target or other optimizers, or no optimizer reaches a target.

    Example:
      >>> rates = hpx.Space(rate=hpx.LogUniform(1e-3, 1))
      >>> pair = {"sgd": (lambda h: optax.sgd(h.rate), rates), "adam": (lambda h: optax.adam(h.rate), rates)}
      >>> program = hpx.supervised(
      ...     model=nn.Dense(10), data=hpx.data.digits(), batch_size=64, steps=40, eval_every=5,
      ...     optimizer=lambda h: h.optimizer(h), loss=optax.softmax_cross_entropy_with_integer_labels)
      >>> answer = hpx.studies.Optimizers(program, pair, trials=5, replicates=4, target=1.5).run(progress=False)
      >>> sorted(hpx.studies.optimizer_scores({"digits": answer}).scores)
      ['adam', 'sgd']
    """
    worst = check_float("optimizer_scores.worst", worst, 1.001)
    if not answers:
        raise InputError("optimizer_scores.answers", answers, "must have a task or more", 'Write {"digits": answer}.')
    names = [point.optimizer for point in next(iter(answers.values())).points]
    times = np.array([_steps(task, answer, names) for task, answer in answers.items()]).T
    draws = np.stack([_draws(answer, names) for answer in answers.values()], axis=-1)
    tail = (1 - CONFIDENCE) / 2
    values = profile_scores(times, worst)
    low, high = np.quantile(areas_of(draws, worst), [tail, 1 - tail], axis=0)
    # The score of medians may lie a little outside of the scores of draws.
    low, high = np.minimum(low, values), np.maximum(high, values)
    order = np.argsort(-values, kind="stable")
    ratios = times / times.min(axis=0)
    return OptimizerScores(
        answers,
        worst,
        {names[i]: Estimate(float(values[i]), float(low[i]), float(high[i])) for i in order},
        {names[i]: tuple(ratios[i].tolist()) for i in order},
    )


def _steps(task: str, answer: OptimizersResult, names: list[str]) -> list[float]:
    """Returns the steps to the target of each optimizer; raises ``InputError`` as ``optimizer_scores`` does."""
    steps = {point.optimizer: point.steps.value for point in answer.points}
    if answer.target is None or steps.keys() != set(names):
        allowed = f"must have a target, and the optimizers {', '.join(sorted(names))}"
        raise InputError(f"optimizer_scores.answers[{task!r}]", sorted(steps), allowed, "Write target=0.1.")
    if not np.isfinite(list(steps.values())).any():
        allowed = "must be a target that an optimizer reaches"
        remedy = f"Read an easier one: study.read(answers[{task!r}].result, target=0.3)."
        raise InputError(f"optimizer_scores.answers[{task!r}].target", answer.target, allowed, remedy)
    return [steps[name] for name in names]


def _draws(answer: OptimizersResult, names: list[str]) -> Array:
    """Returns the steps to the target of each optimizer in each draw of tuning studies, (draws, optimizers)."""
    times = answer.times()
    # Each optimizer has draws of its own, which are the same ones on every task: trials have the same points there.
    return np.stack([draws_of_studies(times[name], *answer.studies, seed=i) for i, name in enumerate(names)], axis=-1)
