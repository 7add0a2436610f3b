"""Studies: questions that one sweep answers, such as how training scales with the batch size.

A study is a question with an answer. ``BatchScaling`` is a question: a frozen dataclass of what is asked, with
``plan()``, ``run(directory)`` and ``read(result)``. Its answer is a ``BatchScalingResult``: points, fits, ``table()``,
``plot()``, ``doubts``, and ``str`` for a report. ``Branches``, ``Schedules``, ``Transfer`` and ``Optimizers`` are
others, whose answers are a ``BranchesResult``, a ``SchedulesResult``, a ``TransferResult`` and an ``OptimizersResult``.

A new study derives from ``Study``, and its answer from ``StudyResult``.

- The question makes one ``Sweep``, its property ``sweep``. Whatever can be asked of a sweep is asked of that one.
- The answer is read from a ``Result`` alone, by a classmethod ``read``, so that it needs no program.
- A ``StudyRecord`` in the manifest of the run says what was asked, so that the classmethod ``load`` and ``hpjax show``
  can read the answer from a directory.
- ``plot`` draws the answer from its numbers, and computes none.

``SearchPerBatchSize`` and ``SearchPerAlternative`` give each value of what varies a search of its own. ``fit_steps``,
``fit_rates`` and ``fit_power_law`` fit curves to numbers of your own. ``noise_scale`` and ``noise_scale_of`` estimate
the gradient noise scale. ``NoisyQuadratic`` is a model in which all of this is known in closed form.
"""

from hpjax.results.store.manifest import StudyRecord
from hpjax.studies import plot
from hpjax.studies.batch_scaling import BatchScaling
from hpjax.studies.batch_scaling_result import BatchScalingResult, ScalingPoint, TrialCounts
from hpjax.studies.branches import Branches
from hpjax.studies.branches_result import BranchesResult, BranchPoint
from hpjax.studies.fits import RateFit, StepsFit, fit_rates, fit_steps
from hpjax.studies.gradient_noise import NoiseScale, noise_scale, noise_scale_of
from hpjax.studies.optimizers import Optimizers
from hpjax.studies.optimizers_result import OptimizerPoint, OptimizersResult
from hpjax.studies.optimizers_tasks import OptimizerScores, optimizer_scores
from hpjax.studies.power_law import PowerLaw, fit_power_law
from hpjax.studies.quadratic import NoisyQuadratic
from hpjax.studies.schedule_families import ScheduleFamily, schedule_families
from hpjax.studies.schedules import Schedules
from hpjax.studies.schedules_result import FamilyPoint, SchedulesResult
from hpjax.studies.search import SearchPerAlternative, SearchPerBatchSize
from hpjax.studies.study import Study, StudyResult
from hpjax.studies.transfer import Transfer
from hpjax.studies.transfer_result import Drift, TransferPoint, TransferResult

__all__ = [
    "BatchScaling",
    "BatchScalingResult",
    "BranchPoint",
    "Branches",
    "BranchesResult",
    "Drift",
    "FamilyPoint",
    "NoiseScale",
    "NoisyQuadratic",
    "OptimizerPoint",
    "OptimizerScores",
    "Optimizers",
    "OptimizersResult",
    "PowerLaw",
    "RateFit",
    "ScalingPoint",
    "ScheduleFamily",
    "Schedules",
    "SchedulesResult",
    "SearchPerAlternative",
    "SearchPerBatchSize",
    "StepsFit",
    "Study",
    "StudyRecord",
    "StudyResult",
    "Transfer",
    "TransferPoint",
    "TransferResult",
    "TrialCounts",
    "fit_power_law",
    "fit_rates",
    "fit_steps",
    "noise_scale",
    "noise_scale_of",
    "optimizer_scores",
    "plot",
    "schedule_families",
]
