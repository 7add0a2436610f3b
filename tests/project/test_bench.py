"""The arithmetic of experiments/benchmarks: who runs when, ratios of medians, rivals that fail, and the tables."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"
MODULES = ("harness", "rows", "records", "table", "publish", "worker", "workload", "mlp")


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmarks, by their names; the folder is not importable otherwise."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in MODULES}
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


# Says that it is ready, and answers each line with the next of its laps; None crashes, "hang" says nothing.
WORKER = """
import json, sys, time
name, first, laps, log = json.loads(sys.argv[1])
open(log, "a").write(name.lower())
plan = [6.0, 4.0, 7.0] if name == "P" else None
about = {"note": "of " + name, "chosen": [1] if name == "F" else None, "planned": plan}
print(json.dumps({"first": first, "share": 1.0, **about}), flush=True)
for _ in sys.stdin:
    open(log, "a").write(name)
    lap = laps.pop(0)
    if lap is None:
        raise SystemExit("the last word")
    if lap == "hang":
        time.sleep(60)
    print(json.dumps({"wall": lap[0], "cpu": 2 * lap[0], "losses": lap[1], "megabytes": 7.0}), flush=True)
"""


@pytest.fixture
def play(bench, tmp_path):
    """Runs competitors that answer what they are told to: name to (first, laps). Gives the measured, and the order."""
    log = tmp_path / "log"

    def run(competitors, rounds, tolerance=None, seconds=20.0, fresh=False):
        log.write_text("")

        def start(name, first, laps):
            said = json.dumps([name, first, laps, str(log)])
            return lambda: bench["harness"].Worker([sys.executable, "-c", WORKER, said], seconds)

        starts = {name: start(name, *what) for name, what in competitors.items()}
        return bench["harness"].alternate(starts, rounds, tolerance, fresh=fresh), log.read_text()

    return run


def laps(*seconds, losses=None):
    return [[s, losses] for s in seconds]


def test_competitors_take_turns(play):
    measured, order = play({"A": (9.0, laps(1, 2, 3)), "B": (9.0, laps(4, 4, 4)), "C": (9.0, laps(5, 5, 5))}, 3)
    assert order == "abcABCABCABC"
    assert [(lap.wall, lap.cpu) for lap in measured["A"].laps] == [(1, 2), (2, 4), (3, 6)]
    assert [measured[name].note for name in "ABC"] == ["of A", "of B", "of C"]
    assert measured["A"].compiled == 7.0  # of 9 the median, 2, is no compiling
    assert measured["B"].megabytes == 7.0


def test_fresh_processes_take_turns(play):
    measured, order = play({"A": (None, laps(1, 2)), "B": (None, [None]), "C": (None, laps(5, 6))}, 2, fresh=True)
    assert order == "aAbBcCaAcC"  # each begins anew, with its first lap
    assert [lap.wall for lap in measured["C"].laps] == [5, 5]
    assert measured["C"].compiled is None
    assert measured["B"].error == "it ended with status 1; the last word"


def test_ratio_of_medians_and_its_spread(bench):
    harness, speedup = bench["harness"], bench["rows"].SPEEDUP
    ours, theirs = (
        harness.Measured(tuple(harness.Lap(s, 10 - s) for s in seconds))
        for seconds in ((1.0, 2.0, 4.0), (6.0, 6.0, 4.0))
    )
    assert harness.compared(speedup.of, ours, theirs) == (3.0, 1.0, 6.0)
    assert harness.compared(speedup.of, ours, theirs, "cpu") == (0.5, 4 / 9, 1.0)
    assert harness.compared(speedup.of, ours, theirs.times(2.0)) == (6.0, 2.0, 12.0)


@pytest.mark.parametrize(
    ("name", "ours", "rival", "value", "shown"),
    [
        ("SPEEDUP", 2.0, 5.0, 2.5, "2.50×"),
        ("SHARE", 4.0, 3.0, 0.75, "75%"),
        ("TIMES", 2.5, 2.0, 1.25, "1.25×"),
        ("SECONDS", 1.25, 2.0, 1.25, "1.25 s"),
        ("OVERHEAD", 1.02, 1.0, 0.02, "+2.0%"),
        ("ADDED", 1.25, 1.0, 0.25, "+0.25 s"),
    ],
)
def test_measures(bench, name, ours, rival, value, shown):
    measure = getattr(bench["rows"], name)
    assert measure.of(ours, rival) == pytest.approx(value)
    assert measure.shown.format(value) == shown
    more_is_better = name in ("SPEEDUP", "SHARE")
    assert measure.reached(value + 0.01, value) is more_is_better
    assert measure.reached(value - 0.01, value) is not more_is_better


def test_a_crash_is_told_and_the_others_go_on(play, bench):
    measured, order = play({"A": (1.0, laps(1, 1, 1)), "B": (1.0, [[2, None], None, [2, None]])}, 3)
    assert order == "abABABA"
    assert len(measured["A"].laps) == 3
    assert measured["B"].error == "it ended with status 1; the last word"
    assert not measured["A"].error
    line = bench["table"].cells(_line(bench, measured["A"], measured["B"]))
    assert "failed" in line
    assert "the last word" in line[-1]


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended(play):
    measured, order = play({"A": (1.0, laps(1, 1)), "B": (1.0, ["hang"])}, 2, seconds=2.0)
    assert order == "abABA"
    assert measured["B"].error.startswith("no answer within 2 s")


def test_a_loss_that_is_off_is_an_error(play, bench):
    competitors = {
        "A": (1.0, laps(1, losses=[0.9, 0.5, float("nan"), 0.1])),
        "B": (1.0, laps(1, losses=[0.54])),
        "C": (1.0, laps(1, losses=[0.1, 0.56, 0.9])),
        "D": (1.0, laps(1, losses=[float("nan")])),
        "E": (1.0, laps(1)),
        "F": (1.0, laps(1, losses=[0.45])),  # of the second trial alone
        "G": (1.0, laps(1, losses=[0.9])),
    }
    measured, _ = play(competitors, 1, tolerance=0.1)
    assert measured["C"].error == "its loss is 0.56 where 0.5 ± 10% is wanted"
    assert {name for name, each in measured.items() if each.error} == {"C", "D", "G"}
    assert _line(bench, measured["A"], measured["B"]).range == (1.0, 1.0)
    assert _line(bench, measured["A"], measured["C"]).range is None


def _line(bench, ours, rival):
    """What the table has of two that were measured as the row ``mlp-1024``."""
    row, records = bench["rows"].ROWS["mlp-1024"], bench["records"]
    measured = {row.ours.name: ours, row.rivals[0][0].name: rival}
    found = records.entries_of("mlp-1024", row, 3, measured, "abc")
    (line,) = bench["table"].lines([records.Record("2026-11-22", "a machine", "", tuple(found))])
    return line


def test_what_a_plan_said_is_compared_with_what_it_took(play, bench):
    measured, _ = play({"P": (10.0, laps(1, 2, 3))}, 3)
    row = bench["rows"].ROWS["port-gan"]
    found = bench["records"].entries_of("port-gan", row, 3, {row.ours.name: measured["P"]}, "abc")
    assert [(each.seconds, each.ratio.value) for each in found] == [((7.0, 6.0), 7 / 6), ((2.0, 4.0), 0.5)]
    lines = bench["table"].lines([bench["records"].Record("2026-11-22", "a machine", "", tuple(found))])
    assert [line.reached for line in lines] == [[True], [True]]
    failed = bench["harness"].Measured(error="it ended")
    found = bench["records"].entries_of("port-gan", row, 3, {row.ours.name: failed}, "abc")
    assert [(each.ratio, each.notes) for each in found] == [(None, "**hpjax: it ended**")] * 2


def test_days_give_a_range(bench):
    harness, table, records = bench["harness"], bench["table"], bench["records"]
    title = bench["rows"].ROWS["mlp-1024"].title

    def day(number, *ratio, commit="abc"):
        entry = records.Entry("mlp-1024", title, "jit(vmap(scan))", "wall", commit, 3, ratio and harness.Ratio(*ratio))
        return records.Record(f"2026-11-{number}", f"machine {number}", "jax 1", (entry,))

    both = [day(22, 2.9, 2.5, 3.0), day(29, 2.7, 2.6, 3.5, commit="def")]
    (line,) = table.lines(both)
    assert table.cells(line)[2:6] == ("2.70×…2.90×", "2.50×…3.50×", "≥ 2.80×", "on 1 of 2 days")
    assert table.cells(line)[9] == "1 2"
    assert table.targeted(line)[2] == "2.70×…2.90× (2.50×…3.50×)"
    assert table.targeted(table.lines(both[:1])[0])[2] == "**2.90×** (2.50×…3.00×)"
    assert table.days(both).splitlines()[1] == "2. 2026-11-29, commit def: machine 29; jax 1; rounds: 3."
    with pytest.raises(ValueError, match="no such row: 'gone' against"):
        table.lines([both[0]._replace(entries=(both[0].entries[0]._replace(row="gone"),))])
    with pytest.raises(ValueError, match="mlp-1024 was measured as 'MLP, 9 trials'; delete it there"):
        table.lines([both[0]._replace(entries=(both[0].entries[0]._replace(title="MLP, 9 trials"),))])


def test_records_are_read_as_written(bench, tmp_path):
    harness, records = bench["harness"], bench["records"]
    entry = records.Entry(
        "mlp", "MLP", "tuned by hand", "wall", "abc", 3, harness.Ratio(2.0, 1.5, 3.0), records.Both(1.0, 2.0)
    )
    failed = entry._replace(rival="jit(vmap(scan))", ratio=None, notes='**rival: "no"**')
    record = records.Record("2026-11-29", "2 cores of A/B 2.80GHz", "jax 1").updated([entry, failed])
    record.write(tmp_path)
    other = entry._replace(row="mlp-1024", rival="jit(vmap(scan))")
    record.updated([other]).updated([entry._replace(commit="def")])._replace(date="2026-11-28").write(tmp_path)
    earlier, later = records.read_all(tmp_path)
    assert later == record
    assert later.name == "2026-11-29-2-cores-of-a-b-2.80ghz.json"
    assert [(each.row, each.commit) for each in earlier.entries] == [("mlp-1024", "abc"), ("mlp", "def")]


def test_tables_are_those_of_the_records(bench):
    """Nobody writes a figure by hand: ``python experiments/benchmarks/publish.py`` does."""
    publish = bench["publish"]
    found = bench["records"].read_all(publish.RESULTS)
    assert (publish.RESULTS / "cpu.md").read_text("utf-8") == publish.full(found)
    for path, text in publish.pages(found).items():
        assert publish.BLOCK.findall(path.read_text("utf-8")) == [text], path.name


def test_partial_runs_count_in_proportion(bench, tmp_path):
    (tmp_path / "role.py").write_text(
        "from worker import Prepared, Spent\ndef quarter(workload, arrays, note):\n"
        "    return Prepared(lambda: (arrays['x'], Spent(2.0, 3.0)), share=0.25, note=note)\n"
    )
    np.savez(tmp_path / "arrays.npz", x=np.ones(3))
    path = json.dumps([str(FOLDER), str(tmp_path)])
    script = f"import sys; sys.path[:0] = {path}; import worker; worker.main()"
    command = [sys.executable, "-c", script, "mlp:sweep", "role:quarter", str(tmp_path / "arrays.npz"), '{"note": "n"}']
    measured = bench["harness"].alternate({"A": lambda: bench["harness"].Worker(command, 20.0)}, 2)["A"]
    assert measured.error == ""
    assert [tuple(lap) for lap in measured.laps] == [(8.0, 12.0, [1.0] * 3)] * 2
    assert (measured.compiled, measured.note) == (0.0, "n")


def test_rows_name_what_is_there(bench):
    for row in bench["rows"].ROWS.values():
        for competitor in (row.ours, *(rival for rival, _ in row.rivals)):
            module, function = competitor.role.split(":")
            assert f"def {function}(workload, arrays" in (FOLDER / f"{module}.py").read_text()


def test_hyperparameters_stay_in_their_ranges(bench):
    arrays = bench["mlp"].sweep.arrays(1000)
    for name, (low, high) in bench["mlp"].sweep.ranges.items():
        values = arrays[f"h_{name}"]
        assert values.shape == (1000,)
        assert low <= values.min() < values.max() <= high
    assert np.median(arrays["h_learning_rate"]) < 0.1  # logarithmic: the middle is at 0.055, else at 0.155


def test_the_table_of_accelerators_is_made(bench, tmp_path, monkeypatch):
    accelerator = importlib.import_module("accelerator")
    monkeypatch.setattr(accelerator, "measured", lambda size, rounds: accelerator.Device(1e12, 1e12, 4e12))
    monkeypatch.setattr(accelerator, "steps_alone", lambda sweep, steps, rounds: (2.0, (1e12, 5e11)))
    monkeypatch.setattr(accelerator, "seconds", lambda run, rounds: 4.0)
    monkeypatch.setattr(accelerator, "sweep_of", lambda *given, **more: None)
    monkeypatch.setattr(accelerator.rivals, "vmapped", lambda *given: SimpleNamespace(run=None))
    accelerator.main(tmp_path, ("MLP",), lanes=(1, 4096), rounds=1, steps=2, with_laws=False)
    (file,) = tmp_path.glob("*.md")
    text = file.read_text()
    assert "| MLP | float32 | 4,096 | 1000.000 | 100% | arithmetic | 2000.000 | 2000.000 | 2.00× | 1.00 |" in text
    assert "| MLP | bfloat16 | 1 | 1000.000 | 50% | memory | 2000.000 | — | — | 1.00 |" in text
    assert "4,096 lanes of the MLP take 1.00 times as long as one; at most 6 is the target." in text
