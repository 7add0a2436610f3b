"""Checks of the arguments of ``hpx.supervised``: its data, batch sizes and functions."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from hpjax.core.errors import InputError, check_int, did_you_mean
from hpjax.core.format import show
from hpjax.core.program import Data
from hpjax.data.examples import AnyExamples, named_sets, tidy_examples
from hpjax.data.stream import Stream, first_batch_of
from hpjax.data.windows import Windows
from hpjax.training.arguments import Context, taken
from hpjax.training.measures import check_metrics
from hpjax.training.model import required_arguments
from hpjax.training.monitors import CURVATURE, KNOWN, OF_PARTS
from hpjax.training.weighting import TAKES


def check_kind(data: Any) -> None:
    """Raises ``InputError`` unless ``data`` is ``Data`` of examples."""
    if isinstance(data, Data) and isinstance(first_batch_of(data.train), AnyExamples | Windows):
        return
    found = f"Data of {type(first_batch_of(data.train)).__name__}" if isinstance(data, Data) else show(data)
    allowed = "must be Data of Examples"
    raise InputError("supervised.data", found, allowed, "Write data=hpx.data.from_arrays(x, y).")


def check_batches(data: Data, batch_size: Any, microbatch: Any, monitor: Any) -> None:
    """Raises ``InputError`` unless batch sizes are given where they are needed, and monitors exist."""
    streamed = isinstance(data.train, Stream)
    for name, number in (("batch_size", batch_size), ("microbatch", microbatch)):
        if streamed and number is not None:
            allowed = "must be left out with a stream, whose batches have a size of their own"
            raise InputError(f"supervised.{name}", number, allowed, f"Remove {name}={number!r}.")
    if getattr(batch_size, "__module__", "").startswith(("optax.", "hpjax.optim.")):
        allowed = "is a schedule, and of h a function is wanted: of a ramp one that gives the schedule"
        raise InputError("supervised.batch_size", show(batch_size), allowed, "Write batch_size=lambda h: schedule.")
    if batch_size is None and not streamed:
        raise InputError("supervised.batch_size", None, "must be given", "Write batch_size=64.")
    for name in monitor:
        if name not in KNOWN or isinstance(monitor, str):
            known = did_you_mean(str(name), KNOWN)
            raise InputError("supervised.monitor", monitor, "must be a list of monitors", known)
        if name in CURVATURE and streamed:
            allowed = "needs a training split, and a stream has none"
            raise InputError("supervised.monitor", name, allowed, "Remove it, or give data of hpx.data.from_arrays.")
    if OF_PARTS in monitor and microbatch is None:
        allowed = "needs microbatches, whose gradients it compares"
        raise InputError("supervised.monitor", OF_PARTS, allowed, "Write microbatch=16, less than each batch size.")


def check_functions(metrics: Any, split_metrics: Any, penalty: Any, augment: Any) -> None:
    """Raises ``InputError`` unless metrics, penalty and augmentation are functions whose arguments hpjax knows."""
    for field, given, example in (("metrics", metrics, "accuracy"), ("split_metrics", split_metrics, "auc")):
        constant = given is None or isinstance(given, Mapping)
        if not constant and (not callable(given) or len(required_arguments(given)) > 1):
            raise InputError(
                f"supervised.{field}",
                show(given),
                "must be a dict of name to function, or a function of h that returns one",
                f'Write {field}={{"{example}": hpx.metrics.{example}}}.',
            )
    reserved = ["loss"] if penalty is None else ["loss", "penalty"]
    known: tuple[str, ...] = Context._fields
    if isinstance(metrics, Mapping):
        check_metrics(metrics, reserved)
        for name, function in metrics.items():
            taken(f"supervised.metrics[{name!r}]", function, known)
        reserved += metrics
    if isinstance(split_metrics, Mapping):
        check_metrics(split_metrics, reserved, "split_metrics")
        for name, function in split_metrics.items():
            taken(f"supervised.split_metrics[{name!r}]", function, (*known, "weights"))
    for name, function, signature in (("penalty", penalty, "params"), ("augment", augment, "key, batch")):
        if function is not None and not callable(function):
            allowed, remedy = "must be a function whose last argument is h", f"Write {name}=lambda {signature}, h: ..."
            raise InputError(f"supervised.{name}", function, allowed, remedy)


def check_weights(data: Data, weights: Any, ignore_label: Any, monitor: Collection[str]) -> None:
    """Raises ``InputError`` unless the arguments that weigh examples can be used with the data and the monitors."""
    if weights is not None:
        names = list(inspect.signature(weights).parameters) if callable(weights) else []
        if not names or not set(names) <= set(TAKES):
            allowed = f"must be a function that takes some of {', '.join(TAKES)} by these names"
            raise InputError("supervised.weights", show(weights), allowed, "Write weights=lambda y: y >= 0.")
    if ignore_label is not None:
        check_int("supervised.ignore_label", ignore_label, least=-(2**31))
        ys = _targets(data)
        if ys is None:
            allowed = "needs targets that are one array of integers"
            raise InputError("supervised.ignore_label", ignore_label, allowed, "Write weights=lambda y: ... instead.")
        if any((y == ignore_label).all() for y in ys):
            allowed = "is the only label of a split, so that nothing would be left to count"
            raise InputError("supervised.ignore_label", ignore_label, allowed, "Give another label, or more examples.")
    weighted = first_batch_of(data.train).weights is not None
    if OF_PARTS in monitor and (weighted or weights is not None or ignore_label is not None):
        allowed = "compares means of equal weights"
        raise InputError("supervised.monitor", OF_PARTS, allowed, "Remove it, or weights and ignore_label.")


def checked_data(data: Data, augmented: bool) -> Data:
    """Returns ``data`` with every set of every split checked, with arrays of float32, int32 or uint8.

    Args:
      data: the splits.
      augmented: whether training batches are augmented, and so may have other shapes than the other splits.

    Raises:
      InputError: lengths differ, a value is not finite, a split is empty or has inputs of another shape.
    """
    train = data.train if isinstance(data.train, Stream) else _checked_set("data.train", data.train, None)
    like = None if augmented else ("train", first_batch_of(train))
    valid = _checked_split("data.valid", data.valid, like)
    like = like or ("valid", next(iter(named_sets(valid).values())))
    test = None if data.test is None else _checked_split("data.test", data.test, like)
    return Data(train, valid, test, name=data.name)


def _checked_split(field: str, split: Any, like: tuple[str, Any] | None) -> Any:
    """Returns a split of one set, or of several in a dict, with every set checked; all must have the same shapes."""
    if not isinstance(split, Mapping):
        return _checked_set(field, split, like)
    for name in split or [""]:
        if not isinstance(name, str) or not name or "/" in name:
            allowed = "must be a dict of names without slashes to Examples"
            raise InputError(field, list(split), allowed, 'Write {"clean": (x, y), "shifted": (x, y)}.')
    found = {}
    for name, examples in split.items():
        found[name] = _checked_set(f"{field}[{name!r}]", examples, like)
        like = like or (f"{field.removeprefix('data.')}[{name!r}]", found[name])
    return found


def _checked_set(field: str, examples: Any, like: tuple[str, Any] | None) -> AnyExamples | Windows:
    """Returns examples with dtypes that JAX takes; their shapes must be those of ``like``, if that is given by name."""
    if not isinstance(examples, AnyExamples | Windows):
        allowed = "must be Examples(x, y)"
        raise InputError(field, type(examples).__name__, allowed, "Write hpx.data.Examples(x, y).")
    checked = examples if isinstance(examples, Windows) else tidy_examples(field, *examples)
    if like is None:
        return checked
    other, given = like
    shapes, first = ([a.shape[1:] for a in jax.tree.leaves((each.x, each.y))] for each in (checked, given))
    if shapes != first:
        wanted = next((b for a, b in zip(shapes, first, strict=False) if a != b), first[0])
        allowed = f"must have the shapes {first} for each example, as {other}"
        remedy = f"Write .reshape({(-1, *wanted)}) behind the array that differs."
        if len(shapes) != len(first):
            remedy = f"Give {field} as many arrays as {other}" + (", or test=None." if "test" in field else ".")
        raise InputError(field, shapes, allowed, remedy)
    return checked


def check_batch_size(size: Any, examples: int) -> int:
    """Returns ``size`` as an int; raises ``InputError`` unless it lies between 1 and ``examples``."""
    number = check_int("batch_size", size)
    if number > examples:
        raise InputError(
            "batch_size",
            number,
            f"must be at most {examples}, the size of the training split",
            f"Write batch_size={examples} for full batches, or give more data.",
        )
    return number


def label_range(data: Data, ignored: int | None = None) -> tuple[int, int] | None:
    """Returns the lowest and the highest label of all splits, or None where targets are no array of integers.

    Args:
      data: the checked splits.
      ignored: a label that does not count.
    """
    ys = _targets(data)
    if ys is None:
        return None
    counted = [y if ignored is None else y[y != ignored] for y in ys]
    return min(int(y.min()) for y in counted), max(int(y.max()) for y in counted)


def _targets(data: Data) -> list[Any] | None:
    """Returns the targets of each set, or None unless all are arrays of integers."""
    splits = [first_batch_of(data.train), *(s for s in (data.valid, data.test) if s is not None)]
    sets = [examples for split in splits for examples in named_sets(split).values()]
    # The targets of windows repeat where these overlap: each is looked at once, in the text.
    ys = [each.tokens[1:] if isinstance(each, Windows) else each.y for each in sets]
    return ys if all(isinstance(y, np.ndarray) and np.issubdtype(y.dtype, np.integer) for y in ys) else None
