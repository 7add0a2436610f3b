"""What a report shows of a run, as the page's script reads it."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.errors import InputError
from hpjax.core.format import count
from hpjax.results import plot_data
from hpjax.results.analysis.isolation import isolate
from hpjax.results.diagnosis import diagnose
from hpjax.results.doubts import doubts
from hpjax.results.importance import importance
from hpjax.results.reproducibility import reproducibility
from hpjax.results.store.manifest import Manifest
from hpjax.results.store.rows import LOST
from hpjax.results.table import TrialTable

# What a page has at most: curves, evaluations of all of them together, and rows in its table.
LANES, EVALUATIONS, ROWS = 1000, 60_000, 5000
# Of each page at most: hyperparameters in small charts and hovers, and arrows in a lineage.
PANELS, ARROWS = 12, 400
# Schedules are drawn of at most so many members of a population.
MEMBERS = 20
# Importances have intervals if there are at most so many trials: of more they would take minutes.
RESAMPLED_TRIALS, RESAMPLES = 1000, 20
# Findings are listed of at most so many of the best trials.
DIAGNOSED_TRIALS = 5

Number = float | None


class Hyperparameter(msgspec.Struct):
    """A hyperparameter: its values, a row each, as numbers; of a choice as indices into its options.

    A value is None where the trial does not have the hyperparameter. ``isolated`` has the value of the best trial of
    each option or part of the range, what it reached, and the best to expect of as many trials as the fewest have;
    nothing where that is one trial.
    """

    name: str
    domain: str
    scale: str
    options: list[str]
    values: list[Number]
    isolated: list[tuple[Number, Number, Number]]


class Lane(msgspec.Struct):
    """The curve of a lane: its trial, steps, and values of the objective's metric."""

    trial: int
    steps: list[int]
    values: list[Number]


class Clone(msgspec.Struct):
    """A trial that went on from the state of another."""

    trial: int
    step: int
    source: int


class Schedule(msgspec.Struct):
    """The numeric hyperparameters with which the weights of a trial were trained: from each step on, by name."""

    trial: int
    steps: list[int]
    end: int
    values: dict[str, list[Number]]


class Content(msgspec.Struct):
    """What a page shows.

    Attributes:
      title, subtitle: what the run is.
      finished: whether the run is; a live page asks for new content until it is.
      metric, direction: the objective's.
      label: of the objective's metric at the end of training.
      asked: what was asked for, a sentence each.
      plan, reproducibility: texts.
      trials: the ids of the trials in the rows of the table, from the best on.
      best: whether the first row is the best trial; it is not where all diverged.
      behind: of each row, whether the trial ended before those that rank first.
      statuses, steps: of each row.
      metrics: name to values, a row each.
      hyperparameters: of the space.
      lanes: curves, from the best trial on.
      importance: name, share, and the ends of its interval.
      rungs: steps at which a scheduler stopped trials, and how many were live up to each and after the last.
      lineage, schedules: of a population; schedules of its best members.
      ancestry: whose states led to the best trial: trial, from step, to step.
      findings: trial, what, and a sentence.
      doubts: sentences.
      left_out: what the page does not draw, None where it has all.
      panels, arrows: how many small charts and arrows it draws at most.
    """

    title: str
    subtitle: str
    finished: bool
    metric: str
    direction: str
    label: str
    asked: list[str]
    plan: str
    reproducibility: str
    trials: list[int]
    best: bool
    behind: list[bool]
    statuses: list[str]
    steps: list[int]
    metrics: dict[str, list[Number]]
    hyperparameters: list[Hyperparameter]
    lanes: list[Lane]
    importance: list[tuple[str, float, Number, Number]]
    rungs: tuple[list[int], list[int]]
    lineage: list[Clone]
    schedules: list[Schedule]
    ancestry: list[tuple[int, int, int]]
    findings: list[tuple[int, str, str]]
    doubts: list[str]
    left_out: str | None
    panels: int = PANELS
    arrows: int = ARROWS


def content_of(result: TrialTable, manifest: Manifest, title: str, seconds: float | None) -> Content:
    """Returns what a page shows of a run.

    Args:
      result: its trials.
      manifest: of the run.
      title: of the page.
      seconds: how long the run took; None where it is not finished.
    """
    ranked = {trial: rank for rank, trial in enumerate(result.ranking)}
    rows = sorted(range(len(result)), key=lambda trial: ranked.get(trial, len(ranked) + trial))[:ROWS]
    lanes, thinned = _lanes(result, rows)
    left = [f"{len(rows):,} of {len(result):,} trials are in the table"] * (len(rows) < len(result))
    rungs, varied = plot_data.rungs(result), result.varied[:PANELS]
    return Content(
        title=title,
        subtitle=f"{count(len(result), 'trial')} by {result.objective}, begun {manifest.created}",
        finished=seconds is not None,
        metric=result.objective.metric,
        direction=result.objective.direction,
        label=plot_data.final_label(result, result.objective.metric),
        asked=_asked(result, manifest),
        plan="\n".join(manifest.plan),
        reproducibility=reproducibility(result, manifest, seconds),
        trials=rows,
        best=bool(result.ranking),
        behind=plot_data.ended_earlier(result)[rows].tolist(),
        statuses=[str(status) for status in result.statuses[rows]],
        steps=result.lane_step.min(axis=1)[rows].tolist(),
        metrics={each: _numbers(plot_data.reached(result, each)[rows]) for each in result.metrics},
        hyperparameters=[_hyperparameter(result, manifest, each, rows, each in varied) for each in result.names],
        lanes=lanes,
        importance=_importance(result, RESAMPLES if seconds is not None and len(result) <= RESAMPLED_TRIALS else 0),
        rungs=(rungs.steps.tolist(), rungs.live.tolist()) if rungs.steps.size else ([], []),
        lineage=[Clone(each.trial, each.step, each.source) for each in result.lineage],
        ancestry=plot_data.ancestry(result, result.ranking[0]) if result.lineage and result.ranking else [],
        schedules=[_schedule(result, trial) for trial in result.ranking[: MEMBERS * bool(result.lineage)]],
        findings=[
            (each.trial, each.what, each.sentence)
            for each in diagnose(result)
            if ranked.get(each.trial, DIAGNOSED_TRIALS) < DIAGNOSED_TRIALS
        ],
        doubts=doubts(result),
        left_out="; ".join([*left, *thinned, *_not_drawn(result)]) or None,
    )


