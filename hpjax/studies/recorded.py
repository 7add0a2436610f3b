"""The answer of whichever study a result belongs to."""

from hpjax.results.result import Result
from hpjax.studies import batch_scaling_result, branches_result, optimizers_result, schedules_result, transfer_result
from hpjax.studies.batch_scaling_result import BatchScalingResult
from hpjax.studies.branches_result import BranchesResult
from hpjax.studies.optimizers_result import OptimizersResult
from hpjax.studies.schedules_result import SchedulesResult
from hpjax.studies.transfer_result import TransferResult

Answer = BatchScalingResult | BranchesResult | OptimizersResult | SchedulesResult | TransferResult

# What ``hpjax plot`` calls the picture of each.
PICTURES: dict[type[Answer], str] = {
    BatchScalingResult: "scaling",
    BranchesResult: "branches",
    OptimizersResult: "optimizers",
    SchedulesResult: "gains",
    TransferResult: "transfer",
}


def recorded_answer(result: Result) -> Answer | None:
    """Returns the answer of the study that a result belongs to, None if it belongs to none.

    Raises:
      RunError: the manifest has a record of the study that cannot be read.
    """
    return (
        batch_scaling_result.recorded_answer(result)
        or branches_result.recorded_answer(result)
        or optimizers_result.recorded_answer(result)
        or schedules_result.recorded_answer(result)
        or transfer_result.recorded_answer(result)
    )
