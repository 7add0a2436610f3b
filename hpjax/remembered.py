"""What was measured of widths on this machine, kept from run to run in the user's cache folder."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hpjax.engine.width import Rate
from hpjax.files import write_text
from hpjax.text import digest
from hpjax.untrusted import is_real, is_whole

# Also without a folder that can be written, for as long as the process lives.
_here: dict[str, list[Rate]] = {}


def folder() -> Path:
    """Where hpjax keeps what can be had again: ``$XDG_CACHE_HOME/hpjax``, by default ``~/.cache/hpjax``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpjax"


def fingerprint(*what: Any) -> str:
    """Of a program and where it runs; speeds are those of these versions of JAX and hpjax."""
    return digest(repr((*what, version("jax"), version("jaxlib"), version("hpjax"))))


def recall(key: str) -> tuple[Rate, ...]:
    """What was measured under a fingerprint; nothing where that is not known, or cannot be read."""
    if key not in _here:
        with suppress(OSError, ValueError):
            rows = json.loads((folder() / "widths" / f"{key}.json").read_text())
            if isinstance(rows, list) and rows and all(map(_is_rate, rows)):
                _here[key] = [Rate(*row) for row in rows]
    return tuple(_here.get(key, ()))


def remember(key: str, rates: Sequence[Rate]) -> None:
    """Keeps what was measured."""
    _here[key] = list(rates)
    file = folder() / "widths" / f"{key}.json"
    with suppress(OSError):  # measured again, then
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps([list(rate) for rate in rates]))


def _is_rate(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and is_whole(row[0], 1)
        and row[1] in ("batched", "xla")
        and is_real(row[2])
        and row[2] > 0
    )
