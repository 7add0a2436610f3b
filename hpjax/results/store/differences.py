"""What differs between the sweep of a run directory and another one, in words that say what to type."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hpjax.core.errors import RunError
from hpjax.results.store.files import LOCK, part_of
from hpjax.results.store.manifest import MANIFEST, Manifest, Setting, SweepRecord, read_manifest

# These fields of a sweep follow from its space, and are not reported where the space itself differs.
FOLLOWING = ("ranges", "options", "scales")
# These choose the points of a sweep, whose digest is not reported where one of them differs.
CHOOSING = ("space", "trials", "rounds", "sampler", "seed")


def differences(there: Any, here: Any) -> list[str]:
    """Returns what differs between two records or JSON values, a line each: ``trials: 256 there, 128 here``."""
    lines = list(_differences(_whole(there), _whole(here), ""))
    hidden = FOLLOWING + (("points",) if any(line.startswith(CHOOSING) for line in lines) else ())
    return [line for line in lines if not line.startswith(hidden)] or lines


def _whole(record: Any) -> Any:
    """Returns a record as JSON has it, with fields of their default values, which files leave out."""
    if not isinstance(record, msgspec.Struct):
        return record
    return {name: msgspec.to_builtins(getattr(record, name)) for name in record.__struct_fields__}


def _differences(there: Any, here: Any, at: str) -> Iterator[str]:
    """Yields what differs between two JSON values below the field ``at``."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in dict.fromkeys([*there, *here]):
            yield from _differences(there.get(name), here.get(name), f"{at}.{name}" if at else name)
    elif there != here and at == "code":
        yield "the program's code"
    elif there != here:
        yield f"{at}: {json.dumps(there)} there, {json.dumps(here)} here"


def how_to_set(there: Mapping[str, Setting], here: Mapping[str, Setting]) -> str:
    """Returns what to type to get the settings of a recorded sweep, as lines; empty where they are the same here."""
    apart = {name: value for name, value in there.items() if value != here.get(name)}
    calls = [f"\n  jax.config.update({name!r}, {value!r})" for name, value in apart.items()]
    return f"\nTo have the settings of JAX that it had, type{''.join(calls)}" if calls else ""


def matching_manifest(path: Path, manifest: Manifest) -> Manifest | None:
    """Returns the manifest of this sweep's run in a directory, None where the directory is free for a run.

    Args:
      path: the directory.
      manifest: the manifest of the sweep that is about to run.

    Raises:
      RunError: the directory holds something else.
    """
    if not path.exists():
        return None
    if not path.is_dir():
        raise RunError(f"{str(path)!r} is a file, not a run directory. Name a folder: runs/1.")
    if not (path / MANIFEST).exists():
        # A run that was interrupted right at its beginning leaves no more than these.
        if {each.name for each in path.iterdir()} - {LOCK, part_of(path / MANIFEST).name}:
            raise RunError(f"{str(path)!r} holds files but no run. Choose an empty or a new directory.")
        return None
    there = read_manifest(path)
    lines = differences(there.sweep, manifest.sweep)
    if lines:
        more = _extends(there.sweep, manifest.sweep)
        raise RunError(
            f"{str(path)!r} holds a different sweep. What differs:\n  "
            + "\n  ".join(lines)
            + how_to_set(there.sweep.settings, manifest.sweep.settings)
            + ("\nTo add to it: sweep.run(directory, extend=True), or hpjax run --extend." if more else "")
            + "\nChoose another directory, or run the sweep that is recorded there."
        )
    return there


def _extends(there: SweepRecord, here: SweepRecord) -> bool:
    """Returns whether a run of one sweep can become one of another that has more trials, or more steps."""
    apart = {name for name in there.__struct_fields__ if getattr(there, name) != getattr(here, name)}
    if apart == {"steps"} and isinstance(there.steps, int) and isinstance(here.steps, int):
        return here.steps > there.steps and len(there.rounds) == 1 and there.scheduler is None
    return apart <= {"trials", "rounds", "points"} and here.trials > there.trials and there.shard is None
