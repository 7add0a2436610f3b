"""Export: the parameters of one trained lane, by name, as a file that other tools read."""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.core.errors import InputError, RunError, missing
from hpjax.results.store.files import write_for_user, writing_for_user

Writer = Callable[[dict[str, Any], dict[str, str]], bytes]


def write(path: Path, tree: dict[str, Any], header: Mapping[str, str]) -> None:
    """Writes nested dicts of arrays to a file, in the format that its suffix names.

    Args:
      path: the file.
      tree: name to array, or to such a dict.
      header: texts that describe the arrays; a ``.msgpack`` file has no place for them.

    Raises:
      ImportError: the format needs a package that is not installed.
      InputError: the suffix is another one.
      RunError: two arrays would have one name, or the file cannot be written.
    """
    content = _writer(path)(tree, {"hpjax": version("hpjax"), **header})
    with writing_for_user(path, "trial.export(FILE), or hpjax export DIR --params FILE"):
        write_for_user(path, content)


def check_path(path: Path) -> None:
    """Raises ``InputError`` unless the suffix of a file names a format."""
    _writer(path)


def _writer(path: Path) -> Writer:
    if path.suffix not in WRITERS:
        allowed = f"must end in {' or '.join(WRITERS)}"
        raise InputError("Trial.export.path", str(path), allowed, 'Write trial.export("model.safetensors").')
    return WRITERS[path.suffix]


def exported(state: Any, supervised: bool) -> dict[str, Any]:
    """Returns what to export of a final state, as nested dicts of arrays whose keys are strings.

    Args:
      state: as ``Trial.restore`` returns it.
      supervised: whether it is of a supervised program, of which only what evaluation uses is exported.

    Raises:
      RunError: a collection of the model has the name of the parameters.
    """
    if not isinstance(state, dict):
        return {"state": state}
    if not supervised:
        return dict(_by_name(state))
    stats = _by_name(state.get("stats", {}))
    if "params" in stats:
        raise RunError(
            "the model has a collection called params, which the parameters would hide. "
            "Read both by trial.restore()['stats'] and trial.restore()['params']."
        )
    return {"params": _by_name(state.get("average", state.get("params", {}))), **stats}


def _by_name(tree: Any) -> Any:
    """Returns nested dicts with strings as keys; positions in lists become strings."""
    return {str(name): _by_name(part) for name, part in tree.items()} if isinstance(tree, dict) else tree


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the arrays of nested dicts, each with its path joined by dots."""
    for name, part in tree.items():
        if isinstance(part, dict):
            yield from _flat(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", np.asarray(part, order="C")


def _safetensors(tree: dict[str, Any], header: dict[str, str]) -> bytes:
    try:
        from safetensors.numpy import save
    except ImportError:
        raise missing("a .safetensors file", "safetensors") from None
    arrays = list(_flat(tree))
    if len(dict(arrays)) < len(arrays):
        raise RunError("two arrays would have one name, since names hold dots: write a .msgpack file.")
    return save(dict(arrays), header)


def _msgpack(tree: dict[str, Any], header: dict[str, str]) -> bytes:
    from flax.serialization import msgpack_serialize

    content: bytes = msgpack_serialize(tree)
    return content


WRITERS: dict[str, Writer] = {".safetensors": _safetensors, ".msgpack": _msgpack}
