"""Export of a sweep as a study of Optuna, which optuna-dashboard opens."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.core.errors import InputError, RunError, missing
from hpjax.core.format import show
from hpjax.results.store.files import replacing, writing_for_user
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable
from hpjax.samplers.optuna import silent

# The names of Optuna's states.
STATES = {
    Status.COMPLETE: "COMPLETE",
    Status.STOPPED: "PRUNED",
    Status.DIVERGED: "FAIL",
    Status.FAILED: "FAIL",
    Status.RUNNING: "RUNNING",
    Status.OTHER_SHARD: "WAITING",
}


def write(table: TrialTable, path: str | Path, name: str, about: Mapping[str, Any] | None = None) -> None:
    """Writes the trials to a JournalStorage: hyperparameters, the objective and its curve, metrics as attributes.

    Args:
      table: the trials.
      path: the journal, written whole or not at all; where it exists, the study is added to it.
      name: the name of the study.
      about: attributes of the study, what JSON has by their names.

    Raises:
      InputError: the journal has a study of this name.
      RunError: the file is no journal, or cannot be written.
    """
    try:
        import optuna
    except ImportError:
        raise missing("to_optuna()", "optuna") from None

    there = Path(path).resolve()
    instead = "result.to_optuna(FILE), or hpjax export DIR --optuna --out FILE"
    with writing_for_user(path, instead), replacing(there) as part:
        if there.exists():
            shutil.copyfile(there, part)
        with silent(optuna):
            study = _new_study(optuna, table, part, path, name)
            study.set_metric_names([table.objective.metric])
            for key, value in (about or {}).items():
                study.set_user_attr(key, value)
        for trial in _trials(optuna, table):
            study.add_trial(trial)


def _trials(optuna: Any, table: TrialTable) -> Iterator[Any]:
    """Yields every trial as one of Optuna."""
    kinds = distributions_of(optuna, table)
    objective, steps = table.objective, table.curves("step")
    values = objective.value(objective.aggregate(table.last(objective.metric)))
    curves = objective.value(objective.aggregate(np.moveaxis(table.curves(objective.metric), 1, -1)))
    metrics = {metric: table.last(metric).mean(axis=1) for metric in table.metrics}
    for trial, (status, hparams) in enumerate(zip(table.statuses, table.hparams, strict=True)):
        at = np.nanmax(steps[trial], axis=0, initial=0)
        curve = {int(s): float(v) for s, v in zip(at, curves[trial], strict=True) if s > 0 and np.isfinite(v)}
        attributes = {each: float(v[trial]) for each, v in metrics.items() if np.isfinite(v[trial])}
        valued = status in (Status.COMPLETE, Status.STOPPED) and np.isfinite(values[trial])
        yield optuna.trial.create_trial(
            state=optuna.trial.TrialState[STATES[Status(status)]],
            params={each: parameter_of(value) for each, value in hparams.items()},
            distributions={each: kinds[each] for each in hparams},
            value=float(values[trial]) if valued else None,
            intermediate_values=curve,
            user_attrs=attributes | table.tested.get(trial, {}),
        )


def _new_study(optuna: Any, table: TrialTable, file: Path, path: str | Path, name: str) -> Any:
    """Returns a new study in a journal, which is created where there is none.

    Args:
      optuna: the module.
      table: the trials.
      file: the journal.
      path: what the user calls it.
      name: the name of the study.
    """
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    try:
        # A lock that is a file: Optuna's default is a symbolic link, which a run directory must not hold.
        backend = JournalFileBackend(str(file), JournalFileOpenLock(str(file)))
        storage = optuna.storages.JournalStorage(backend)
        there = [each.study_name for each in optuna.get_all_study_summaries(storage)]
    except OSError:
        raise
    except Exception as error:  # a damaged journal makes Optuna raise nearly anything
        raise RunError(f"{path} is no journal of Optuna: {error!r}. Name a new file: study.log.") from None
    if name in there:
        allowed = f"is a study in {path} already"
        raise InputError("to_optuna.name", name, allowed, f'Write result.to_optuna(path, "{name}-2").')
    return optuna.create_study(storage=storage, study_name=name, direction=table.objective.direction)


def distributions_of(optuna: Any, table: TrialTable) -> dict[str, Any]:
    """Returns the domain of each hyperparameter as Optuna has it, by name."""
    return {name: _distribution(optuna.distributions, table, name) for name in table.names}


def _distribution(kinds: Any, table: TrialTable, name: str) -> Any:
    """Returns the domain of a hyperparameter as it was declared, of all alternatives that have it together.

    A hyperparameter of which the distance to 1 matters has a linear scale, since Optuna has no other. Of choices the
    options that no trial had are known as they print.
    """
    values = [hparams[name] for hparams in [*table.hparams, *table.first_hparams] if name in hparams]
    ranges = [each.ranges[name] for each in table.alternatives if name in each.ranges and name not in each.options]
    if any(name in each.options for each in table.alternatives) or not all(map(_is_number, values)):
        seen = {show(value): parameter_of(value) for value in values}
        listed = [text for each in table.alternatives for text in each.options.get(name, ())]
        plain = all(isinstance(value, str) for value in seen.values())
        options = [seen.get(text, text if plain else _option(text)) for text in listed]
        return kinds.CategoricalDistribution(list(dict.fromkeys([*options, *seen.values()])))
    low, high = min([*(each.low for each in ranges), *values]), max([*(each.high for each in ranges), *values])
    log = table.scales[name] == "log" and low > 0
    if all(isinstance(value, int) for value in values):
        return kinds.IntDistribution(int(low), int(high), log=log)
    return kinds.FloatDistribution(low, high, log=log)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parameter_of(value: Any) -> Any:
    """Returns a hyperparameter as Optuna has it, as text where Optuna has no such values: tuples."""
    return value if isinstance(value, bool | int | float | str | None) else show(value)


def _option(text: str) -> Any:
    """Returns the option that prints so: a number, a bool, None, or the text itself."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return {"True": True, "False": False, "None": None}.get(text, text)
