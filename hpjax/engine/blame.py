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
LIBRARIES = ("hpjax", "jax", "jaxlib", "numpy", "scipy", *MODELLING)


@cache
def _library_folders(names: tuple[str, ...] = LIBRARIES) -> tuple[str, ...]:
    specs = [importlib.util.find_spec(name) for name in names]
    return tuple(f"{Path(spec.origin).parent}/" for spec in specs if spec is not None and spec.origin is not None)


def _of_library(file: str) -> bool:
    standard = file.startswith(sysconfig.get_path("stdlib")) and "site-packages" not in file
    return standard or file.startswith("<") or file.startswith(_library_folders())


def user_line(error: BaseException) -> str | None:
    """The innermost line outside the libraries, as ``sweep.py:14: x = nn.Dense(self.hidden)(x)``."""
    return _innermost(error, lambda file: not _of_library(file))


def model_line(error: BaseException) -> str | None:
    """``user_line``; where there is none, the innermost line of a library that users build models with."""
    return user_line(error) or _innermost(error, lambda file: file.startswith(_library_folders(MODELLING)))


def _innermost(error: BaseException, wanted: Callable[[str], bool]) -> str | None:
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = frame.f_code.co_filename
        if wanted(file):
            text = linecache.getline(file, line).strip()
            return f"{Path(file).name}:{line}: {text}" if text else f"{Path(file).name}:{line}"
    return None


def first_line(error: BaseException) -> str:
    """What kind of error it was and the first line of its message."""
    message = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
