"""The best trials as a table of text, and how all of them ended."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hpjax.core import html
from hpjax.core.errors import InputError, RunError, did_you_mean
from hpjax.core.format import count, show
from hpjax.core.format import metric as number
from hpjax.core.format import table as text_table
from hpjax.core.objective import Objective
from hpjax.results.diagnosis import UNDEFINED
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable

# What stands before each column of a table.
GAP = "  "
# A text names so many of the trials that failed for one reason.
NAMED = 10


class Summary(NamedTuple):
    """Some trials as the cells of a table, and how all of them ended.

    Attributes:
      header: the titles of the columns.
      rows: a row for each trial.
      note: how many trials ended how, and why some failed; several lines.
    """

    header: list[str]
    rows: list[list[str]]
    note: str

    def __str__(self) -> str:
        return f"{text_table(self.header, self.rows)}\n{self.note}"

    def of(self, columns: Sequence[str]) -> "Summary":
        """Returns these columns alone, in this order.

        Raises:
          InputError: there is no such column.
        """
        for name in columns:
            if name not in self.header:
                raise InputError("columns", name, "must be a column", did_you_mean(name, self.header))
        at = [self.header.index(name) for name in columns]
        return Summary([*columns], [[row[i] for i in at] for row in self.rows], self.note)

    def fitting(self, width: int, first: Sequence[str]) -> "Summary":
        """Returns as many columns as fit, in their order; the note says which are left out.

        Args:
          width: in characters.
          first: the names of columns, from the one that is left out last.
        """
        sizes = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        size, kept = dict(zip(self.header, sizes, strict=True)), set[str]()
        for name in dict.fromkeys([*first, *self.header]):
            if len(GAP) * (len(kept) + 1) + sum(size[each] for each in {*kept, name}) <= width:
                kept.add(name)
        left = [name for name in self.header if name not in kept]
        found = self.of([name for name in self.header if name in kept])
        return found._replace(note=f"{self.note}\nleft out for width: {', '.join(left)}") if left else found

    def _repr_html_(self) -> str:
        return html.table(*self)


def summary_of(table: TrialTable, trials: Sequence[int], by: Objective) -> Summary:
    """Returns trials as a table, and how many of all ended how.

    Args:
      table: the trials.
      trials: the ids of those to show, in their order.
      by: by what they were ordered.
    """
    last = {name: table.last(name).mean(axis=1) for name in table.metrics}
    rows = [
        [
            str(trial),
            *(show(table.hparams[trial].get(name, "-")) for name in table.names),
            *(number(float(values[trial])) for values in last.values()),
            str(table.statuses[trial]),
            str(int(table.lane_step[trial].min())),
        ]
        for trial in trials
    ]
    names, counts = np.unique(table.statuses, return_counts=True)
    ended = ", ".join(f"{many:,} {Status(name).text}" for name, many in zip(names, counts, strict=True))
    header = ["trial", *table.names, *table.metrics, "status", "step"]
    return Summary(header, rows, f"{count(len(table), 'trial')}: {ended}; best by {by}{reasons(table.failures)}")


def reasons(failures: Mapping[int, str]) -> str:
    """Returns why trials failed, by trial, a line for each reason; empty where none did."""
    own: dict[str, list[int]] = {}
    for trial, reason in failures.items():
        own.setdefault(reason, []).append(trial)
    return "".join(
        f"\nfailed: trial{'s' * (len(trials) > 1)} {', '.join(map(str, trials[:NAMED]))}"
        f"{f' and {len(trials) - NAMED} more' if len(trials) > NAMED else ''}: {reason}"
        for reason, trials in own.items()
    )


def no_best(table: TrialTable) -> RunError:
    """Returns the error that says why there is no best trial."""
    lost = table.statuses == Status.DIVERGED
    diverged, here = int(lost.sum()), int((table.statuses != Status.OTHER_SHARD).sum())
    if diverged == here > 0:
        first = int(table.lane_step[lost].min())
        never = all(np.isnan(table.curves(name)).all() for name in table.metrics)
        return RunError(
            f"there is no best trial: all {diverged} diverged, the first at step {first}. "
            f"Lower the learning rates, or clip the gradients.{f' {UNDEFINED}' if never else ''}"
        )
    failed = int((table.statuses == Status.FAILED).sum())
    if diverged + failed == here > 0:
        why = reasons(table.failures)
        return RunError(f"there is no best trial: {diverged} of {here} diverged, and {failed} failed:{why}")
    return RunError(
        f"there is no best trial yet: {diverged} of {here} diverged, none is evaluated. "
        "Wait for the first evaluation, and load the result again."
    )


def no_state(table: TrialTable, trial: int, replicate: int, shard: Sequence[str] | None) -> RunError:
    """Returns the error that a lane has no final state, and why.

    Args:
      table: the trials.
      trial, replicate: the lane.
      shard: which shards of its sweep the run is of.
    """
    status = table.lane_status[trial, replicate]
    if status == Status.OTHER_SHARD:
        return RunError(
            f"trial {trial} is in another shard: this run is shard {', '.join(shard or '?')} of its sweep. "
            "Load the run directory of the trial's own shard, or join all: hpjax merge DIR... --out WHOLE."
        )
    if status == Status.RUNNING:
        return RunError(
            f"trial {trial} is still running, or was interrupted: it has no final state. "
            "Finish the run: sweep.run(directory)."
        )
    return RunError(
        f"trial {trial} failed, and has no final state: {table.failures[trial]}. Where the cause is not "
        "in the program itself, the same command tries it again: sweep.run(directory)."
    )
