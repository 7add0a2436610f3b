"""Arrays in files of NumPy's format, one each: read without unpickling, and no more of them than a caller needs."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import msgspec
import numpy as np
from msgspec import Struct

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.results.store.files import part_of, remove, write_text
from hpjax.results.store.validation import convert, read_json

INDEX = "arrays.json"


class ArrayFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What the index of a folder says of an array, which is in the file of its number: its name, dtype and digest."""

    name: str
    dtype: str
    digest: str


def write_arrays(folder: Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays by name to a new folder, whole or not at all.

    Raises:
      OSError: they cannot be written.
    """
    part, own = part_of(folder), digests(arrays)
    remove(part)
    part.mkdir(parents=True)
    for number, array in enumerate(arrays.values()):
        np.save(part / f"{number}.npy", array)
    index = [ArrayFile(name, str(array.dtype), own[name]) for name, array in arrays.items()]
    write_text(part / INDEX, json.dumps(msgspec.to_builtins(index), indent=1) + "\n")
    os.replace(part, folder)


def read_arrays(folder: Path, check: Callable[[dict[str, jax.ShapeDtypeStruct]], None]) -> dict[str, Array]:
    """Returns the arrays of a folder by name. Raises an error of any kind where it is damaged.

    Args:
      folder: the folder, of which anything may be wrong.
      check: raises ``RunError`` unless arrays of these names, shapes and dtypes are wanted; asked before they are read.
    """
    index = convert(str(folder / INDEX), read_json(folder / INDEX), tuple[ArrayFile, ...])
    files = {each.name: memory_mapped(folder / f"{i}.npy", each.dtype) for i, each in enumerate(index)}
    check({name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in files.items()})
    arrays = {name: np.array(array) for name, array in files.items()}
    digested = digests(arrays)
    wrong = [each.name for each in index if digested[each.name] != each.digest]
    if wrong:
        raise RunError(f"{', '.join(sorted(wrong)[:9])} is not what was written")
    return arrays


def digests(arrays: Mapping[str, Array]) -> dict[str, str]:
    """Returns of each array a digest of its bytes, shape and dtype."""
    found = {}
    for name, array in arrays.items():
        digest = hashlib.blake2b(f"{array.shape}{array.dtype}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        found[name] = digest.hexdigest()
    return found


def memory_mapped(path: Path, dtype: str, shape: tuple[int | None, ...] = ()) -> Array:
    """Returns an array of that dtype and first sizes, None for any; its numbers stay in the file until read."""
    import ml_dtypes

    if dtype not in _dtypes():
        raise ValueError(f"{dtype!r} is no dtype of a state")
    wanted = np.dtype(getattr(ml_dtypes, dtype)) if hasattr(ml_dtypes, dtype) else np.dtype(dtype)
    array: Array = np.lib.format.open_memmap(path, mode="r")
    raw = array.dtype.kind == "V" and array.dtype.itemsize == wanted.itemsize
    begins = array.shape[: len(shape)]
    fits = len(begins) == len(shape) and all(n in (m, None) for n, m in zip(shape, begins, strict=True))
    if not fits or not (raw or array.dtype == wanted):
        raise ValueError(f"{path} is {array.dtype} {array.shape}, and must be {dtype} of shape {shape} ...")
    return array if array.dtype == wanted else array.view(wanted)


def _dtypes() -> set[str]:
    """Returns the dtypes that states may have: numbers of NumPy, and of ml_dtypes, which NumPy stores as raw bytes."""
    import ml_dtypes

    own = {name for name, kind in vars(ml_dtypes).items() if isinstance(kind, type) and issubclass(kind, np.generic)}
    return own | {np.dtype(code).name for code in "?bhilqBHILQefdFD"}
