"""The table in Markdown, and the machine that it is of."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from harness import Measured, Ratio, compared
from rows import Competitor, Row
from worker import cores

HEADER = (
    "row",
    "rival",
    "ratio",
    "spread",
    "target",
    "reached",
    "compile s, ours / rival",
    "ms a trial, ours / rival",
    "peak MB, ours / rival",
    "notes",
)


class Outcome(NamedTuple):
    """What came of a row against one rival; no ratio where one of the two failed."""

    row: Row
    rival: Competitor
    target: float
    ours: Measured
    theirs: Measured
    ratio: Ratio | None

    @property
    def reached(self) -> bool:
        return self.ratio is not None and self.row.measure.reached(self.ratio.value, self.target)


def outcome(row: Row, rival: Competitor, target: float, ours: Measured, theirs: Measured) -> Outcome:
    """Compares two competitors, unless one of them is in error."""
    sound = not (ours.error or theirs.error) and ours.laps and theirs.laps
    return Outcome(row, rival, target, ours, theirs, compared(row.measure.of, ours, theirs) if sound else None)


def cells(outcome: Outcome) -> tuple[str, ...]:
    """A line of the table."""
    row, ours, theirs, ratio = outcome.row, outcome.ours, outcome.theirs, outcome.ratio
    show = row.measure.shown.format

    def both(of: str, scale: float = 1.0, digits: int = 1) -> str:
        # Errors may leave one side without a number.
        numbers = (getattr(each, of) if each.laps else None for each in (ours, theirs))
        return " / ".join("—" if number is None else f"{number * scale:.{digits}f}" for number in numbers)

    notes = [f"{who}: {what}" for who, each in (("hpjax", ours), ("rival", theirs)) for what in (each.note,) if what]
    errors = [f"**{who}: {each.error}**" for who, each in (("hpjax", ours), ("rival", theirs)) if each.error]
    return (
        row.title,
        outcome.rival.name,
        "failed" if ratio is None else show(ratio.value),
        "" if ratio is None else f"{show(ratio.least)} … {show(ratio.most)}",
        show(outcome.target),
        "yes" if outcome.reached else "no",
        both("compiled"),
        both("seconds", 1e3 / row.trials, 2)
        if row.per_trial
        else both("seconds", 1.0, 2).replace(" / ", " s / ") + " s",
        both("megabytes", digits=0),
        "; ".join(errors + notes).replace("|", "\\|").replace("\n", " "),
    )


def line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def markdown(lines: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> str:
    return "\n".join([line(header), line(["---"] * len(header)), *map(line, lines)])


def machine(device: str, rounds: int, peers: str) -> str:
    """A paragraph on where and with what the numbers were measured.

    Args:
      device: what JAX runs on.
      rounds: how often each competitor ran.
      peers: the requirements of the peers' environment.
    """
    ours = [f"{name} {version(name)}" for name in ("jax", "flax", "optax", "numpy")]
    theirs = [line.replace("==", " ") for line in peers.splitlines() if line.startswith(("torch", "hyperoptax"))]
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    return (
        f"{date.today()}: {device}, {cores()} cores of {_processor()}{load}; Python {platform.python_version()}, "
        f"{', '.join([*ours, *theirs])}; medians of {rounds} rounds, spread from least to most."
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [s.split(":")[1].strip() for s in info.read_text().splitlines() if "model name" in s] if info.exists() else []
    )
    return names[0] if names else platform.processor() or platform.machine()
