"""How fast is hpjax beside what else there is? A table and a picture of ratios of medians.

python experiments/benchmarks/bench.py [ROW ...] [--rounds 5] [--out FOLDER]

On a GPU or TPU the table is another: see accelerator.py.
"""

import argparse
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
import picture
import table
from harness import Worker, alternate
from rows import ROWS, SHARE, SPEEDUP, Competitor, Row
from worker import named

HERE = Path(__file__).parent
# A worker that has not answered after so long hangs.
PATIENCE = 1800.0


def measure(row: Row, rounds: int, folder: Path) -> list[table.Outcome]:
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
        # What earlier runs on this machine measured and compiled does not count.
        return Worker(
            command, PATIENCE, {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder / "cache")}
        )

    measured = alternate(
        {each.name: partial(start, each) for each in competitors},
        min(rounds, row.rounds or rounds),
        row.tolerance,
        lambda line: print(f"  {line}", file=sys.stderr, flush=True),
    )
    found = {each.name: measured[each.name].times(row.trials / (each.trials or row.trials)) for each in competitors}
    ours = found[row.ours.name]
    return [table.outcome(row, rival, target, ours, found[rival.name]) for rival, target in row.rivals]


def bars(outcomes: list[table.Outcome]) -> list[picture.Bar]:
    """What there is to draw: speedups and shares, which more is better of."""
    drawn = []
    for each in outcomes:
        if each.ratio is None or each.row.measure not in (SPEEDUP, SHARE):
            continue
        value, least, most = (x / each.target for x in each.ratio)
        text = f"{each.row.measure.shown.format(each.ratio.value)} of {each.row.measure.shown.format(each.target)}"
        drawn.append(picture.Bar(f"{each.row.title}\n{each.rival.name}", value, least, most, text, each.reached))
    return drawn


def backend() -> str:
    """What JAX runs on, asked in another process: this one leaves the cores to the workers."""
    asked = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    return subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="how often each competitor runs")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the table and the picture go")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - ROWS.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers are ended
    if backend() != "cpu":
        if arguments.rows:
            parser.error("the rows are of the table for CPUs; on this device all of another table is made")
        import accelerator

        accelerator.main(arguments.out, rounds=arguments.rounds)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    outcomes: list[table.Outcome] = []
    print(table.markdown([]))
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.rows or ROWS:
            print(f"{name}: {ROWS[name].title}", file=sys.stderr, flush=True)
            for outcome in measure(ROWS[name], arguments.rounds, Path(folder)):
                outcomes.append(outcome)
                print(table.line(table.cells(outcome)), flush=True)
            # After each row, so that a run that is interrupted has what it measured.
            about = table.machine("CPU", arguments.rounds, (HERE / "peers.txt").read_text())
            text = f"{about}\n\n{table.markdown([table.cells(each) for each in outcomes])}\n"
            (arguments.out / "cpu.md").write_text(text)
            if drawn := bars(outcomes):
                picture.draw(drawn, arguments.out / "cpu.png")
    print(f"\n{about}\n{arguments.out / 'cpu.md'} and cpu.png")


if __name__ == "__main__":
    main()
