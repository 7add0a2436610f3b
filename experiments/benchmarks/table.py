"""Tables in Markdown: of every ratio its range over the days on which it was measured."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from records import COMPILING, RUNNING, Both, Entry, Record, target_of
from rows import ROWS, Measure, Row

HEADER = (
    "row",
    "rival",
    "ratio",
    "of any round",
    "target",
    "reached",
    "compile s, ours / rival",
    "ms a trial, ours / rival",
    "peak MB, ours / rival",
    "days",
    "notes",
)


class Line(NamedTuple):
    """A row against one rival, by one clock.

    Attributes:
      row: the row.
      rival: the name of the rival.
      clock: ``"wall"`` or ``"cpu"``.
      measure: what is compared.
      target: what is to be reached.
      entries: number of the day, from 1, to what came of it.
    """

    row: Row
    rival: str
    clock: str
    measure: Measure
    target: float
    entries: dict[int, Entry]

    @property
    def title(self) -> str:
        return self.row.title + ": CPU seconds" * (self.clock == "cpu")

    @property
    def is_estimate(self) -> bool:
        """Whether it is about what a plan said."""
        return self.rival in (COMPILING, RUNNING)

    @property
    def latest(self) -> Entry:
        return self.entries[max(self.entries)]

    @property
    def reached(self) -> list[bool]:
        """Whether the target was reached, for each day."""
        found = [each.ratio for each in self.entries.values()]
        return [ratio is not None and self.measure.reached(ratio.value, self.target) for ratio in found]

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the greatest median of a day; None where none has one."""
        values = [each.ratio.value for each in self.entries.values() if each.ratio]
        return (min(values), max(values)) if values else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The least and the greatest of any round of any day."""
        ratios = [each.ratio for each in self.entries.values() if each.ratio]
        return (min(each.least for each in ratios), max(each.most for each in ratios)) if ratios else None

    @property
    def bound(self) -> str:
        """The target in words."""
        return f"{self.measure.bound} {self.measure.shown.format(self.target)}"

    def between(self, limits: tuple[float, float]) -> str:
        """Returns a range as text, one number if both are shown alike."""
        return "…".join(dict.fromkeys(map(self.measure.shown.format, limits)))


def lines(records: Sequence[Record]) -> list[Line]:
    """Returns the lines of all that is recorded, in the order of the rows.

    Raises:
      ValueError: a record has a row or a rival that there is not, or that was another when it was measured.
    """
    found: dict[tuple[str, str, str], dict[int, Entry]] = {}
    for day, record in enumerate(records, 1):
        for entry in record.entries:
            if entry.row not in ROWS or target_of(ROWS[entry.row], entry.rival) is None:
                raise ValueError(f"{record.name}: no such row: {entry.row!r} against {entry.rival!r}; delete it there")
            if entry.title != ROWS[entry.row].title:
                raise ValueError(f"{record.name}: {entry.row} was measured as {entry.title!r}; delete it there")
            found.setdefault(entry.key, {})[day] = entry
    names = list(ROWS)

    def place(key: tuple[str, str, str]) -> tuple[int, int, bool]:
        row, rival, clock = key
        order = [*(each.name for each, _ in ROWS[row].rivals), COMPILING, RUNNING]
        return names.index(row), order.index(rival), clock == "cpu"

    return [_line(key, found[key]) for key in sorted(found, key=place)]


def _line(key: tuple[str, str, str], entries: dict[int, Entry]) -> Line:
    row, rival, clock = key
    target = target_of(ROWS[row], rival)
    assert target is not None
    return Line(ROWS[row], rival, clock, *target, entries)


def cells(line: Line) -> tuple[str, ...]:
    """Returns the cells of a line of the whole table; seconds, memory and notes are of the latest day."""
    latest, count, reached = line.latest, len(line.entries), sum(line.reached)
    return (
        line.title,
        line.rival,
        "failed" if line.range is None else line.between(line.range),
        "" if line.spread is None else line.between(line.spread),
        line.bound,
        {0: "no", count: "yes"}.get(reached, f"on {reached} of {count} days"),
        _both(latest.compiled, "{:.1f}".format),
        _both(latest.seconds, lambda s: f"{1e3 * s / line.row.trials:.2f}" if line.row.per_trial else f"{s:.2f} s"),
        _both(latest.megabytes, "{:.0f}".format),
        " ".join(map(str, line.entries)),
        latest.notes.replace("|", "\\|").replace("\n", " "),
    )


def _both(numbers: Both, show: Callable[[float], str]) -> str:
    return " / ".join("—" if number is None else show(number) for number in numbers)


def short(line: Line) -> tuple[str, str, str]:
    """Returns the cells of a line of the README: the row, the rival, and the ratio with its spread."""
    found = (line.range, line.spread)
    return line.title, line.rival, "{} ({})".format(*map(line.between, found)) if all(found) else "failed"


def targeted(line: Line) -> tuple[str, str, str, str]:
    """Returns the cells of ``short`` and the target; the ratio is bold if the target was reached on every day."""
    title, rival, ratio = short(line)
    median, space, spread = ratio.partition(" (")
    return title, rival, f"**{median}**{space}{spread}" if all(line.reached) else ratio, line.bound


def estimate(line: Line) -> tuple[str, ...]:
    """Returns the cells of a line of what a plan said: seconds of the latest day, and the ratio of all days."""
    took, said = ("—" if number is None else f"{number:.1f}" for number in line.latest.seconds)
    ratio = line.latest.notes if line.range is None else line.between(line.range)
    return line.title, line.rival, took, said, f"**{ratio}**" if all(line.reached) else ratio


def line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def markdown(lines: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> str:
    return "\n".join([line(header), line(["---"] * len(header)), *map(line, lines)])


def days(records: Sequence[Record]) -> str:
    """Returns a numbered list that says when, where and with what versions was measured."""
    return "\n".join(f"{number}. {day(record)}" for number, record in enumerate(records, 1))


def commits(entries: Iterable[Entry]) -> str:
    return ", ".join(dict.fromkeys(each.commit for each in entries))


def day(record: Record) -> str:
    rounds = " or ".join(map(str, sorted({each.rounds for each in record.entries})))
    about = f"{record.machine}; {record.versions}; rounds: {rounds}"
    return f"{record.date}, commit {commits(record.entries)}: {about}."
