"""Loaders: each gives ``Data``, three disjoint splits, from arrays, files, bundled data or a stream of batches."""

import gzip
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hpjax.core.errors import InputError, missing
from hpjax.core.program import Data
from hpjax.core.scalars import as_python
from hpjax.data.examples import AnyExamples, examples_in, named_sets, own_split, tidy_examples
from hpjax.data.stream import Stream

Pair = tuple[Any, Any]
Split = Pair | tuple[Any, Any, Any]


def from_arrays(
    x: Any,
    y: Any,
    *,
    weights: Any = None,
    valid: float | Split | Mapping[str, Split] = 0.2,
    test: float | Split | Mapping[str, Split] | None = 0.2,
    seed: int = 0,
    name: str = "arrays",
) -> Data:
    """Returns data from arrays. Floats become float32, integers int32; uint8 stays uint8.

    Float16 and bfloat16 become float32, too: to compute in them, give the model a ``dtype``. With ``jax_enable_x64``
    float64 stays float64.

    Args:
      x: inputs: an array (examples, ...), or a pytree of such arrays.
      y: targets, likewise; integer labels for classification.
      weights: what each example or token counts in the means of losses and metrics, (examples,) or (examples, tokens,
        ...): finite, 0 or more, not all 0. ``supervised`` takes them into account. None counts all examples alike.
      valid, test: for each split, the share of the examples that it takes, a number between 0 and 1; or its own pair
        (x, y) or triple (x, y, weights), of which a pair counts its examples alike; or several sets, a dict of name to
        such tuples: ``{"clean": (x, y), "shifted": (x, y)}``, whose metrics are ``valid/clean/loss`` and so on. Shares
        are drawn at random and disjoint; the remaining examples are the training split, in the order of the drawing.
        Where no share is drawn, the training split is ``x`` and ``y`` as they are. ``test=None`` makes no test split.
      seed: decides which example falls in which split, and nothing else.
      name: the name of the data in tables.

    Returns:
      ``Data`` whose splits are ``Examples``, or with weights ``WeightedExamples``, of NumPy arrays.

    Raises:
      InputError: lengths differ, a value is NaN or infinite, a weight is negative, or a split is empty.

    Example:
      >>> data = from_arrays(np.zeros((10, 3)), np.zeros(10, int), valid=0.2, test=0.1)
      >>> data.train.x.shape, data.valid.x.shape, data.test.x.shape
      ((7, 3), (2, 3), (1, 3))
      >>> from_arrays(np.zeros((10, 3)), np.zeros(10, int), weights=np.ones(10)).train.weights.shape
      (6,)
    """
    rest = tidy_examples("from_arrays", x, y, weights)
    count = examples_in(rest)
    order = np.random.default_rng(seed).permutation(count)
    splits = {}
    for split, given in (("valid", valid), ("test", test)):
        own = own_split(f"from_arrays.{split}", given)
        if own is not given:
            splits[split] = own
            continue
        given = as_python(given)
        if split == "test" and given is None:
            splits[split] = None
            continue
        if not isinstance(given, int | float) or not 0 < given < 1:
            optional = split == "test"
            raise InputError(
                f"from_arrays.{split}",
                given,
                "must be a share between 0 and 1, a pair (x, y), a triple (x, y, weights), a dict of name to these"
                + optional * ", or None",
                f"Write {split}=0.2" + optional * ", or test=None for no test split" + ".",
            )
        taken, order = order[: round(given * count)], order[round(given * count) :]
        splits[split] = _rows(f"from_arrays.{split}", rest, taken)
    splits["train"] = _rows("from_arrays.train", rest, order) if len(order) < count else rest
    return Data(splits["train"], splits["valid"], splits["test"], name)


def _rows(field: str, examples: AnyExamples, index: np.ndarray[Any, Any]) -> AnyExamples:
    if len(index) == 0:
        remedy = f"Write valid=0.2 and test=0.2, or give more than {examples_in(examples)} examples."
        raise InputError(field, 0, "must hold at least one example", remedy)
    rows: AnyExamples = jax.tree.map(lambda a: a[index], examples)
    return rows


