"""What to doubt of the result of a sweep, in sentences."""

from collections.abc import Iterator

import numpy as np

from hpjax.core.errors import InputError
from hpjax.core.format import count, metric, show
from hpjax.results.analysis.boundaries import boundaries
from hpjax.results.analysis.winners_curse import winners_curse
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable

# How many of the best trials are looked at for whether they are at an end of a range.
BEST = 5
# A search says little with fewer trials than this for each hyperparameter that varies.
TRIALS_PER_HYPERPARAMETER = 10
# Much of a space is of no use if more than this share of the trials diverged.
DIVERGED_SHARE = 0.25


def doubts(table: TrialTable) -> list[str]:
    """Returns what to doubt of a result, a sentence each, the gravest first."""
    return [*_too_few(table), *_diverged(table), *_at_edges(table), *_chance(table)]


def _too_few(table: TrialTable) -> Iterator[str]:
    varied, ended = len(table.varied), np.isin(table.statuses, (Status.COMPLETE, Status.STOPPED))
    if np.isin(table.statuses, (Status.RUNNING, Status.OTHER_SHARD)).any():
        yield "Not all trials have ended here: what is best may change."
    elif not table.ranking:
        yield "No trial has a final value: all diverged or failed."
    elif varied and ended.sum() < TRIALS_PER_HYPERPARAMETER * varied:
        yield (
            f"{count(int(ended.sum()), 'trial')} with a final value for {count(varied, 'varied hyperparameter')}: a "
            f"search says little with fewer than {TRIALS_PER_HYPERPARAMETER} for each. Add trials."
        )


def _diverged(table: TrialTable) -> Iterator[str]:
    diverged, here = int((table.statuses == Status.DIVERGED).sum()), int((table.statuses != Status.OTHER_SHARD).sum())
    if diverged > DIVERGED_SHARE * here:
        many = f"{diverged:,} of {here:,} trials diverged"
        yield f"{many}: much of the space is of no use. Narrow it, or clip gradients."


def _at_edges(table: TrialTable) -> Iterator[str]:
    for each in boundaries(table, BEST):
        if each.at is not None:
            end = each.low if each.at == "lowest" else each.high
            yield (
                f"{each.name}: most of the best {BEST} trials are at the {each.at} end of its range, around "
                f"{show(float(f'{each.median:.3g}'))} where it ends at {show(end)}. Better ones may be beyond it."
            )


def _chance(table: TrialTable) -> Iterator[str]:
    if table.lane_status.shape[1] == 1 and table.ranking:
        yield "One seed a trial: nothing tells the best one from one that had a good seed. Write replicates=3."
        return
    try:
        optimism = winners_curse(table)
    except InputError:
        return
    if optimism > 0:
        yield (
            f"The best trial was chosen for looking best: expect its {table.objective.metric} to be worse by about "
            f"{metric(optimism)}."
        )
