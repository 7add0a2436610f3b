"""Export of a sweep as a study of Optuna, which optuna-dashboard opens."""

from pathlib import Path
from typing import Any

import numpy as np

from hpjax.core.errors import InputError, RunError, missing
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable
from hpjax.samplers.optuna import silent

# The names of Optuna's states.
STATES = {
    Status.COMPLETE: "COMPLETE",
    Status.STOPPED: "PRUNED",
    Status.DIVERGED: "FAIL",
    Status.RUNNING: "RUNNING",
    Status.OTHER_SHARD: "WAITING",
}


def write(table: TrialTable, path: str | Path, name: str) -> None:
    """Writes the trials to a JournalStorage: hyperparameters, the objective and its curve, metrics as attributes.

    Args:
      table: the trials.
      path: the journal; where it exists, the study is added to it.
      name: the name of the study.

    Raises:
      InputError: the journal has a study of this name.
      RunError: the file is no journal.
    """
    try:
        import optuna
    except ImportError:
        raise missing("to_optuna()", "optuna") from None

    study = _new_study(optuna, table, path, name)
    kinds = {each: _distribution(optuna.distributions, table, each) for each in table.names}
    objective, steps = table.objective, table.curves("step")
    values = objective.value(objective.aggregate(table.last(objective.metric)))
    curves = objective.value(objective.aggregate(np.moveaxis(table.curves(objective.metric), 1, -1)))
    metrics = {metric: table.last(metric).mean(axis=1) for metric in table.metrics}
    for trial, (status, hparams) in enumerate(zip(table.statuses, table.hparams, strict=True)):
        at = np.nanmax(steps[trial], axis=0, initial=0)
        curve = {int(s): float(v) for s, v in zip(at, curves[trial], strict=True) if s > 0 and np.isfinite(v)}
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[STATES[Status(status)]],
                params=hparams,
                distributions={each: kinds[each] for each in hparams},
                value=float(values[trial]) if status == Status.COMPLETE else None,
                intermediate_values=curve,
                user_attrs={each: float(v[trial]) for each, v in metrics.items() if np.isfinite(v[trial])},
            )
        )


def _new_study(optuna: Any, table: TrialTable, path: str | Path, name: str) -> Any:
    """Returns a new study in a journal, which is created where there is none."""
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    with silent(optuna):
        try:
            # A lock that is a file: Optuna's default is a symbolic link, which a run directory must not hold.
            backend = JournalFileBackend(str(path), JournalFileOpenLock(str(path)))
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


def _distribution(kinds: Any, table: TrialTable, name: str) -> Any:
    """Returns the distribution that holds all values of a hyperparameter: their range, or a choice of them."""
    values = [hparams[name] for hparams in [*table.hparams, *table.first_hparams] if name in hparams]
    log = table.scales[name] == "log"
    if all(type(value) is int for value in values):
        return kinds.IntDistribution(min(values), max(values), log=log)
    if all(type(value) in (int, float) for value in values):
        return kinds.FloatDistribution(min(values), max(values), log=log)
    return kinds.CategoricalDistribution(list(dict.fromkeys(values)))
