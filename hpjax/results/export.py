"""Export: the parameters of one trained lane, by name, as a file that other tools read."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpjax.core.errors import InputError, RunError
from hpjax.core.format import show
from hpjax.results.store.files import write_bytes

if TYPE_CHECKING:
    from hpjax.results.trial import Trial


def write(trial: "Trial", path: Path, replicate: int) -> None:
    """Writes what ``Trial.export`` says.

    Raises: as there.
    """
    if path.suffix not in WRITERS:
        raise InputError("Trial.export.path", str(path), f"must end in {' or '.join(WRITERS)}", "Name it so.")
    write_bytes(path, WRITERS[path.suffix](_exported(trial, replicate), _about(trial, replicate)))


def _exported(trial: "Trial", replicate: int) -> dict[str, Any]:
    """What evaluation uses of a supervised program's state, of others the whole of it, as nested dicts."""
    state = trial.restore(replicate)
    if not isinstance(state, dict):
        return {"state": state}
    if trial.result.manifest.sweep.program.get("kind") != "supervised":
        return dict(_by_name(state))
    stats = _by_name(state.get("stats", {}))
    if "params" in stats:
        raise RunError("the model has a part called params, which the parameters would hide: use restore().")
    return {"params": _by_name(state.get("average", state.get("params", {}))), **stats}


def _by_name(tree: Any) -> Any:
    """Nested dicts whose keys are strings: positions in lists become those."""
    return {str(name): _by_name(part) for name, part in tree.items()} if isinstance(tree, dict) else tree


def _about(trial: "Trial", replicate: int) -> dict[str, str]:
    hparams = {f"hparams.{name}": show(value) for name, value in trial.hparams.items()}
    return {"hpjax": version("hpjax"), "trial": str(trial.id), "replicate": str(replicate)} | hparams


def _named(tree: dict[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in tree.items():
        if isinstance(part, dict):
            yield from _named(part, f"{within}{name}.")
        else:
            yield f"{within}{name}", np.asarray(part, order="C")


def _safetensors(tree: dict[str, Any], about: dict[str, str]) -> bytes:
    try:
        from safetensors.numpy import save
    except ImportError:
        raise ImportError("a .safetensors file needs safetensors: pip install 'hpjax[safetensors]'") from None
    arrays = list(_named(tree))
    if len(dict(arrays)) < len(arrays):
        raise RunError("two arrays would have one name, since names hold dots: write a .msgpack file.")
    return save(dict(arrays), about)


def _msgpack(tree: dict[str, Any], about: dict[str, str]) -> bytes:
    from flax.serialization import msgpack_serialize

    content: bytes = msgpack_serialize(tree)
    return content


WRITERS = {".safetensors": _safetensors, ".msgpack": _msgpack}
