"""Data: arrays in three disjoint splits, and batches drawn from them on the device; or batches that the host draws."""

import gzip
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hpjax.core.errors import InputError, missing
from hpjax.core.program import Data
from hpjax.data.examples import Examples, examples_in, tidy_examples
from hpjax.data.stream import Stream

Pair = tuple[Any, Any]


def from_arrays(
    x: Any,
    y: Any,
    *,
    valid: float | Pair = 0.2,
    test: float | Pair = 0.2,
    seed: int = 0,
    name: str = "arrays",
) -> Data:
    """Data from arrays: real inputs become float32, labels int32.

    Args:
      x: inputs, (examples, ...).
      y: targets, (examples, ...).
      valid, test: the share of the examples that each split takes, drawn at random and disjoint; or its own (x, y).
      seed: decides which example falls in which split, and nothing else.
      name: what tables call the data.

    Raises:
      InputError: lengths differ, a value is NaN or infinite, or a split comes out empty.

    Example:
      >>> data = from_arrays(np.zeros((10, 3)), np.zeros(10, int), valid=0.2, test=0.1)
      >>> data.train.x.shape, data.valid.x.shape, data.test.x.shape
      ((7, 3), (2, 3), (1, 3))
    """
    rest = tidy_examples("from_arrays", x, y)
    count = examples_in(rest)
    order = np.random.default_rng(seed).permutation(count)
    splits = {}
    for split, given in (("valid", valid), ("test", test)):
        if isinstance(given, tuple | list) and len(given) == 2:
            splits[split] = tidy_examples(f"from_arrays.{split}", *given)
            continue
        if not isinstance(given, int | float) or not 0 < given < 1:
            raise InputError(
                f"from_arrays.{split}", given, "must be a share between 0 and 1, or a pair (x, y)", "Try 0.2."
            )
        taken, order = order[: round(given * count)], order[round(given * count) :]
        splits[split] = _rows(f"from_arrays.{split}", rest, taken)
    splits["train"] = _rows("from_arrays.train", rest, order)
    return Data(splits["train"], splits["valid"], splits["test"], name)


def _rows(field: str, examples: Examples, index: np.ndarray[Any, Any]) -> Examples:
    if len(index) == 0:
        raise InputError(field, 0, "must hold at least one example", f"Share {examples_in(examples)} out differently.")
    rows: Examples = jax.tree.map(lambda a: a[index], examples)
    return rows


def stream(
    factory: Callable[[], Iterable[Any]], *, valid: Any, test: Any = None, name: str = "stream", block: int = 16
) -> Data:
    """Data whose train split does not fit: batches that the host draws while the devices compute.

    One batch a step feeds all lanes, so that all trials and all replicates see the same batches in the same order:
    replicates differ in their initialization and noise, not in the order of the data. ``randomness="independent"``
    and ``folds`` need a train split in memory. A ``Program.batch`` gets as ``train`` the batch of its step.

    Args:
      factory: ``factory()`` gives an iterable of batches from the first one on: ``lambda: loader`` of a Grain
        ``DataLoader``, of a ``MapDataset`` or an ``IterDataset``, a generator function, ... It must give the same
        batches at every call: it is called once at once for a look at the first batch, then by every wave of trials,
        in a thread of its own, and again where its batches come to an end before the steps do. For epochs in
        different orders give an iterator that goes on over all of them. A batch is a pair ``(x, y)``, which
        becomes ``Examples`` of float32, int32 or uint8, or for a program of your own any pytree of arrays; all have
        the same shapes and dtypes. NaN in them is no error.
      valid, test: the other splits, in memory: a pair ``(x, y)``, or as ``Data`` has them.
      name: what tables call the data.
      block: how many batches go to the devices together; these have room for two blocks. A device call makes no more
        steps than that.

    A checkpoint has the position in the stream. An iterator with ``get_state`` and ``set_state``, as Grain's, goes on
    from there; of any other as many batches are drawn and dropped.

    Raises:
      InputError: something that cannot be used, such as a batch that is none.
      RunError: the iterator fails.

    Example:
      >>> def batches():
      ...     rng = np.random.default_rng(0)
      ...     while True:
      ...         x = rng.normal(size=(8, 3))
      ...         yield x, x.sum(axis=1)
      >>> data = stream(batches, valid=(np.ones((4, 3)), np.full(4, 3.0)))
      >>> data.train.first.x.shape, str(data.train.first.x.dtype)
      ((8, 3), 'float32')
    """
    train = Stream(factory, name, block)
    _ = train.first  # what is wrong with it shows here
    return Data(train, _split("stream.valid", valid), _split("stream.test", test), name)


