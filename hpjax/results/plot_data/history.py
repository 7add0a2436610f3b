"""What happened during a sweep: rungs of races, ancestry and schedules of populations, and what quality costs."""

from typing import Any, Literal, NamedTuple

import numpy as np

from hpjax.core.arrays import Array
from hpjax.results.plot_data.curves import by_trial
from hpjax.results.plot_data.points import coding
from hpjax.results.store.rows import LOST, SECONDS, Status
from hpjax.results.table import TrialTable


class Rungs(NamedTuple):
    """How a scheduler thinned out the trials.

    Attributes:
      steps: int (rungs,), the steps at which trials were stopped, ascending.
      live: int (rungs + 1,), how many trials trained up to the first rung, between each two rungs, and after the last.
      ended: int (trials,), the step at which each trial ended.
      stopped: bool (trials,), whether the scheduler stopped it there.
    """

    steps: Array
    live: Array
    ended: Array
    stopped: Array


def rungs(table: TrialTable) -> Rungs:
    """Returns at which steps trials were stopped, and how many went on."""
    ended, stopped = table.lane_step.max(axis=1), table.statuses == Status.STOPPED
    steps = np.unique(ended[stopped])
    lost = np.isin(table.statuses, LOST)
    begin = np.concatenate([[0], steps])
    # A diverged trial was live for as long as it trained. One that was stopped at a rung is not live after it, while
    # one that completed its steps right there is.
    live = np.array([np.sum((ended > step) | (~stopped & ~lost)) for step in begin])
    return Rungs(steps, live, ended, stopped)


def ancestry(table: TrialTable, trial: int) -> list[tuple[int, int, int]]:
    """Returns which trials trained the weights of one: (id, from step, to step), oldest first."""
    descent = table.descent(trial)
    ends = [step for _, step, _ in descent[1:]] + [int(table.lane_step[trial].max())]
    return [(each, step, end) for (each, step, _), end in zip(descent, ends, strict=True)]


class Schedule(NamedTuple):
    """The values of a hyperparameter over the steps of a trial, constant from each step to the next.

    Attributes:
      steps: int (changes + 1,), the steps at which a value begins; the last is that at which the trial ended.
      values: float (changes + 1,), the values from there on; of a choice indices into ``categories``; NaN where the
        trial lacks the hyperparameter. The last is repeated.
    """

    steps: Array
    values: Array


class Schedules(NamedTuple):
    """The values of a hyperparameter over the steps of all trials of a population.

    Attributes:
      trials: those of each trial, by its id: with what its lanes trained, whatever was thrown away since.
      best: those with which the weights of the best trial were trained, along its ancestry; None without a best trial.
      categories: the options of a choice, as text; else empty.
    """

    trials: list[Schedule]
    best: Schedule | None
    categories: tuple[str, ...]


def schedules(table: TrialTable, name: str) -> Schedules:
    """Returns with which values of a hyperparameter the trials of a population trained, and when these changed."""
    how = coding(table, name, [*table.first_hparams, *(each.hparams for each in table.lineage), *table.hparams])

    def schedule(trial: int, parts: list[tuple[int, dict[str, Any]]]) -> Schedule:
        values = how.column(name, [hparams for _, hparams in parts])
        steps = [step for step, _ in parts]
        return Schedule(np.array([*steps, int(table.lane_step[trial].max())]), np.append(values, values[-1]))

    own: list[list[tuple[int, dict[str, Any]]]] = [[(0, hparams)] for hparams in table.first_hparams]
    for each in table.lineage:
        own[each.trial].append((each.step, each.hparams))
    best = table.ranking[0] if table.ranking else None
    descent = [] if best is None else [(step, hparams) for _, step, hparams in table.descent(best)]
    every = [schedule(trial, parts) for trial, parts in enumerate(own)]
    return Schedules(every, None if best is None else schedule(best, descent), how.categories)


class Cost(NamedTuple):
    """The best value so far over what was paid for it.

    Attributes:
      spent: (evaluations,), ascending: optimizer steps that all lanes together had taken, or seconds of the run.
      values: float (evaluations,), the best value of the objective that any trial had had at an evaluation by then.
      rounds: (rounds,), what was spent when each round began.
    """

    spent: Array
    values: Array
    rounds: Array


def cost(table: TrialTable, against: Literal["steps", "seconds"] = "steps") -> Cost:
    """Returns the best value so far over optimizer steps of all lanes, or over seconds of the run.

    Where steps count, trials of a round do so as if they trained side by side, and rounds one after the other: at step
    s of a round each of its lanes has taken s steps, or as many as it took at all. Seconds are those at which the
    evaluations were recorded: with compilation, and without interruptions.
    """
    return _in_seconds(table) if against == "seconds" else _in_steps(table)


def _in_seconds(table: TrialTable) -> Cost:
    _, scores = by_trial(table, table.objective.metric)
    at = table.curves(SECONDS).max(axis=1, initial=0.0)  # NaN where a replicate was not evaluated
    begins = [float(np.nanmax(at[table.rounds < number], initial=0.0)) for number in np.unique(table.rounds)]
    counted = np.isfinite(at) & np.isfinite(scores)
    order = np.argsort(at[counted], kind="stable")
    best = np.minimum.accumulate(scores[counted][order])
    times, many = np.unique(at[counted], return_counts=True)
    return Cost(times, table.objective.value(best[np.cumsum(many) - 1]), np.array(begins))


def _in_steps(table: TrialTable) -> Cost:
    steps, scores = by_trial(table, table.objective.metric)
    paid, best = 0, np.inf
    spent, values, rounds = [], [], []
    for number in np.unique(table.rounds):
        own = table.rounds == number
        ends = table.lane_step[own]
        rounds.append(paid)
        at = np.where(np.isfinite(scores[own]), steps[own], np.nan)
        for step in np.unique(at[np.isfinite(at)]):
            best = min(best, scores[own][at == step].min())
            spent.append(paid + int(np.minimum(ends, step).sum()))
            values.append(best)
        paid += int(ends.sum())
    return Cost(np.array(spent, int), table.objective.value(np.array(values, float)), np.array(rounds, int))
