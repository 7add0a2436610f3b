"""The manifest of a run directory, which says what the run is: written, read, and compared."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hpjax.core.errors import RunError
from hpjax.results.store.files import LOCK, guard, part_of, write_text
from hpjax.results.store.validation import Field, check, is_real, is_text, is_whole, list_of, read_json

MANIFEST, FORMAT = "manifest.json", 2
# Of what a manifest says of a sweep this follows from the space, and need not be told beside what that differs in.
FOLLOWING = ("ranges", "options", "scales")


_command: ContextVar[Sequence[str] | None] = ContextVar("command", default=None)


@contextmanager
def recording_command(words: Sequence[str]) -> Iterator[None]:
    """Has manifests that are written in its body record this command.

    Without it they record ``sys.argv``, which is another command where the command line runs within a program.
    """
    before = _command.set(words)
    try:
        yield
    finally:
        _command.reset(before)


def origin() -> dict[str, Any]:
    """Returns when and by which command something is written, for its manifest."""
    command, argv = _command.get(), sys.argv
    if command is None:
        command = [Path(argv[0]).name, *argv[1:]] if argv else []
    return {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "command": [*command]}


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest of a run directory."""
    write_text(directory / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a run directory.

    Raises:
      RunError: there is none, or it cannot be read.
    """
    guard(directory)
    path = directory / MANIFEST
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        raise RunError(
            f"{str(directory)!r} is no run directory: it has no {MANIFEST}. Name the folder of a run."
        ) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RunError(f"{path} is no manifest of format {FORMAT}.")
    check_manifest(str(path), manifest)
    return manifest


def differences(there: Any, here: Any, at: str = "") -> list[str]:
    """What differs between two JSON values, a line each: ``trials: 256 there, 128 here``."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = dict.fromkeys([*there, *here])
        lines = [
            line
            for name in names
            for line in differences(there.get(name), here.get(name), f"{at}.{name}" if at else str(name))
        ]
        return lines if at else [line for line in lines if not line.startswith(FOLLOWING)] or lines
    return [] if there == here else [f"{at}: {json.dumps(there)} there, {json.dumps(here)} here"]


PART = re.compile("[0-9]{1,9}/[0-9]{1,9}")


SCALES = ("linear", "log", "reverse log", "category")


def _is_dict(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(fits, value.values()))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(is_real, value[:2])) and value[2] in SCALES


# Of the manifest all that is read again, and what each must be.
_NUMBER = Field(lambda v: is_whole(v, 1), "a whole number, 1 or more")


FIELDS = {
    "created": Field(is_text, "a time"),
    "command": Field(lambda v: isinstance(v, list) and all(isinstance(word, str) for word in v), "a list of words"),
    "versions": Field(lambda v: _is_dict(v, is_text), "a version for each package"),
    "plan": Field(lambda v: isinstance(v, list) and all(isinstance(line, str) for line in v), "a list of lines"),
    "extended": Field(is_whole, "a whole number, 0 or more"),
    "extended_by": Field(
        lambda v: isinstance(v, list) and all(isinstance(c, list) and all(isinstance(w, str) for w in c) for c in v),
        "a list of lists of words",
    ),
    "sweep.names": Field(list_of(lambda v: is_text(v) and v.isidentifier()), "a list of names"),
    "sweep.metrics": Field(list_of(is_text), "a list of names"),
    "sweep.scales": Field(
        lambda v: isinstance(v, dict) and all(scale in SCALES for scale in v.values()),
        f"one of {', '.join(SCALES)} for each name",
    ),
    "sweep.space": Field(
        lambda v: isinstance(v, dict) and all(_is_dict(each, is_text) for each in v.values()),
        "a domain for each name of each alternative",
    ),
    "sweep.ranges": Field(
        lambda v: isinstance(v, list) and all(_is_dict(each, _is_range) for each in v),
        "low, high and scale of names of each alternative",
    ),
    "sweep.options": Field(
        lambda v: isinstance(v, list) and all(_is_dict(each, _are_texts) for each in v),
        "the options of names of each alternative",
    ),
    "sweep.program": Field(lambda v: _is_dict(v, lambda each: isinstance(each, str)), "names with what they are"),
    "sweep.trials": _NUMBER,
    "sweep.rounds": Field(
        lambda v: isinstance(v, list) and len(v) > 0 and all(is_whole(n, 1) for n in v), "a list of numbers"
    ),
    "sweep.replicates": _NUMBER,
    "sweep.width": Field(
        lambda v: isinstance(v, list) and len(v) > 0 and all(is_whole(n, 1) for n in v), "a list of numbers"
    ),
    "sweep.kernels": Field(
        lambda v: isinstance(v, list) and len(v) > 0 and all(each in ("batched", "xla") for each in v),
        "a list of batched or xla",
    ),
    "sweep.folds": Field(lambda v: v is None or is_whole(v, 1), "null, or a whole number, 1 or more"),
    "sweep.shard": Field(
        lambda v: v is None or list_of(lambda each: isinstance(each, str) and PART.fullmatch(each) is not None)(v),
        "null, or a list of shards such as 1/4",
    ),
    "sweep.objective": Field(
        lambda v: (
            isinstance(v, list)
            and len(v) == 3
            and is_text(v[0])
            and v[1] in ("minimize", "maximize")
            and (v[2] is None or (is_real(v[2]) and 0 <= v[2] <= 1))
        ),
        "a metric, minimize or maximize, and null or a quantile",
    ),
}


def check_manifest(where: str, manifest: Any) -> None:
    """Makes sure that all that is read of a manifest is what it must be.

    Raises:
      RunError: it is not; names the field.
    """
    check(where, manifest, FIELDS)
    sweep = manifest["sweep"]
    if sweep["scales"].keys() != {*sweep["names"]}:
        raise RunError(f"{where}: sweep.scales must have the names in sweep.names. It is damaged.")
    for name in ("ranges", "options"):
        if len(sweep[name]) != len(sweep["space"]):
            raise RunError(f"{where}: sweep.{name} must have the alternatives of sweep.space. It is damaged.")
    if sum(sweep["rounds"]) != sweep["trials"]:
        raise RunError(f"{where}: sweep.rounds must add up to sweep.trials. It is damaged.")
    if sweep["objective"][0] not in sweep["metrics"]:
        raise RunError(f"{where}: sweep.objective must be one of sweep.metrics. It is damaged.")


def recorded_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in a directory, None where there is no run."""
    return read_manifest(path) if (path / MANIFEST).is_file() else None


def recorded(path: Path, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the run of this sweep that is in a directory, None where the directory is free for one.

    Raises:
      RunError: the directory holds something else.
    """
    if not path.exists():
        return None
    if not path.is_dir():
        raise RunError(f"{str(path)!r} is a file, not a run directory. Choose another name.")
    if not (path / MANIFEST).exists():
        # A run that was interrupted at once leaves no more than these.
        if {each.name for each in path.iterdir()} - {LOCK, part_of(path / MANIFEST).name}:
            raise RunError(f"{str(path)!r} holds files but no run. Choose an empty or a new directory.")
        return None
    there = read_manifest(path)
    lines = differences(there.get("sweep"), manifest["sweep"])
    if lines:
        raise RunError(
            f"{str(path)!r} holds a different sweep. What differs:\n  "
            + "\n  ".join(lines)
            + "\nChoose another directory, or make the sweep what it was."
        )
    return there
