"""Merging: the run directories of a sweep's shards become one, as if one job had trained all their trials."""

import os
import shutil
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from hpjax.core.errors import InputError, RunError
from hpjax.core.format import count
from hpjax.results.result import Result, load
from hpjax.results.store.manifest import differences, origin, read_manifest
from hpjax.results.store.rows import NO_WAVE, Change, Planned
from hpjax.results.store.run_store import STATES, Store

# Of trials that are there twice, so many are named.
NAMED = 10


class ShardRun(NamedTuple):
    """A run directory to merge.

    Attributes:
      path: where it is.
      manifest: what it says of itself.
      store: its database and states.
      rows: every trial of the sweep.
      own: the trials that it trained.
    """

    path: Path
    manifest: dict[str, Any]
    store: Store
    rows: list[Planned]
    own: set[int]


def merge(directories: Iterable[str | Path], out: str | Path) -> Result:
    """Joins finished shards of one sweep.

    Args:
      directories: the run directories of the shards, in any order; merged ones too.
      out: where to write, a new or an empty directory. It is there as a whole or not at all, and
        ``sweep.run(out)`` of the sweep without shards reads it, once no trial is in another shard any more.

    Returns:
      The result of ``out``.

    Raises:
      RunError: a run is not finished, the sweeps differ, a trial is in two of them, or ``out`` cannot be written.

    Example:
      >>> import tempfile
      >>> runs = tempfile.mkdtemp()
      >>> for number in (1, 2):
      ...     half = hpx.Sweep(program, space, trials=4, shard=(number, 2)).run(f"{runs}/{number}", progress=False)
      >>> half.statuses.tolist()
      ['other_shard', 'complete', 'other_shard', 'complete']
      >>> hpx.merge([f"{runs}/1", f"{runs}/2"], f"{runs}/whole").statuses.tolist()
      ['complete', 'complete', 'complete', 'complete']
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{str(out)!r} is there already, and not empty. Choose a new or an empty directory.")
    parts = [_opened(Path(directory)) for directory in directories]
    try:
        if not parts:
            raise InputError("merge.directories", [], "must be run directories", "Give those of the shards.")
        _check(parts)
        # Whatever the order in which they were given, and in how many steps they are merged.
        _write(sorted(parts, key=lambda part: min(part.own)), out)
    finally:
        for part in parts:
            part.store.close()
    return load(out)


def _opened(path: Path) -> ShardRun:
    manifest = read_manifest(path)
    store = Store.open(path)
    try:
        store.check(manifest["sweep"]["replicates"])
        rows = store.trials()
        own = {row.trial for row in rows if row.wave != NO_WAVE}
        if manifest["sweep"]["shard"] is None:
            raise RunError(f"{str(path)!r} holds a whole sweep, and no shard of one. Leave it out.")
        if store.ends() <= manifest["extended"]:
            raise RunError(f"{str(path)!r} is not finished. Run its shard again: it goes on where it was interrupted.")
        if not own or [row.trial for row in rows] != list(range(manifest["sweep"]["trials"])):
            raise RunError(f"{str(path)!r} cannot be read: trials are missing.")
        for wave in sorted({row.wave for row in rows} - {NO_WAVE}):
            if not (path / STATES / f"wave-{wave}").is_dir():
                raise RunError(f"{str(path)!r} cannot be read: the states of wave {wave} are missing.")
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read: damaged, or of another version ({error!r}).") from None
    return ShardRun(path, manifest, store, rows, own)


def _check(parts: Sequence[ShardRun]) -> None:
    """Checks that these are shards of one sweep, and that none has a trial of another."""
    first, *others = ({n: v for n, v in part.manifest["sweep"].items() if n != "shard"} for part in parts)
    for part, sweep in zip(parts[1:], others, strict=True):
        if lines := differences(first, sweep):
            raise RunError(
                f"{str(part.path)!r} holds a different sweep than {str(parts[0].path)!r}. What differs, of the latter "
                "there and of the former here:\n  "
                + "\n  ".join(lines)
                + "\nMerge shards of one sweep. Where machines chose different widths, run all shards with one --width."
            )
    for a, b in combinations(parts, 2):
        if both := sorted(a.own & b.own):
            named = ", ".join(map(str, both[:NAMED])) + (", …" if len(both) > NAMED else "")
            raise RunError(
                f"{count(len(both), 'trial')} ({named}) are both in {str(a.path)!r} and in {str(b.path)!r}. "
                "Leave one of them out."
            )


def _write(parts: Sequence[ShardRun], out: Path) -> None:
    """Writes beside ``out``, and renames at the end."""
    target = out.absolute()
    beside = target.with_name(f"{target.name}.part-{os.getpid()}")
    if beside.exists():
        raise RunError(f"{str(beside)!r} is in the way: what is left of a merge that was interrupted. Delete it.")
    try:
        store = Store.create(beside, _manifest(parts))
        try:
            _join(parts, store, beside)
        finally:
            store.close()
        beside.rename(target)
    except OSError as error:
        raise RunError(f"{str(out)!r} cannot be written: {error}.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _join(parts: Sequence[ShardRun], merged: Store, directory: Path) -> None:
    """Writes the trials, lanes, curves and states of all parts, with waves numbered anew."""
    used = [(number, wave) for number, part in enumerate(parts) for wave in sorted({row.wave for row in part.rows})]
    waves = {each: new for new, each in enumerate(each for each in used if each[1] != NO_WAVE)}
    rows = {row.trial: row for row in parts[0].rows}
    lanes: list[Change] = []
    for number, part in enumerate(parts):
        rows |= {row.trial: row._replace(wave=waves[number, row.wave]) for row in part.rows if row.trial in part.own}
        lanes += [lane for lane in part.store.lanes() if lane.trial in part.own]
    replicates, metrics = (parts[0].manifest["sweep"][name] for name in ("replicates", "metrics"))
    with merged.transaction():
        merged.add_trials(rows.values(), replicates)
        merged.add_changes(lanes)
        for number, part in enumerate(parts):
            for (wave, segment), arrays in part.store.curves(metrics, (len(rows), replicates)).items():
                merged.add_curves(waves[number, wave], segment, arrays)
            for group, seconds in part.store.compilations().items():
                merged.add_compilation(group, seconds)
        merged.finish(sum(part.store.seconds() or 0.0 for part in parts))
    for (number, wave), new in waves.items():
        shutil.copytree(parts[number].path / STATES / f"wave-{wave}", directory / STATES / f"wave-{new}")


def _manifest(parts: Sequence[ShardRun]) -> dict[str, Any]:
    """That of the first part, but for what all of them say; ``merged`` has how each shard ran."""
    manifests = [part.manifest for part in parts]
    sweep = manifests[0]["sweep"]
    shards = [shard for each in manifests for shard in each["sweep"]["shard"]]
    whole = sum(len(part.own) for part in parts) == sweep["trials"]
    return manifests[0] | {
        **origin(),
        "extended": 0,
        "extended_by": [],
        "sweep": sweep | {"shard": None if whole else shards},
        "plan": [line for each in manifests for line in (*each["plan"], "")],
        "merged": [run for each in manifests for run in each.get("merged", [_run(each)])],
    }


def _run(manifest: dict[str, Any]) -> dict[str, Any]:
    names = ("created", "command", "versions", "devices")
    return {"shard": manifest["sweep"]["shard"][0]} | {name: manifest[name] for name in names}
