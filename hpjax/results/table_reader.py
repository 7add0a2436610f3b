"""The reader of trial tables: reads a run's trials as arrays from its store. Needs no model code."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.domains import Range
from hpjax.core.errors import RunError
from hpjax.core.format import size
from hpjax.core.objective import Objective
from hpjax.engine.machine import host_memory
from hpjax.results.store.manifest import Manifest, SweepRecord
from hpjax.results.store.rows import SECONDS, STATUS_DTYPE, Change, Status
from hpjax.results.store.run_store import Store
from hpjax.results.table import Alternative, CloneRecord, TrialTable


def read_table(store: Store, manifest: Manifest) -> TrialTable:
    """Returns the trials in a store as arrays, all of one moment, though a run may be writing to it.

    Args:
      store: the store of the run.
      manifest: the manifest of the run, which says what was asked: names, metrics, objective, space.

    Raises:
      RunError: the database is damaged, does not fit the manifest, or does not fit into memory.
    """
    sweep = manifest.sweep
    metrics = sweep.metrics
    with store.snapshot():
        store.check(sweep.replicates)
        rows, lineage = store.trials(), [CloneRecord(*row) for row in store.clones()]
        lane_status, lane_step = _lanes(store.lanes(), (len(rows), sweep.replicates))
        recorded = _curves(store.curves(metrics, lane_status.shape), metrics, lane_status.shape)
        tested, failures = store.tests(), store.failures()
    first = [row.hparams for row in rows]
    hparams = list(first)
    for clone in lineage:
        hparams[clone.trial] = clone.hparams
    unknown = {*chain(*first, *(clone.hparams for clone in lineage))} - {*sweep.names}
    if unknown:
        raise RunError(
            f"the database has hyperparameters {sorted(unknown)}, and the manifest has none of these names. "
            "Restore the run directory from a copy, or delete it and run the sweep again."
        )
    # A running lane has no row for its step yet: it is that of its last evaluation.
    evaluated = np.nan_to_num(recorded["step"]).max(axis=-1, initial=0).astype(np.int64)
    rounds, groups, waves, widths = (np.array([row[i] for row in rows], np.int32) for i in range(1, 5))
    return TrialTable(
        names=sweep.names,
        metrics=metrics,
        objective=Objective(*sweep.objective),
        scales=dict(sweep.scales),
        alternatives=_alternatives(sweep),
        hparams=hparams,
        first_hparams=first,
        lineage=lineage,
        rounds=rounds,
        groups=groups,
        waves=waves,
        widths=widths,
        lane_status=lane_status,
        lane_step=np.where(lane_status == Status.RUNNING, evaluated, lane_step),
        recorded=recorded,
        tested=tested,
        failures=failures,
    )


def _alternatives(sweep: SweepRecord) -> tuple[Alternative, ...]:
    """Returns the alternatives of the space that a manifest records."""
    return tuple(
        Alternative(
            frozenset(domains),
            {name: Range(*ends) for name, ends in ranges.items()},
            {name: tuple(texts) for name, texts in options.items()},
        )
        for domains, ranges, options in zip(sweep.space.values(), sweep.ranges, sweep.options, strict=True)
    )


def _lanes(rows: Iterable[Change], shape: tuple[int, int]) -> tuple[Array, Array]:
    """Returns the status and the step of every lane, each of this shape: (trials, replicates)."""
    status, steps = np.full(shape, Status.RUNNING, STATUS_DTYPE), np.zeros(shape, np.int64)
    for row in rows:
        status[row.trial, row.replicate], steps[row.trial, row.replicate] = row.status, row.step
    return status, steps


def _curves(
    segments: Mapping[tuple[int, int], Mapping[str, Array]], metrics: Sequence[str], shape: tuple[int, ...]
) -> dict[str, Array]:
    """Returns each metric, ``"step"`` and ``"seconds"`` as an array (trials, replicates, evaluations), padded with NaN.

    Args:
      segments: (wave, evaluation) to the arrays of the lanes that were evaluated, each (lanes,).
      metrics: the names of the run's metrics.
      shape: (trials, replicates).

    Raises:
      RunError: the arrays do not fit into memory.
    """
    evaluations = max((segment + 1 for _, segment in segments), default=0)
    names = ("step", SECONDS, *metrics)
    # A few rows of a damaged database must not make this host allocate more than it has.
    needed = 8 * len(names) * shape[0] * shape[1] * evaluations
    if needed > host_memory():
        allowed = f"the curves take {size(needed)}, more than the memory of this host"
        raise RunError(f"{allowed}. Load the run directory on a host with more memory.")
    curves: dict[str, Array] = {name: np.full((*shape, evaluations), np.nan) for name in names}
    for (_, segment), arrays in segments.items():
        where = (arrays["trial"], arrays["replicate"], segment)
        for name in arrays.keys() - {"trial", "replicate"}:
            values = arrays[name]
            if name in metrics and curves[name].dtype != values.dtype:
                curves[name] = curves[name].astype(values.dtype)
            curves[name][where] = values
    return curves
