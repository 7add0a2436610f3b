"""Which line of the user's own code an error came from."""

import importlib.util
import linecache
import sysconfig
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

# Not the whole of site-packages: a user's own package may be installed there.
MODELLING = ("flax", "optax", "chex", "einops", "equinox")
LIBRARIES = ("hpjax", "jax", "jaxlib", "numpy", "scipy", "grain", "absl", *MODELLING)


@cache
def _library_folders(names: tuple[str, ...] = LIBRARIES) -> tuple[str, ...]:
    specs = [importlib.util.find_spec(name) for name in names]
    return tuple(f"{Path(spec.origin).parent}/" for spec in specs if spec is not None and spec.origin is not None)


def _of_library(file: str) -> bool:
    standard = file.startswith(sysconfig.get_path("stdlib")) and "site-packages" not in file
    return standard or file.startswith("<") or file.startswith(_library_folders())


def user_lines(error: BaseException) -> list[str]:
    """The lines outside the libraries, the innermost last, as ``sweep.py:14: x = nn.Dense(self.hidden)(x)``."""
    return _lines(error, lambda file: not _of_library(file))


def model_line(error: BaseException, read: tuple[str, int] | None = None) -> str | None:
    """The innermost of ``user_lines``; where there is none, the line that a hyperparameter was read at, if the user's,
    and that of a library that users build models with.
    """
    own = user_lines(error)
    if own:
        return own[-1]
    library = _lines(error, lambda file: file.startswith(_library_folders(MODELLING)))[-1:]
    mine = own_line(read)
    return ", then ".join(([mine] if mine else []) + library) or None


def own_line(place: tuple[str, int] | None) -> str | None:
    """A file and a line as text, where it is the user's own."""
    return _line(*place) if place is not None and place[1] and not _of_library(place[0]) else None


def _lines(error: BaseException, wanted: Callable[[str], bool]) -> list[str]:
    found = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if wanted(file):
            found.append(_line(file, line))
    return found


def _line(file: str, line: int) -> str:
    text = linecache.getline(file, line).strip().rstrip(",")
    return f"{Path(file).name}:{line}: {text}" if text else f"{Path(file).name}:{line}"


def first_line(error: BaseException) -> str:
    """What kind of error it was and the first line of its message."""
    message = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
