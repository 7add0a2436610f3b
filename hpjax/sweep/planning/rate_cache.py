"""Remembers the speeds that were measured of widths on this machine, in the user's cache folder."""

import json
from contextlib import suppress
from typing import Any, NamedTuple

from hpjax.engine.machine import folder
from hpjax.results.store.files import write_text
from hpjax.results.store.validation import is_float, is_int
from hpjax.sweep.planning.width import Rate

# For as long as the process lives, also where the folder cannot be written.
_here: dict[str, "Measured"] = {}


class Measured(NamedTuple):
    """What was measured of a program.

    Attributes:
      rates: the speeds of some widths; empty where nothing is known.
      finished: whether the search for the best width came to its end; False if time was up before.
    """

    rates: tuple[Rate, ...] = ()
    finished: bool = False


def recall(key: str) -> Measured:
    """Returns what was measured of the program with a fingerprint; no rates if its file is missing or unreadable."""
    if key not in _here:
        with suppress(OSError, ValueError):
            read = json.loads((folder() / "widths" / f"{key}.json").read_text("utf-8"))
            rows = read.get("rates") if isinstance(read, dict) else None
            if isinstance(rows, list) and rows and all(map(_is_rate, rows)):
                _here[key] = Measured(tuple(Rate(*row) for row in rows), read.get("finished") is True)
    return _here.get(key, Measured())


def remember(key: str, measured: Measured) -> None:
    """Remembers what was measured of the program with a fingerprint."""
    _here[key] = measured
    file = folder() / "widths" / f"{key}.json"
    with suppress(OSError):  # without a file the next process measures again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({"rates": [list(rate) for rate in measured.rates], "finished": measured.finished}))


def _is_rate(row: Any) -> bool:
    """Returns whether JSON is a rate; anyone may have written the file."""
    return (
        isinstance(row, list)
        and len(row) == 3
        and is_int(row[0], 1)
        and row[1] in ("batched", "xla")
        and is_float(row[2])
        and row[2] > 0
    )
