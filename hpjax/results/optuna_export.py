"""A finished sweep as a study of Optuna, which optuna-dashboard opens."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.core.errors import InputError, RunError, missing
from hpjax.samplers.optuna import silent

if TYPE_CHECKING:
    from hpjax.results.result import Result

STATES = {"complete": "COMPLETE", "stopped": "PRUNED", "diverged": "FAIL", "running": "RUNNING", "elsewhere": "WAITING"}


def write(result: "Result", path: str | Path, name: str) -> None:
    """Writes the trials to a JournalStorage: hyperparameters, the objective and its curve, metrics as attributes.

    Args:
      result: of a sweep.
      path: of the journal; a study is added where it exists.
      name: of the study.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    except ImportError:
        raise missing("to_optuna()", "optuna") from None

    with silent(optuna):
        try:  # a lock that is a file, for a link has no place in a run directory
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
            there = [each.study_name for each in optuna.get_all_study_summaries(storage)]
        except OSError:
            raise
        except Exception as error:  # whatever a damaged journal makes Optuna say
            raise RunError(f"{path} is no journal of Optuna: {error!r}. Choose another file.") from None
        if name in there:
            raise InputError("to_optuna.name", name, f"is there already, in {path}", "Choose another name, or file.")
        study = optuna.create_study(storage=storage, study_name=name, direction=result.objective.direction)
    kinds = {each: _distribution(optuna.distributions, result, each) for each in result.names}
    objective, steps = result.objective, result.curves("step")
    values = objective.value(objective.aggregate(result.last(objective.metric)))
    curves = objective.value(objective.aggregate(np.moveaxis(result.curves(objective.metric), 1, -1)))
    for trial in result:
        at = np.nanmax(steps[trial.id], axis=0, initial=0)
        curve = {int(s): float(v) for s, v in zip(at, curves[trial.id], strict=True) if s > 0 and np.isfinite(v)}
        state = optuna.trial.TrialState[STATES[trial.status]]
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                params=trial.hparams,
                distributions={each: kinds[each] for each in trial.hparams},
                value=float(values[trial.id]) if trial.status == "complete" else None,
                intermediate_values=curve,
                user_attrs={each: v for each, v in trial.metrics.items() if np.isfinite(v)},
            )
        )


def _distribution(kinds: Any, result: "Result", name: str) -> Any:
    """What holds all values of a hyperparameter: their range, or they themselves."""
    values = [hparams[name] for hparams in [*result.hparams, *result.first_hparams] if name in hparams]
    log = result.scales[name] == "log"
    if all(type(value) is int for value in values):
        return kinds.IntDistribution(min(values), max(values), log=log)
    if all(type(value) in (int, float) for value in values):
        return kinds.FloatDistribution(min(values), max(values), log=log)
    return kinds.CategoricalDistribution(list(dict.fromkeys(values)))
