"""What the manifest of a run says of the study that the run belongs to."""

import json
import math
from typing import NamedTuple

from hpjax.core.errors import RunError
from hpjax.results.result import Result

# The entry of ``Program.describe``, and so of the manifest's ``sweep.program``, that holds the record as JSON.
ENTRY = "hpjax.study"


class StudyRecord(NamedTuple):
    """The question of a study, as far as its answer depends on it.

    Attributes:
      kind: which study it is, ``"batch scaling"``.
      target: the value of the objective's metric at which a trial ends.
      complete: how many complete trials of each value count, the first ones; all if None.
      over: the name of the hyperparameter that the study varies.
    """

    kind: str
    target: float
    complete: int | None
    over: str


def description(record: StudyRecord) -> dict[str, str]:
    """Returns the entry for ``Program.describe`` that records a study in the manifest."""
    return {ENTRY: json.dumps(record._asdict())}


def recorded_study(result: Result) -> StudyRecord | None:
    """Returns the record of the study that a result belongs to, None if it belongs to none.

    Raises:
      RunError: the manifest has a record that cannot be read.
    """
    text = result.manifest["sweep"].get("program", {}).get(ENTRY)
    if text is None:
        return None
    try:
        kind, target, complete, over = StudyRecord(**json.loads(text))
        if not (isinstance(kind, str) and isinstance(over, str) and math.isfinite(target)):
            raise ValueError("kind and over must be texts, and target a number")
        if complete is not None and not (type(complete) is int and complete >= 1):
            raise ValueError("complete must be null or a whole number, 1 or more")
        return StudyRecord(kind, float(target), complete, over)
    except (TypeError, ValueError) as error:
        raise RunError(f"the manifest does not say what study the run belongs to, at {ENTRY!r}: {error}.") from None
