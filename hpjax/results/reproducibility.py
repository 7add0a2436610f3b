"""What a paper's appendix says of a sweep, so that others can judge and repeat it."""

import shlex
from collections import Counter

from hpjax.core.format import count, duration
from hpjax.results.store.manifest import Manifest
from hpjax.results.store.rows import Status
from hpjax.results.table import TrialTable


def reproducibility(table: TrialTable, manifest: Manifest, seconds: float | None) -> str:
    """Returns what was searched, how, with what, and at what cost, as Markdown.

    Args:
      table: the trials.
      manifest: of the run.
      seconds: how long the run took; None where it is not finished.
    """
    sweep, devices = manifest.sweep, manifest.devices
    statuses = Counter(table.statuses.tolist())
    ended = ", ".join(f"{many:,} {Status(status).text}" for status, many in sorted(statuses.items()))
    folds = "" if sweep.folds is None else f", {sweep.replicates // sweep.folds} for each of {sweep.folds} folds"
    steps = f"{sweep.steps:,}" if isinstance(sweep.steps, int) else "different numbers of"
    took = "not finished"
    if seconds is not None and not manifest.merged:
        hours = seconds * devices.count / 3600
        took = f"{duration(seconds)} on {count(devices.count, 'device')}: {hours:.3g} device-hours"
    lines = [
        "## Search space",
        "",
        "| hyperparameter | domain | scale |",
        "|---|---|---|",
        *(
            f"| {_cell(name)} | {_cell(domain)} | {_cell(sweep.scales[name])} |"
            for alternative in sweep.space.values()
            for name, domain in alternative.items()
        ),
        "",
        "## Search",
        "",
        f"- Trials: {count(len(table), 'trial')} in {count(len(sweep.rounds), 'round')}: {ended}.",
        f"- Selected by: {table.objective} at the end of training, the mean over replicates.",
        f"- Sampler: `{sweep.sampler}`; scheduler: `{sweep.scheduler or 'none'}`.",
        f"- Seed of the sweep: {sweep.seed}; replicates of each trial: {sweep.replicates}{folds}; {sweep.randomness} "
        "randomness among trials.",
        f"- Training: {steps} optimizer steps a trial, {int(table.lane_step.sum()):,} of all lanes together.",
        *(f"- Failed: trial {trial}: {reason}" for trial, reason in table.failures.items()),
        "",
        "## Compute and software",
        "",
        f"- Devices: {devices.count} × {devices.kind}.",
        f"- Time: {took}.",
        f"- Lanes computed in parallel by a device, for each program: {', '.join(map(str, sweep.width))}.",
        f"- Versions: {', '.join(f'{name} {version}' for name, version in manifest.versions.items())}.",
        f"- Begun: {manifest.created}, by `{shlex.join(manifest.command)}`.",
        *(f"- Extended by `{shlex.join(command)}`." for command in manifest.extended_by),
        *(f"- Shard {own.shard}: {own.created}, {own.devices.count} × {own.devices.kind}." for own in manifest.merged),
        *([f"- Digest of the program's code: {sweep.code}."] if sweep.code else []),
        *(f"- Digest of the data's {split} split: {value}." for split, value in (sweep.data or {}).items()),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Returns a text that a table of Markdown takes as one cell."""
    return text.replace("|", "\\|")
