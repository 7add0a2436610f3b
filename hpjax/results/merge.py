"""Merging: joins the run directories of a sweep's shards to one, as if one job had trained all their trials."""

import os
import shutil
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from hpjax.core.errors import InputError, RunError
from hpjax.core.format import count
from hpjax.results.result import Result, load
from hpjax.results.store.differences import differences, how_to_set
from hpjax.results.store.final_states import SHARED
from hpjax.results.store.manifest import Manifest, ShardRecord, origin, read_manifest
from hpjax.results.store.rows import NO_WAVE, Change, Planned
from hpjax.results.store.run_store import ARTIFACTS, STATES, Store

# An error names so many of the trials that two shards have.
NAMED = 10


class ShardRun(NamedTuple):
    """A run directory to merge.

    Attributes:
      path: where it is.
      manifest: the manifest of the run.
      store: the database and states of the run.
      rows: every trial of the sweep.
      own: ids of the trials that it trained.
    """

    path: Path
    manifest: Manifest
    store: Store
    rows: list[Planned]
    own: set[int]


def merge(directories: Iterable[str | Path], out: str | Path) -> Result:
    """Joins finished shards of one sweep.

    Args:
      directories: the run directories of the shards, in any order; merged ones too.
      out: where to write, a new or an empty directory. It is written whole or not at all. Once it has every shard,
        ``sweep.run(out)`` of the sweep without shards reads it.

    Returns:
      The result of ``out``.

    Raises:
      InputError: there are no directories.
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
        raise RunError(
            f"{str(out)!r} is there already, and not empty. Name a new directory: hpjax merge DIR... --out NEW."
        )
    parts = [_opened(Path(directory)) for directory in directories]
    try:
        if not parts:
            raise InputError("merge.directories", [], "must be run directories", 'Write ["runs/1", "runs/2"].')
        _check(parts)
        # Sorted, so that the order in which they were given, or merged before, does not show in ``out``.
        _write(sorted(parts, key=lambda part: min(part.own)), out)
    finally:
        for part in parts:
            part.store.close()
    return load(out)


def _opened(path: Path) -> ShardRun:
    """Opens the run directory of a finished shard.

    Raises:
      RunError: it holds no shard, or one that is not finished, or it is damaged.
    """
    manifest = read_manifest(path)
    store = Store.open(path)
    store.check(manifest.sweep.replicates)
    rows = store.trials()
    own = {row.trial for row in rows if row.wave != NO_WAVE}
    if manifest.sweep.shard is None:
        raise RunError(f"{str(path)!r} holds a whole sweep, and no shard of one. Leave it out.")
    if store.ends() <= manifest.extended:
        raise RunError(f"{str(path)!r} is not finished. Run its shard again: it goes on where it was interrupted.")
    if not own or [row.trial for row in rows] != list(range(manifest.sweep.trials)):
        raise RunError(
            f"{str(path)!r} cannot be read: trials are missing. Restore it from a copy, or run its shard anew."
        )
    for wave in sorted(_with_states(store, rows)):
        if not (path / STATES / f"wave-{wave}").is_dir():
            raise RunError(
                f"{str(path)!r} cannot be read: the states of wave {wave} are missing. "
                "Restore it from a copy, or run its shard anew."
            )
    return ShardRun(path, manifest, store, rows, own)


def _with_states(store: Store, rows: Iterable[Planned]) -> set[int]:
    """Returns the waves that have final states: all but those whose group failed."""
    failed = {row.wave for row in rows if row.trial in store.failures()}
    return {row.wave for row in rows} - {NO_WAVE} - failed


def _check(parts: Sequence[ShardRun]) -> None:
    """Raises unless these are shards of one sweep, and no two of them have a trial in common."""
    first, *others = (replace(part.manifest.sweep, shard=None) for part in parts)
    for part, sweep in zip(parts[1:], others, strict=True):
        if lines := differences(first, sweep):
            raise RunError(
                f"{str(part.path)!r} holds a different sweep than {str(parts[0].path)!r}. What differs, of the latter "
                "there and of the former here:\n  "
                + "\n  ".join(lines)
                + "\nMerge shards of one sweep. Where machines chose different widths, run all shards with one --width."
                + how_to_set(first.settings, sweep.settings)
            )
    for a, b in combinations(parts, 2):
        if both := sorted(a.own & b.own):
            named = ", ".join(map(str, both[:NAMED])) + (", …" if len(both) > NAMED else "")
            raise RunError(
                f"{count(len(both), 'trial')} ({named}) are both in {str(a.path)!r} and in {str(b.path)!r}. "
                "Leave one of them out."
            )


def _write(parts: Sequence[ShardRun], out: Path) -> None:
    """Writes a directory beside ``out``, and gives it that name at the end, so that ``out`` is never half written."""
    target = out.absolute()
    beside = target.with_name(f"{target.name}.part-{os.getpid()}")
    if beside.exists():
        raise RunError(f"{str(beside)!r} is left of a merge that was interrupted. Delete it, and merge again.")
    try:
        store = Store.create(beside, _manifest(parts))
        try:
            _join(parts, store, beside)
        finally:
            store.close()
        beside.rename(target)
    except OSError as error:
        raise RunError(
            f"{str(out)!r} cannot be written: {error}. Name a new directory where you may write files: "
            "hpjax merge DIR... --out NEW."
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _join(parts: Sequence[ShardRun], merged: Store, directory: Path) -> None:
    """Writes the trials, lanes, curves and states of all parts, and numbers their waves anew."""
    used = [(number, wave) for number, part in enumerate(parts) for wave in sorted({row.wave for row in part.rows})]
    waves = {each: new for new, each in enumerate(each for each in used if each[1] != NO_WAVE)}
    rows = {row.trial: row for row in parts[0].rows}
    lanes: list[Change] = []
    for number, part in enumerate(parts):
        rows |= {row.trial: row._replace(wave=waves[number, row.wave]) for row in part.rows if row.trial in part.own}
        lanes += [lane for lane in part.store.lanes() if lane.trial in part.own]
    replicates, metrics = parts[0].manifest.sweep.replicates, parts[0].manifest.sweep.metrics
    with merged.transaction():
        merged.add_trials(rows.values(), replicates)
        merged.add_changes(lanes)
        for part in parts:
            merged.add_failures(part.store.failures())
        for number, part in enumerate(parts):
            for (wave, segment), arrays in part.store.curves(metrics, (len(rows), replicates)).items():
                merged.add_curves(waves[number, wave], segment, arrays)
            for group, seconds in part.store.compilations().items():
                merged.add_compilation(group, seconds)
        merged.finish(sum(part.store.seconds() or 0.0 for part in parts))
    if (parts[0].path / STATES / SHARED).exists():
        shutil.copytree(parts[0].path / STATES / SHARED, directory / STATES / SHARED)
    for part in parts:
        for trial in part.own:
            if (own := part.path / ARTIFACTS / f"trial-{trial}").is_dir():
                shutil.copytree(own, directory / ARTIFACTS / own.name)
    kept = [_with_states(part.store, part.rows) for part in parts]
    for (number, wave), new in waves.items():
        if wave not in kept[number]:
            continue
        shutil.copytree(parts[number].path / STATES / f"wave-{wave}", directory / STATES / f"wave-{new}")


def _manifest(parts: Sequence[ShardRun]) -> Manifest:
    """Returns the manifest of the first part, with the shards and plans of all, and how each of them ran."""
    manifests = [part.manifest for part in parts]
    first = manifests[0]
    shards = tuple(shard for each in manifests for shard in each.sweep.shard or ())
    whole = sum(len(part.own) for part in parts) == first.sweep.trials
    begun = origin()
    return replace(
        first,
        created=begun.created,
        command=begun.command,
        extended=0,
        extended_by=(),
        sweep=replace(first.sweep, shard=None if whole else shards),
        plan=tuple(line for each in manifests for line in (*each.plan, "")),
        merged=tuple(run for each in manifests for run in each.merged or [_record(each)]),
    )


def _record(of: Manifest) -> ShardRecord:
    """Returns how a shard ran, for the manifest of the merged run."""
    shard = ", ".join(of.sweep.shard or ())
    return ShardRecord(shard, of.created, of.command, of.versions, of.devices)
