"""What one hyperparameter does once the others are as good as they get for each of its values."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hpjax.core.domains import Range
from hpjax.core.errors import InputError, check_int, did_you_mean
from hpjax.core.format import show
from hpjax.core.scalars import as_python
from hpjax.results import plot_data
from hpjax.results.analysis.best_of import expected_of
from hpjax.results.table import TrialTable


class Isolated(NamedTuple):
    """The best that trials with one value of a hyperparameter, or with one of a bucket, reached.

    Attributes:
      value: of the hyperparameter; of a bucket that of its best trial.
      trials: how many trials have it.
      best: the id of the best one.
      reached: its value of the objective's metric.
      expected: the expected best of as many of these trials as the value or bucket with the fewest has. Of more trials
        the best is better by luck alone, and this is not.
    """

    value: Any
    trials: int
    best: int
    reached: float
    expected: float


def isolate(table: TrialTable, name: str, fixed: Mapping[str, Any] | None = None, buckets: int = 8) -> list[Isolated]:
    """Returns the best trial for each value of a scientific hyperparameter, with nuisance ones optimized away.

    J. Godbole et al., "Deep Learning Tuning Playbook", 2023, calls a hyperparameter scientific whose effect is asked
    for, nuisance those that must be tuned for each of its values to compare them fairly, and fixed those that are held.
    ``hpx.plot.draw_isolation`` draws what this returns.

    Trials that diverged or failed do not count.

    Args:
      table: the trials; a result is one.
      name: the scientific hyperparameter.
      fixed: name to value of the fixed ones: only trials with these count. All others are nuisance.
      buckets: a number with more values than this is divided into so many buckets, even on its scale.

    Returns:
      In the order of the values, numbers ascending and others as the trials have them.

    Raises:
      InputError: there is no such hyperparameter, no ranked trial has the fixed values, or the name is among them.

    Example:
      >>> space = hpx.Space(rate=hpx.LogUniform(0.01, 0.5), scale=hpx.Choice(0.5, 1.0))
      >>> result = hpx.Sweep(program, space, trials=16).run(progress=False)
      >>> [(each.value, each.trials) for each in hpx.analysis.isolate(result, "scale")]
      [(0.5, 8), (1.0, 8)]
    """
    if not isinstance(fixed, Mapping | None):
        raise InputError("isolate.fixed", fixed, "must be name to value", 'Write fixed={"optimizer": "adam"}.')
    fixed = {each: as_python(value) for each, value in (fixed or {}).items()}
    for each, value in fixed.items():
        if not isinstance(value, bool | int | float | str | tuple | None):
            raise InputError(
                f"isolate.fixed[{each!r}]", value, "must be a value as result.table() has it", "Write that."
            )
    buckets = check_int("buckets", buckets, least=1)
    for each in (name, *fixed):
        if each not in table.names:
            raise InputError("isolate", each, "must be a hyperparameter", did_you_mean(str(each), table.names))
    if name in fixed:
        raise InputError("isolate.fixed", name, "must not be the scientific hyperparameter", "Leave it out.")
    kept = [
        trial
        for trial in table.ranking
        if name in table.hparams[trial] and fixed.items() <= table.hparams[trial].items()
    ]
    if not kept:
        allowed = f"must be values that trials with {name} have which did not diverge"
        raise InputError("isolate.fixed", fixed, allowed, "See result.table().")
    groups = _groups(table, name, kept, buckets)
    reached = plot_data.reached(table, table.objective.metric)
    fewest, sign = min(map(len, groups)), 1 if table.objective.direction == "maximize" else -1
    return [
        Isolated(
            table.hparams[group[0]][name],
            len(group),
            group[0],
            float(reached[group[0]]),
            sign * expected_of(sign * reached[group], fewest),
        )
        for group in groups
    ]


def _groups(table: TrialTable, name: str, kept: list[int], buckets: int) -> list[list[int]]:
    """Returns trials by their values of a hyperparameter, or by buckets of them; of each the best first."""
    values = [table.hparams[trial][name] for trial in kept]
    numeric = all(isinstance(value, int | float) for value in values)
    keys = [value if numeric else show(value) for value in values]
    if numeric and table.scales[name] != "category" and len(set(keys)) > buckets:
        ranges = [each for trial in kept if (each := table.ranges(trial).get(name)) is not None]
        low, high = min(*values, *(each.low for each in ranges)), max(*values, *(each.high for each in ranges))
        scales = {each.scale for each in ranges}
        within = Range(low, high, scales.pop() if len(scales) == 1 and low > 0 else "linear")
        keys = [min(int(within.place(value) * buckets), buckets - 1) for value in values]
    order = sorted(set(keys)) if numeric else list(dict.fromkeys(keys))
    return [[trial for trial, key in zip(kept, keys, strict=True) if key == each] for each in order]
