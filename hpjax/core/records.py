"""Records: hyperparameters as JSON has them, in which options that print alike are told apart by their positions."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from hpjax.core.format import show
from hpjax.core.scalars import as_python

# Types of values that are their own records.
PLAIN = (float, int, str, bool, type(None))


class OptionRecords:
    """What stands for each option of a choice in records.

    Numbers, texts, None, and tuples of these stand for themselves. Anything else, such as a function, is recorded as it
    prints; where that stands for another option, too, its position among all options follows.

    Args:
      options: the options, of several choices perhaps.

    Example:
      >>> records = OptionRecords([max, lambda x: x, lambda x: -x])
      >>> [records.of(option) for option in (max, 0.5)], records.option("<lambda> #2")(3)
      (['max', 0.5], -3)
    """

    def __init__(self, options: Iterable[Any]) -> None:
        self._options = list(dict.fromkeys(options))
        self._records = [jsonable(option) for option in self._options]
        while doubles := self._doubles():
            for i in doubles:
                self._records[i] = f"{show(self._records[i])} #{i}"
        self._by_text = dict(zip(map(json.dumps, self._records), self._options, strict=True))

    def _doubles(self) -> list[int]:
        """Returns the positions of options that JSON lacks, and whose records are not theirs alone."""
        texts = [json.dumps(record) for record in self._records]
        return [i for i, o in enumerate(self._options) if texts.count(texts[i]) > 1 and not in_json(o)]

    def of(self, value: Any) -> Any:
        """Returns the record of an option, or of a number that is none."""
        if type(value) in PLAIN:  # most values of most sweeps; the rest takes ten times as long
            return value
        if in_json(value):
            return jsonable(value)
        return self._records[self._options.index(value)] if value in self._options else jsonable(value)

    def option(self, record: Any) -> Any:
        """Returns the option that a record stands for; the record itself where it stands for none, being a number."""
        return self._by_text.get(json.dumps(record), record) if self._options else record


def finite_or_none(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Returns metrics with None for what is not finite, which JSON lacks."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def in_json(value: Any) -> bool:
    """Returns whether JSON has a value: a number, a text, None, or a tuple of these."""
    return all(map(in_json, value)) if isinstance(value, tuple) else isinstance(value, bool | int | float | str | None)


def jsonable(value: Any) -> Any:
    """Returns a hyperparameter as JSON has it; what JSON lacks, such as a function, as it prints."""
    value = as_python(value)
    if isinstance(value, tuple):
        return tuple(map(jsonable, value))
    return value if in_json(value) else show(value)
