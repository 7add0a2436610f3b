"""The user's own code: the file that the command line executes, and the line that an error came from."""

import importlib.util
import linecache
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

# Named one by one, and not as all of site-packages: a user's own package may be installed there.
MODELLING = ("flax", "optax", "chex", "einops", "equinox")
LIBRARIES = ("hpjax", "jax", "jaxlib", "numpy", "scipy", "grain", "absl", *MODELLING)

# The file that the command line executes now to find its sweep.
_loading: ContextVar[Path | None] = ContextVar("loading", default=None)


@contextmanager
def loading(file: Path) -> Iterator[None]:
    """Has ``loaded_file`` return a file of the user's in its body."""
    token = _loading.set(file)
    try:
        yield
    finally:
        _loading.reset(token)


def loaded_file() -> Path | None:
    """Returns the file that the command line executes now to find its sweep, None where it executes none."""
    return _loading.get()


@cache
def _library_folders(names: tuple[str, ...] = LIBRARIES) -> tuple[str, ...]:
    specs = [importlib.util.find_spec(name) for name in names]
    return tuple(f"{Path(spec.origin).parent}/" for spec in specs if spec is not None and spec.origin is not None)


def is_library(file: str) -> bool:
    """Returns whether a file is of hpjax, of a library that it knows, or of Python itself."""
    standard = file.startswith(sysconfig.get_path("stdlib")) and "site-packages" not in file
    return standard or file.startswith("<") or file.startswith(_library_folders())


def is_installed(file: str) -> bool:
    """Returns whether a file is of any installed package, a user's own among them, or of Python itself."""
    folders = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return file.startswith(("<built-in>", "<frozen")) or file.startswith((*folders, *_library_folders()))


def user_lines(error: BaseException) -> list[str]:
    """Returns the traceback's lines outside the libraries, the innermost last.

    A line reads ``sweep.py:14: x = nn.Dense(self.hidden)(x)``.
    """
    return _lines(error, lambda file: not is_library(file))


def model_line(error: BaseException, read: tuple[str, int] | None = None) -> str | None:
    """Returns the line that explains why a program failed with a traced hyperparameter, or None.

    It is the innermost of ``user_lines``. Where there is none, it is the user's line that read the hyperparameter,
    followed by the line of the modelling library that failed.

    Args:
      error: what was raised.
      read: the file and line that read the hyperparameter, as ``core.hparams.reading`` records them.
    """
    own = user_lines(error)
    if own:
        return own[-1]
    library = _lines(error, lambda file: file.startswith(_library_folders(MODELLING)))[-1:]
    reader = own_line(read)
    return ", then ".join(([reader] if reader else []) + library) or None


def own_line(location: tuple[str, int] | None) -> str | None:
    """Returns a file and a line as text if they are the user's own, else None."""
    if location is None or location[1] == 0 or is_library(location[0]):  # line 0 stands for "unknown"
        return None
    return _line(*location)


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
    """Returns the type of an error and the first line of its message."""
    message = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
