"""Artifacts of trials, in a directory or in memory: one file of named arrays for each trial and evaluation.

The files are those of ``numpy.savez``: ``numpy.load`` reads them without hpjax. Here they are untrusted: nothing is
unpickled, and no array is larger than the file that holds it.
"""

import re
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from hpjax.core.arrays import Array
from hpjax.core.errors import RunError
from hpjax.core.recordable import is_name
from hpjax.engine.machine import host_memory
from hpjax.results.store.files import WRITABLE, remove, replacing
from hpjax.results.store.validation import RESTORE

ENDING = ".npy"
FILE = re.compile(r"evaluation-(\d{1,10})-step-(\d{1,10})\.npz", re.ASCII)


class Evaluated(NamedTuple):
    """An evaluation of a trial: its number within the trial, from 0, and the optimizer steps taken by then."""

    number: int
    step: int


class Artifacts:
    """The artifacts of a run.

    Args:
      folder: where they are; None keeps them in memory.
      follows: whether another host writes them.
    """

    def __init__(self, folder: Path | None, follows: bool = False) -> None:
        self._folder = folder
        self.writes = folder is None or not follows
        self._kept: dict[int, dict[Evaluated, dict[str, Array]]] = {}

    def add(self, trial: int, evaluation: int, step: int, arrays: Mapping[str, Any]) -> None:
        """Keeps the artifacts of a trial at one evaluation; those that were kept of the same evaluation are replaced.

        Args:
          trial: its id.
          evaluation: the number of the evaluation within the trial, from 0.
          step: the optimizer steps that it had taken.
          arrays: name to array of numbers. Numbers that NumPy does not have, such as bfloat16, become float32 or int32.

        Raises:
          RunError: they cannot be written.
        """
        plain = {name: _plain(np.asarray(array)) for name, array in arrays.items()}
        if self._folder is None:
            self._kept.setdefault(trial, {})[Evaluated(evaluation, step)] = plain
            return
        path = self._of(trial) / f"evaluation-{evaluation}-step-{step}.npz"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part, ZipFile(part, "w", ZIP_STORED) as file:
                for name, array in plain.items():
                    content = BytesIO()
                    npy.write_array(content, array, version=(1, 0), allow_pickle=False)
                    # Of one time always, so that a run that is repeated writes the same bytes.
                    file.writestr(ZipInfo(name + ENDING), content.getvalue())
        except OSError as error:
            raise RunError(f"artifacts cannot be written: {error}. {WRITABLE}") from None

    def of(self, trial: int) -> list[tuple[Evaluated, dict[str, Array]]]:
        """Returns the artifacts of a trial, name to array, evaluation by evaluation.

        Raises:
          RunError: they cannot be read.
        """
        if self._folder is None:
            return sorted(self._kept.get(trial, {}).items())
        return [(evaluated, _read(path)) for evaluated, path in sorted(self._files(trial).items())]

    def roll_back(self, evaluations: Mapping[int, int | None]) -> None:
        """Deletes what was kept after a checkpoint.

        Args:
          evaluations: trial to how many evaluations of it were recorded by then, None for all; other trials had none.
        """
        if self._folder is None:
            return
        for folder in self._folder.glob("trial-*"):
            trial = folder.name.removeprefix("trial-")
            if not trial.isdecimal() or int(trial) not in evaluations:
                remove(folder)
                continue
            known = evaluations[int(trial)]
            for evaluated, path in self._files(int(trial)).items():
                if known is not None and evaluated.number >= known:
                    remove(path)

    def forget(self, trials: Iterable[int]) -> None:
        """Deletes the artifacts of trials that begin anew."""
        for trial in trials:
            self._kept.pop(trial, None)
            if self._folder is not None and self.writes:
                remove(self._of(trial))

    def _of(self, trial: int) -> Path:
        assert self._folder is not None
        return self._folder / f"trial-{trial}"

    def _files(self, trial: int) -> dict[Evaluated, Path]:
        """Returns the files of a trial by evaluation."""
        folder = self._of(trial)
        paths = folder.iterdir() if folder.is_dir() else ()
        found = ((FILE.fullmatch(path.name), path) for path in paths)
        return {Evaluated(*map(int, match.groups())): path for match, path in found if match is not None}


def _plain(array: Array) -> Array:
    """Returns an array as one of NumPy's own dtypes, which any reader knows."""
    if array.dtype.kind in "biufc":
        return array.copy(order="C")
    import jax.numpy as jnp

    return array.astype(np.int32 if jnp.issubdtype(array.dtype, jnp.integer) else np.float32)


def _read(path: Path) -> dict[str, Array]:
    """Returns the arrays of one file by name; raises ``RunError`` unless it is one that a run writes."""
    try:
        if path.stat().st_size > host_memory():
            raise ValueError("it is larger than the memory of this host")
        with ZipFile(path) as file:
            found = {info.filename: _array(file, info) for info in file.infolist()}
        if not all(name.endswith(ENDING) and is_name(name.removesuffix(ENDING)) for name in found):
            raise ValueError(f"it holds {sorted(found)[:9]}, and must hold named arrays")
    except Exception as error:  # zipfile and NumPy raise many types for a damaged file
        raise RunError(f"{path} cannot be read: {error}. {RESTORE}") from None
    return {name.removesuffix(ENDING): array for name, array in found.items()}


def _array(file: ZipFile, info: ZipInfo) -> Array:
    """Returns one array of a file; raises ``ValueError`` where it is not what ``add`` writes."""
    if info.compress_type != ZIP_STORED:  # a few compressed bytes may become more than memory holds
        raise ValueError(f"{info.filename} is compressed")
    content = BytesIO(file.read(info))
    if npy.read_magic(content) != (1, 0):
        raise ValueError(f"{info.filename} is of another version")
    shape, transposed, dtype = npy.read_array_header_1_0(content)
    if transposed or dtype.kind not in "biufc":
        raise ValueError(f"{info.filename} is {dtype}")
    return np.frombuffer(content.read(), dtype).reshape(shape).copy()