def _split(field: str, split: Any) -> Any:
    pair = type(split) in (tuple, list) and len(split) == 2
    return tidy_examples(field, *split) if pair else split


def digits() -> Data:
    """The 1,797 digits that scikit-learn bundles: x (examples, 64) in [0, 1], y in 0 … 9.

    Splits: 1,257 train, 270 valid, 270 test. E. Alpaydin and C. Kaynak, "Optical Recognition of
    Handwritten Digits", UCI, 1998.

    Raises:
      ImportError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise missing("hpx.data.digits()", "scikit-learn") from None
    x, y = load_digits(return_X_y=True)
    return from_arrays((x / 16).astype(np.float32), y, valid=0.15, test=0.15, name="digits")


def from_npz(
    path: str | Path, *, x: str = "x", y: str = "y", valid: float = 0.2, test: float = 0.2, seed: int = 0
) -> Data:
    """Data from a NumPy archive: arrays ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test``, ``y_test``.

    Args:
      path: the .npz file; it is read without unpickling.
      x, y: names of the arrays, or what comes before ``_train`` and ``_test``.
      valid, test, seed: as for ``from_arrays``; where the archive has a test part, ``test`` is not used.

    Raises:
      InputError: the file is not there, or it holds other arrays.
    """
    path = _existing(path, "from_npz.path")
    if not zipfile.is_zipfile(path):
        raise InputError(
            "from_npz.path", str(path), "must be a file that np.savez wrote", "Write np.savez(path, x=x, y=y)."
        )
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive)
        if x in names and y in names:
            return from_arrays(archive[x], archive[y], valid=valid, test=test, seed=seed, name=path.stem)
        if all(f"{array}_{part}" in names for array in (x, y) for part in ("train", "test")):
            own = (archive[f"{x}_test"], archive[f"{y}_test"])
            train = (archive[f"{x}_train"], archive[f"{y}_train"])
            return from_arrays(*train, valid=valid, test=own, seed=seed, name=path.stem)
    raise InputError(
        "from_npz.path",
        str(path),
        f"must hold {x!r} and {y!r}, or both with _train and _test; it holds {', '.join(names) or 'nothing'}",
        "Name the arrays: from_npz(path, x='images', y='labels').",
    )


def from_idx(folder: str | Path, *, valid: float = 0.2, test: float = 0.2, seed: int = 0) -> Data:
    """Data from a folder in the format of MNIST (idx, gzip or plain): x (examples, …, 1) in [0, 1], y int32.

    Reads ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte`` and, as the test split, the same
    with ``t10k``. Where only one of the two pairs is there, it is shared out.
    Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".

    Args:
      folder: where the files are, with or without ``.gz``.
      valid, test, seed: as for ``from_arrays``; where both pairs are there, ``test`` is not used.

    Raises:
      InputError: no pair is there, or a file is damaged.
    """
    folder = _existing(folder, "from_idx.folder")
    pairs = [pair for pair in (_idx_pair(folder, "train"), _idx_pair(folder, "t10k")) if pair is not None]
    if not pairs:
        raise InputError(
            "from_idx.folder",
            str(folder),
            "must hold train-images-idx3-ubyte and train-labels-idx1-ubyte, or t10k-…, plain or .gz",
            "Unpack the data set there.",
        )
    x, y = pairs[0]
    return from_arrays(x, y, valid=valid, test=pairs[1] if len(pairs) == 2 else test, seed=seed, name=folder.name)


def _existing(path: str | Path, field: str) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(field, str(path), "must exist", f"From here it means {path.absolute()}.")
    return path


def _idx_pair(folder: Path, part: str) -> Pair | None:
    files = []
    for stem in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        found = [folder / name for name in (stem, f"{stem}.gz") if (folder / name).exists()]
        if not found:
            return None
        files.append(found[0])
    images, labels = map(_read_idx, files)
    return images.astype(np.float32)[..., None] / 255, labels.astype(np.int32)


IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _read_idx(path: Path) -> np.ndarray[Any, Any]:
    def damaged(why: str) -> InputError:
        return InputError("from_idx", str(path), f"must be an idx file: {why}", "Fetch it again.")

    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise damaged(str(error)) from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise damaged("its first four bytes are no idx header")
    kind, axes = np.dtype(IDX_TYPES[content[2]]), content[3]
    if len(content) < 4 + 4 * axes:
        raise damaged("it ends within its header")
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    if len(content) - 4 - 4 * axes != kind.itemsize * int(np.prod(shape, dtype=object)):
        raise damaged(f"its size does not fit its shape {shape}")
    return np.frombuffer(content, kind, offset=4 + 4 * axes).reshape(shape)
