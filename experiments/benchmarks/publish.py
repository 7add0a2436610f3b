"""Writes the tables and the picture of all records, also those of the README and the documentation.

python experiments/benchmarks/publish.py
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import picture
import table
from records import Record, read_all
from rows import ESTIMATE, ROWS, SHARE, SPEEDUP, TIMES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
# The rows of the README, each with a rival.
FEW = (
    ("mlp", "jit(vmap(scan))"),
    ("mlp", "torch, one by one"),
    ("mlp", "tuned by hand"),
    ("cnn", "jit(vmap(scan))"),
    ("transformer", "jit(vmap(scan))"),
)
BLOCK = re.compile(r"(?<=<!-- bench: begin -->\n).*?(?=<!-- bench: end -->)", re.DOTALL)


def tables(records: Sequence[Record], header: Sequence[str], cells: Callable[[table.Line], Sequence[str]]) -> str:
    """Returns a table of all rows and one of what plans said; when and where that was, and which rows are missing."""
    every = table.lines(records)
    said = [table.estimate(each) for each in every if each.is_estimate]
    missing = [name for name in ROWS if name not in {each.latest.row for each in every}]
    parts = [
        table.markdown([cells(each) for each in every if not each.is_estimate], header),
        table.markdown(said, ("work", "", "took, s", "the plan said, s", f"ratio, within {ESTIMATE}")) if said else "",
        table.days(records),
        f"Not measured yet: {', '.join(missing)}." if missing else "",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def full(records: Sequence[Record]) -> str:
    """Returns the text of ``cpu.md``: all that is known of every row."""
    return tables(records, table.HEADER, table.cells)


def few(records: Sequence[Record]) -> str:
    """Returns what the README shows: a table of few rows, and when and where they were measured."""
    chosen = [each for each in table.lines(records) if (each.latest.row, each.rival) in FEW]
    days: dict[str, list[str]] = {}
    for number, record in enumerate(records, 1):
        if entries := [each.entries[number] for each in chosen if number in each.entries]:
            days.setdefault(record.machine, []).append(f"{record.date} ({table.commits(entries)})")
    listed = table.markdown([table.short(each) for each in chosen], ("work", "against", "hpjax is"))
    where = "; ".join(f"{machine}: {', '.join(each)}" for machine, each in days.items())
    return f"{listed}\n\n{where}.\n"


def pages(records: Sequence[Record]) -> dict[Path, str]:
    """Returns the text between the marks of each page that shows a table, by the file of the page."""
    return {
        ROOT / "docs" / "benchmarks.md": tables(records, ("work", "against", "hpjax is", "target"), table.targeted),
        ROOT / "README.md": few(records),
    }


def bars(records: Sequence[Record]) -> list[picture.Bar]:
    """Returns the bars of the picture: ratios that have a target, as shares of it."""
    drawn = []
    for each in table.lines(records):
        if each.range is None or each.spread is None or each.measure not in (SPEEDUP, SHARE, TIMES):
            continue
        # Of what is to be small, the target is divided by it, so that more is better in all bars.
        sign = -1 if each.measure is TIMES else 1
        medians, rounds = (sorted((x / each.target) ** sign for x in limits) for limits in (each.range, each.spread))
        text = f"{each.between(each.range)}; {each.bound}"
        drawn.append(picture.Bar(f"{each.title}\n{each.rival}", medians[0], *rounds, text, all(each.reached)))
    return drawn


def publish(folder: Path) -> None:
    """Writes the table and the picture of a folder's records, and, of those of the repository, the blocks of pages."""
    records = read_all(folder)
    (folder / "cpu.md").write_text(full(records), "utf-8")
    if drawn := bars(records):
        picture.draw(drawn, folder / "cpu.png")
    if folder.resolve() == RESULTS.resolve():
        for path, text in pages(records).items():
            page = path.read_text("utf-8")
            assert BLOCK.search(page), f"{path.name} has no block"
            path.write_text(BLOCK.sub(lambda _, text=text: text, page), "utf-8")


if __name__ == "__main__":
    publish(RESULTS)
