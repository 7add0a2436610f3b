"""Remembers what was measured of widths on this machine, in the user's cache folder."""

from pathlib import Path

from hpjax.engine.machine import folder
from hpjax.sweep.planning import kept
from hpjax.sweep.planning.width import Measured

# For as long as the process lives, also where the folder cannot be written.
_here: dict[str, Measured] = {}


def recall(key: str) -> Measured:
    """Returns what was measured of the program with a fingerprint; nothing if its file is missing or damaged."""
    if key not in _here and (found := kept.read(_file(key), Measured)) is not None:
        _here[key] = found
    return _here.get(key, Measured())


def remember(key: str, measured: Measured) -> None:
    """Remembers what was measured of the program with a fingerprint."""
    _here[key] = measured
    kept.write(_file(key), measured)


def _file(key: str) -> Path:
    return folder() / "widths" / f"{key}.json"
