"""How fast is hpjax beside what else there is? A table and a picture of ratios of medians.

python experiments/benchmarks/bench.py [ROW ...] [--rounds 5] [--out FOLDER]

What is measured is added to the record of the day and the machine; the tables are of all records (see publish.py).

On a GPU or TPU the table is another: make bench-accelerator.
"""

import argparse
import fnmatch
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import peers
import records
import table
from harness import Measured, Worker, alternate
from publish import RESULTS, publish
from rows import ROWS, Competitor, Row
from worker import named

HERE = Path(__file__).parent
# A worker that has not answered after so long hangs.
PATIENCE = 1800.0


def measure(row: Row, rounds: int, folder: Path) -> dict[str, Measured]:
    """Runs the competitors of a row in turns."""
    workload, competitors = named(row.workload), (row.ours, *(rival for rival, _ in row.rivals))

    def start(competitor: Competitor) -> Worker:
        trials = competitor.trials or row.trials
        path = folder / f"{row.workload.replace(':', '-')}-{trials}.npz"
        if not path.exists():
            np.savez(path, **workload.arrays(trials))
        python = peers.python() if competitor.peer else sys.executable
        options = json.dumps(dict(competitor.options))
        command = [python, str(HERE / "worker.py"), row.workload, competitor.role, str(path), options]
        # What earlier runs and other competitors on this machine measured and compiled does not count.
        cache = tempfile.mkdtemp(dir=folder)
        return Worker(command, PATIENCE, {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": cache})

    measured = alternate(
        {each.name: partial(start, each) for each in competitors},
        rounds,
        row.tolerance,
        lambda line: print(f"  {line}", file=sys.stderr, flush=True),
        row.fresh,
    )
    return {each.name: measured[each.name].times(row.trials / (each.trials or row.trials)) for each in competitors}


def backend() -> str:
    """Returns what JAX runs on; asks another process, so that this one leaves the cores to the workers."""
    asked = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    return subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}, or a pattern such as 'compile-*'")
    parser.add_argument("--rounds", type=int, default=5, help="how often each competitor runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the record, the table and the picture go")
    arguments = parser.parse_args()
    if unknown := [pattern for pattern in arguments.rows if not fnmatch.filter(ROWS, pattern)]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers are ended
    if backend() != "cpu":
        parser.error("the rows are of the table for CPUs; on this device: make bench-accelerator")
    arguments.out.mkdir(parents=True, exist_ok=True)
    asked = [name for name in ROWS if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.rows)]
    run(asked or list(ROWS), arguments.rounds, arguments.out)


def run(names: list[str], rounds: int, out: Path) -> None:
    """Measures rows, and adds each to the record as soon as it is there."""
    record, commit = records.today((HERE / "peers.txt").read_text()), records.commit()
    if (out / record.name).exists():
        record = same_versions(records.read(out / record.name), record)
    print(table.markdown([]))
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(f"{name}: {ROWS[name].title}", file=sys.stderr, flush=True)
            count = min(rounds, ROWS[name].rounds or rounds)
            measured = measure(ROWS[name], count, Path(folder))
            found = records.entries_of(name, ROWS[name], count, measured, commit)
            for line in table.lines([record._replace(entries=tuple(found))]):
                print(table.line((table.estimate if line.is_estimate else table.cells)(line)), flush=True)
            record = record.updated(found)
            record.write(out)
            publish(out)
    print(f"\n{table.day(record)}\n{out / record.name}, cpu.md and cpu.png")


def same_versions(there: records.Record, record: records.Record) -> records.Record:
    """Returns the record that is there, to which rows are added.

    Raises:
      SystemExit: it is of other versions.
    """
    if there.versions != record.versions:
        raise SystemExit(f"{record.name} is of {there.versions}, this is {record.versions}. Write --out FOLDER.")
    return there


if __name__ == "__main__":
    main()