def _numbers(values: Array) -> list[Number]:
    """Returns metrics with None for what is not finite, which JSON lacks; six digits are enough to draw them."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def _hyperparameter(
    result: TrialTable, manifest: Manifest, name: str, rows: Sequence[int], drawn: bool
) -> Hyperparameter:
    """Returns a hyperparameter of the trials in some rows, isolated if it has a small chart."""
    spaces = manifest.sweep.space.values()
    domains = [domain for alternative in spaces for each, domain in alternative.items() if each == name]
    how = plot_data.coding(result, name, result.hparams)
    values = how.column(name, [result.hparams[trial] for trial in rows]).tolist()
    return Hyperparameter(
        name,
        " | ".join(dict.fromkeys(domains)),
        result.scales[name],
        list(how.categories),
        [None if math.isnan(value) else value for value in values],
        _isolated(result, name, how.number) if drawn else [],
    )


def _isolated(result: TrialTable, name: str, number: Callable[[Any], float]) -> list[tuple[Number, Number, Number]]:
    """Returns what trials with each value of a hyperparameter reached, values as numbers."""
    try:
        found = isolate(result, name)
    except InputError:  # no trial with a final value has it
        return []
    reached, expected = (
        _numbers(np.array(each)) for each in zip(*((e.reached, e.expected) for e in found), strict=True)
    )
    return list(zip([number(each.value) for each in found], reached, expected, strict=True)) if len(found) > 1 else []


def _asked(result: TrialTable, manifest: Manifest) -> list[str]:
    """Returns what was asked for, a sentence each."""
    sweep = manifest.sweep
    steps = f"{sweep.steps:,} optimizer steps each" if isinstance(sweep.steps, int) else "different numbers of steps"
    each = f" of {count(sweep.replicates, 'replicate')}" if sweep.replicates > 1 else ""
    return [
        f"{result.objective}, over {count(len(result), 'trial')}{each}, {steps}",
        f"sampler {sweep.sampler}, {f'scheduler {sweep.scheduler}' if sweep.scheduler else 'no scheduler'}, "
        f"seed {sweep.seed}",
    ]


def _not_drawn(result: TrialTable) -> Iterator[str]:
    """Yields what the charts leave out, in words."""
    if len(result.varied) > PANELS:
        yield f"of {len(result.varied)} hyperparameters that vary small charts are of the first {PANELS}"
    if len(result.lineage) > ARROWS:
        yield f"of {len(result.lineage):,} copied states the first {ARROWS} have arrows"
    if result.lineage and len(result.ranking) > MEMBERS:
        yield f"schedules are of the best {MEMBERS} trials"
    if lost := int(np.isin(result.statuses, LOST).sum()):
        yield f"{count(lost, 'trial')} without a final value are in the table and in no chart of final values"


def _lanes(result: TrialTable, rows: Sequence[int]) -> tuple[list[Lane], list[str]]:
    """Returns the curves of as many lanes as a page draws, and what is left out, in words."""
    steps, values = result.curves("step"), result.curves(result.objective.metric)
    replicates = steps.shape[1]
    shown, left_out = list(rows[: LANES // replicates]), []
    if len(shown) < len(result):
        left_out.append(f"curves are of the best {len(shown):,} trials")
    every = max(math.ceil(steps.shape[2] * len(shown) * replicates / EVALUATIONS), 1)
    if every > 1:
        left_out.append(f"of the curves one evaluation in {every} is drawn")
    found = []
    for trial in shown:
        for replicate in range(replicates):
            at = np.flatnonzero(~np.isnan(steps[trial, replicate]))
            at = at[(np.arange(len(at)) % every == 0) | (np.arange(len(at)) == len(at) - 1)]
            lane = _numbers(values[trial, replicate, at])
            found.append(Lane(trial, steps[trial, replicate, at].astype(int).tolist(), lane))
    return found, left_out


def _importance(result: TrialTable, resamples: int) -> list[tuple[str, float, Number, Number]]:
    """Returns the importances of hyperparameters; none where Optuna is not installed, or there are too few trials."""
    with suppress(ImportError, InputError):
        found = importance(result, None, "ped-anova", resamples, 0)
        return [(e.name, e.value, *((e.low, e.high) if resamples else (None, None))) for e in found]
    return []


def _schedule(result: TrialTable, trial: int) -> Schedule:
    """Returns the schedule of a trial."""
    found = [(step, hparams) for _, step, hparams in result.descent(trial)]
    names = [name for name in result.names if result.scales[name] != "category" and name in found[0][1]]
    values = {name: [hparams[name] for _, hparams in found] for name in names}
    return Schedule(trial, [step for step, _ in found], int(result.lane_step[trial].max()), values)