def stream(
    factory: Callable[..., Iterable[Any]], *, valid: Any, test: Any = None, name: str = "stream", block: int = 16
) -> Data:
    """Returns data whose training split does not fit in memory: the host draws batches while the devices compute.

    All lanes share the batch of a step, so that all trials and all replicates see the same batches in the same order:
    replicates differ in their initialization and noise, not in the order of the data. ``randomness="independent"``
    and ``folds`` need a training split in memory. A ``Program.batch`` gets the batch of its step as ``train``.

    Checkpoints record the position in the stream. On resuming, an iterator with ``get_state`` and ``set_state``, such
    as Grain's, continues from that position; with any other the batches before it are drawn and dropped.

    Args:
      factory: ``factory()`` returns an iterable of batches that begins with the first one: ``lambda: loader`` for a
        Grain ``DataLoader``, ``MapDataset`` or ``IterDataset``, or a generator function. It must give the same batches
        at every call: it is called immediately to see the first batch, then for each wave of trials, in a thread of its
        own, and again whenever the batches end before the steps do. For epochs in different orders, return an iterator
        that continues over all epochs. A batch is a pair ``(x, y)``, which becomes ``Examples`` of float32, int32 or
        uint8; a triple ``(x, y, weights)`` with float weights, as for ``from_arrays``, which becomes
        ``WeightedExamples``; or for a program of your own any pytree of arrays. All batches have the same shapes and
        dtypes. A NaN in a batch is no error. Or ``factory(index, count)``, which gives of each batch only part
        ``index`` of ``count`` equal ones in the order of its examples: where a lane spans several hosts, each draws
        what its devices need. It is called with 0 and 1 for the first batch, and where there are no parts to draw.
      valid, test: the other splits, in memory: ``(x, y)``, ``(x, y, weights)``, or a dict of name to such tuples as for
        ``from_arrays``; or any pytree of arrays (examples, ...), as which a triple is read where batches are none.
      name: the name of the data in tables.
      block: number of batches that are copied to the devices together. Each device holds two blocks, and a device call
        makes at most ``block`` calls of ``step``.

    Returns:
      ``Data`` whose ``train`` is a ``Stream``.

    Raises:
      InputError: an argument that cannot be used, or a first batch that holds no arrays of numbers.
      RunError: the iterator raised an error.

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
    first = train.first  # drawn now, so that a wrong factory fails here and not in the middle of a run

    def own(field: str, given: Any) -> Any:
        """Reads a triple as weighted examples only where batches are examples, too."""
        return own_split(field, given) if isinstance(first, AnyExamples) or not _has_triples(given) else given

    return Data(train, own("stream.valid", valid), own("stream.test", test), name)


def _has_triples(given: Any) -> bool:
    return any(type(split) in (tuple, list) and len(split) == 3 for split in named_sets(given).values())


def digits() -> Data:
    """Returns the 1,797 handwritten digits that scikit-learn bundles, of 8 × 8 pixels.

    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.

    Returns:
      ``Data`` with 1,257 examples in ``train``, 270 in ``valid`` and 270 in ``test``: x is float32 (examples, 64) in
      [0, 1], y int32 (examples,) in 0 … 9.

    Raises:
      ImportError: scikit-learn is not installed.

    Example:
      >>> digits().train.x.shape
      (1257, 64)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise missing("hpx.data.digits()", "scikit-learn") from None
    x, y = load_digits(return_X_y=True)
    return from_arrays((x / 16).astype(np.float32), y, valid=0.15, test=0.15, name="digits")


def from_npz(
    path: str | Path, *, x: str = "x", y: str = "y", valid: float = 0.2, test: float | None = 0.2, seed: int = 0
) -> Data:
    """Returns data from a NumPy archive.

    The archive has arrays ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Args:
      path: the .npz file; it is read without unpickling.
      x, y: names of the arrays (examples, ...), or the part of their names before ``_train`` and ``_test``.
      valid, test: the share of the examples that each split takes, a number between 0 and 1; ``test=None`` makes no
        test split. ``test`` is not used where the archive has a test part.
      seed: decides which example falls in which split.

    Returns:
      ``Data`` as ``from_arrays`` gives it, named after the file.

    Raises:
      InputError: the file does not exist, is no archive, or holds other arrays.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "toy.npz"
      >>> np.savez(path, x=np.zeros((10, 3)), y=np.zeros(10, int))
      >>> from_npz(path).train.x.shape
      (6, 3)
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
        "Write from_npz(path, x='images', y='labels') with the names of your arrays.",
    )


def from_idx(folder: str | Path, *, valid: float = 0.2, test: float | None = 0.2, seed: int = 0) -> Data:
    """Returns data from a folder of idx files, the format of MNIST.

    The files are ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte`` and, for the test split, the same two with
    ``t10k`` in place of ``train``; each may be compressed, with ``.gz`` at the end of its name. Where only one of the
    two pairs exists, its examples are divided among all splits.

    Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits".

    Args:
      folder: the folder of the files.
      valid, test: the share of the examples that each split takes, a number between 0 and 1; ``test=None`` makes no
        test split. ``test`` is not used where both pairs exist.
      seed: decides which example falls in which split.

    Returns:
      ``Data`` named after the folder: x is float32 (examples, height, width, 1) in [0, 1], y int32 (examples,).

    Raises:
      InputError: no pair exists, or a file is damaged.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> images = bytes([0, 0, 8, 3]) + struct.pack(">3I", 10, 2, 2) + bytes(10 * 2 * 2)
      >>> labels = bytes([0, 0, 8, 1]) + struct.pack(">1I", 10) + bytes(10)
      >>> _ = (folder / "train-images-idx3-ubyte").write_bytes(images)
      >>> _ = (folder / "train-labels-idx1-ubyte").write_bytes(labels)
      >>> from_idx(folder).train.x.shape
      (6, 2, 2, 1)
    """
    folder = _existing(folder, "from_idx.folder")
    pairs = [pair for pair in (_idx_pair(folder, "train"), _idx_pair(folder, "t10k")) if pair is not None]
    if not pairs:
        raise InputError(
            "from_idx.folder",
            str(folder),
            "must hold train-images-idx3-ubyte and train-labels-idx1-ubyte, or t10k-…, plain or .gz",
            "Write from_idx(folder) with the folder that has these files.",
        )
    x, y = pairs[0]
    return from_arrays(x, y, valid=valid, test=pairs[1] if len(pairs) == 2 else test, seed=seed, name=folder.name)


def _existing(path: str | Path, field: str) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(field, str(path), "must exist", f"Write a path that exists; this one means {path.absolute()}.")
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
        return InputError("from_idx", str(path), f"must be an idx file: {why}", "Download the file again.")

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
