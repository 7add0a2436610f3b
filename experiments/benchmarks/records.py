"""What was measured on a day on a machine: a file of JSON, to which each row is added as soon as it is there."""

import json
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from harness import Measured, Ratio, compared
from rows import ESTIMATE, WITHIN, Measure, Row
from worker import cores

HERE = Path(__file__).parent
# The rivals of what a plan says.
COMPILING, RUNNING = "to compile", "to run"


class Both(NamedTuple):
    """A number of hpjax and the rival's; None where it is not known."""

    ours: float | None = None
    rival: float | None = None


class Entry(NamedTuple):
    """What came of a row against one rival.

    Attributes:
      row: its name.
      title: what the row said when it was measured: a row that says something else now has another meaning.
      rival: its name.
      clock: ``"wall"`` or ``"cpu"``.
      commit: what was measured; with a plus where files were changed since.
      rounds: how often each ran.
      ratio: None where one of the two failed.
      seconds: the medians.
      compiled: seconds of the first run above those that follow.
      megabytes: the most memory of each.
      notes: errors, and what the competitors say of themselves.
    """

    row: str
    title: str
    rival: str
    clock: str
    commit: str
    rounds: int
    ratio: Ratio | None
    seconds: Both = Both()
    compiled: Both = Both()
    megabytes: Both = Both()
    notes: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.row, self.rival, self.clock


class Record(NamedTuple):
    """The entries of a day and a machine.

    Attributes:
      date: ISO 8601.
      machine: cores and processor.
      versions: of Python and of packages.
      entries: one for each row, rival and clock.
    """

    date: str
    machine: str
    versions: str
    entries: tuple[Entry, ...] = ()

    @property
    def name(self) -> str:
        """The name of its file: the date and the machine."""
        return f"{self.date}-{re.sub(r'[^a-z0-9.]+', '-', self.machine.lower()).strip('-')}.json"

    def updated(self, entries: Sequence[Entry]) -> "Record":
        """Returns the record with these entries in place of all entries of the same rows."""
        rows = {each.row for each in entries}
        return self._replace(entries=(*(each for each in self.entries if each.row not in rows), *entries))

    def write(self, folder: Path) -> None:
        """Writes the record to its file in a folder, one entry a line."""
        lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in map(_plain, self.entries))
        head = json.dumps(self._replace(entries=())._asdict(), ensure_ascii=False, indent=1)
        text = head.replace('"entries": []', f'"entries": [\n{lines}\n]')
        (folder / self.name).write_text(f"{text}\n", "utf-8")


def read(path: Path) -> Record:
    """Reads the record of a file."""
    found = json.loads(path.read_text("utf-8"))
    pairs = ("seconds", "compiled", "megabytes")
    entries = [
        Entry(**each | {"ratio": each["ratio"] and Ratio(*each["ratio"])} | {name: Both(*each[name]) for name in pairs})
        for each in found["entries"]
    ]
    return Record(**found | {"entries": tuple(entries)})


def read_all(folder: Path) -> list[Record]:
    """Reads the records of a folder; returns the latest last."""
    return sorted(map(read, folder.glob("*.json")), key=lambda record: record.name)


def today(peers: str) -> Record:
    """Returns an empty record of today and this machine; ``peers`` are the requirements that name their versions."""
    ours = [f"{name} {version(name)}" for name in ("jax", "flax", "optax", "numpy")]
    theirs = [line.replace("==", " ") for line in peers.splitlines() if line.startswith(("torch", "hyperoptax"))]
    versions = ", ".join([f"Python {platform.python_version()}", *ours, *theirs])
    return Record(str(date.today()), f"{cores()} cores of {_processor()}", versions)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    about = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    name = about.get("model name") or platform.processor() or platform.machine()
    # Virtual machines may tell the maker's name alone, whose processors differ much.
    kind = "" if any(map(str.isdigit, name)) or "model" not in about else " family {cpu family}, model {model}"
    return re.sub(r"\((R|TM)\)| (CPU|Processor|@)(?= )", "", name) + kind.format(**about)


def commit() -> str:
    """Returns the commit, with a plus if files that are measured were changed since; "unknown" without Git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    root = HERE.parents[1]
    measured = (root / "hpjax", HERE, root / "experiments" / "ports", f":(exclude){HERE / 'results'}")
    changed = git("status", "--short", "--", *map(str, measured))
    return (git("rev-parse", "--short", "HEAD") or "unknown") + "+" * bool(changed)


def entries_of(name: str, row: Row, rounds: int, measured: dict[str, Measured], commit: str) -> list[Entry]:
    """Returns the entries of a row: one for each rival and clock, and two for what the plan said."""
    ours = measured[row.ours.name]
    found = [
        _entry((name, row.title, rival.name, clock, commit, rounds), row.measure, ours, measured[rival.name])
        for rival, _ in row.rivals
        for clock in row.clocks
    ]
    if ours.planned is not None and ours.laps:
        plan = ours.planned
        both = (COMPILING, plan.waited, plan.compiling), (RUNNING, ours.seconds(), plan.running)
        for rival, took, said in both:
            ratio = WITHIN.of(took, said)
            about = (name, row.title, rival, "wall", commit, rounds)
            found.append(Entry(*about, Ratio(ratio, ratio, ratio), Both(took, said)))
    elif not row.rivals:
        notes = f"**hpjax: {ours.error}**"
        found += [
            Entry(name, row.title, rival, "wall", commit, rounds, None, notes=notes) for rival in (COMPILING, RUNNING)
        ]
    return found


def _entry(about: tuple[str, str, str, str, str, int], measure: Measure, ours: Measured, rival: Measured) -> Entry:
    """Compares two competitors, unless one of them is in error."""
    clock, sides = about[3], (ours, rival)
    sound = not (ours.error or rival.error) and ours.laps and rival.laps
    errors = [f"**{who}: {each.error}**" for who, each in zip(("hpjax", "rival"), sides, strict=True) if each.error]
    notes = [f"{who}: {each.note}" for who, each in zip(("hpjax", "rival"), sides, strict=True) if each.note]
    return Entry(
        *about,
        compared(measure.of, ours, rival, clock) if sound else None,
        Both(*(each.seconds(clock) if each.laps else None for each in sides)),
        Both(*(each.compiled for each in sides)),
        Both(*(each.megabytes if each.laps else None for each in sides)),
        "; ".join(errors + notes),
    )


def target_of(row: Row, rival: str) -> tuple[Measure, float] | None:
    """Returns the measure and the target of a rival; None if the row has no such rival."""
    if rival in (COMPILING, RUNNING):
        return WITHIN, ESTIMATE
    return next(((row.measure, target) for each, target in row.rivals if each.name == rival), None)


def _plain(entry: Entry) -> dict[str, object]:
    """Returns an entry as a dictionary for JSON, its numbers rounded to what a table shows."""

    def rounded(numbers: Sequence[float | None] | None) -> list[float | None] | None:
        return numbers and [None if x is None else float(f"{x:.5g}") for x in numbers]

    found = entry._asdict()
    return found | {name: rounded(found[name]) for name in ("ratio", "seconds", "compiled", "megabytes")}
