"""Which line of the user's own code an error came from."""

import importlib.util
import linecache
import sysconfig
import traceback
from functools import cache
from pathlib import Path

# Not the whole of site-packages: a user's own package may be installed there.
LIBRARIES = ("hpjax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "chex", "einops", "equinox")


@cache
def _library_folders() -> tuple[str, ...]:
    specs = [importlib.util.find_spec(name) for name in LIBRARIES]
    return tuple(f"{Path(spec.origin).parent}/" for spec in specs if spec is not None and spec.origin is not None)


def _of_library(file: str) -> bool:
    standard = file.startswith(sysconfig.get_path("stdlib")) and "site-packages" not in file
    return standard or file.startswith("<") or file.startswith(_library_folders())


def user_line(error: BaseException) -> str | None:
    """The innermost line outside the libraries, as ``sweep.py:14: x = nn.Dense(self.hidden)(x)``."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = frame.f_code.co_filename
        if not _of_library(file):
            text = linecache.getline(file, line).strip()
            return f"{Path(file).name}:{line}: {text}" if text else f"{Path(file).name}:{line}"
    return None


def first_line(error: BaseException) -> str:
    """What kind of error it was and the first line of its message."""
    message = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
