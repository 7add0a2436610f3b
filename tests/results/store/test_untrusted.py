"""Run directories are data: a damaged one gives an error that names what is wrong, and touches nothing else."""

import contextlib
import functools
import json
import os
import pickle
import shutil
import sqlite3
import struct
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hpjax as hpx
from hpjax.frontends.cli import main
from hpjax.results.store import checkpoints
from tests.support.compare import same_bits
from tests.support.interrupted import abandon, whole
from tests.support.killed import SWEEPS
from tests.support.marks import slow

SWEEP = SWEEPS["halving"]
CASES = int(os.environ.get("HPJAX_DAMAGES", "1"))
SECRET = "precious\n"

# What Orbax has begun to read when it fails ends after its event loop did.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, and one that was interrupted and has checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    abandon("halving", folder / "interrupted", 20)
    SWEEP.run(folder / "finished", progress=False)
    assert len(list((folder / "interrupted" / "checkpoints").iterdir())) == 2
    return folder


class World:
    """A copy of a run directory, and beside it what nobody may touch."""

    def __init__(self, runs, folder, kind):
        self.run, self.outside = folder / "run", folder / "outside"
        shutil.copytree(runs / kind, self.run)
        self.outside.mkdir()
        (self.outside / "secret.txt").write_text(SECRET)
        (self.outside / "folder").mkdir()
        self.before = self.seen()

    def seen(self):
        """All that stands beside the run directory, with what it holds and when it changed."""
        beside = [p for p in sorted(self.run.parent.rglob("*")) if self.run not in (p, *p.parents)]
        return {str(p): (p.read_bytes() if p.is_file() else None, p.lstat().st_mtime_ns) for p in beside}

    def check(self):
        assert self.seen() == self.before, "something outside the run directory changed"

    def edit(self, name, change):
        path = self.run / name
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    def sql(self, *statements):
        with contextlib.closing(sqlite3.connect(self.run / "results.sqlite")) as database:
            database.execute("PRAGMA ignore_check_constraints=ON")
            for statement in statements:
                database.execute(*((statement,) if isinstance(statement, str) else statement))
            database.commit()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def refused(self, message, how=None):
        with pytest.raises((hpx.RunError, hpx.InputError), match=message):
            (how or hpx.load)(self.run)
        self.check()


def resume(directory):
    return SWEEP.run(directory, progress=False)


@pytest.fixture
def finished(runs, tmp_path):
    return World(runs, tmp_path, "finished")


@pytest.fixture
def interrupted(runs, tmp_path):
    return World(runs, tmp_path, "interrupted")


KNOWN = (
    "manifest.json",
    "manifest.json.part",
    "results.sqlite",
    "results.sqlite-wal",
    "results.sqlite-shm",
    "results.sqlite-journal",
    ".lock",
    "overview.png",
    "map.png",
    "results.csv",
    "optuna.log",
    "states",
    "states/wave-0",
    "states/wave-0/lanes.npy",
    "states/wave-0/tree.json",
    "artifacts",
    "artifacts/trial-0",
    "checkpoints",
    "checkpoints/99",
)


def attempts(world):
    """All that reads, writes or goes on, each of which must say no."""
    plots = [["plot"], ["export", "--csv"], ["export", "--optuna"], ["show"]]
    for command, *options in plots:
        done = CliRunner().invoke(main, [command, str(world.run), *options])
        assert done.exit_code == 2, done.output
        yield done.output
    with pytest.raises(hpx.RunError) as caught:
        resume(world.run)
    yield str(caught.value)


FOLDERS = ("artifacts", "artifacts/trial-0", "states", "states/wave-0", "checkpoints", "checkpoints/99")
FEW = [(os.symlink, name) for name in ("results.sqlite", "artifacts", "states/wave-0")] + [(os.link, "manifest.json")]
LINKS = [(os.symlink, name) for name in KNOWN] + [(os.link, name) for name in KNOWN if name not in FOLDERS]


@pytest.mark.parametrize(("kind", "name"), [link if link in FEW else slow(*link) for link in LINKS])
def test_no_link_is_followed(finished, name, kind):
    path = finished.run / name
    folder = name in FOLDERS
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    kind(finished.outside / ("folder" if folder else "secret.txt"), path)
    finished.before = finished.seen()
    for said in attempts(finished):
        assert path.name in said
        assert "holds only files and folders of its own" in said
        finished.check()


def test_the_directory_itself_may_be_a_link(finished):
    (finished.run.parent / "link").symlink_to(finished.run)
    assert hpx.load(finished.run.parent / "link").best.id == hpx.load(finished.run).best.id


def test_a_pipe_is_not_opened(finished):
    (finished.run / "results.csv").unlink(missing_ok=True)
    os.mkfifo(finished.run / "results.csv")
    finished.refused("neither a file nor a folder")


def journal(target, pages):
    """A rollback journal that names a super-journal: who rolls it back deletes that file."""
    name = str(target).encode()
    magic = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
    head = (magic + struct.pack(">IIIII", 0, 0, pages, 512, 4096)).ljust(512, b"\0")
    return head + struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + magic


def test_a_journal_that_deletes_a_file_elsewhere_is_not_rolled_back(interrupted):
    database = interrupted.run / "results.sqlite"
    interrupted.sql("PRAGMA journal_mode=DELETE")
    victim = interrupted.outside / "secret.txt"
    (interrupted.run / "results.sqlite-journal").write_bytes(journal(victim, database.stat().st_size // 4096))
    interrupted.refused("results.sqlite-journal, which no run leaves")
    assert len(resume(interrupted.run)) == 12, "it began anew"
    interrupted.check()
    # SQLite itself would have done so.
    database = interrupted.run.parent / "plain.sqlite"
    plain = sqlite3.connect(database)
    plain.execute("CREATE TABLE t (x)")
    plain.commit()
    plain.close()
    database.with_name("plain.sqlite-journal").write_bytes(journal(victim, database.stat().st_size // 4096))
    plain = sqlite3.connect(database)
    plain.execute("SELECT * FROM t")
    plain.close()
    assert not victim.exists()


FAR = "CAST(x'7fffffff' || substr(data, 5) AS BLOB)"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "CREATE TRIGGER t AFTER UPDATE ON lanes BEGIN DELETE FROM curves; END",
            "is not the database of a run: trigger 't'",
        ),
        ("CREATE VIEW v AS SELECT * FROM trials", "is not the database of a run: view 'v'"),
        ("CREATE TABLE more (x)", "is not the database of a run: table 'more'"),
        ("ALTER TABLE finished ADD COLUMN x", "is not the database of a run: table 'finished'"),
        ("UPDATE curves SET segment = 1000000000000 WHERE segment = 0", "curves.segment is 1000000000000 in a row"),
        ("UPDATE curves SET segment = 1000000 WHERE segment = 0", "12 evaluations, and one has the number 1000000"),
        ("UPDATE curves SET segment = -1 WHERE segment = 0", "curves.segment is -1 in a row"),
        ("UPDATE curves SET dtype = '|O8'", "curves.dtype is '|O8' in a row"),
        ("UPDATE curves SET data = x'00'", "curves.data is X'00' in a row"),
        ("UPDATE curves SET data = zeroblob(400) WHERE metric = 'step'", "the arrays of wave 0, segment 0, do not fit"),
        (
            "UPDATE curves SET data = CAST(x'7fffffff' || substr(data, 5) AS BLOB) WHERE metric = 'trial'",
            "an array of curves has trial",
        ),
        (
            "UPDATE curves SET metric = 'valid/other' WHERE metric = 'valid/loss'",
            "'valid/other'.*is no metric of the run",
        ),
        ("UPDATE trials SET trial = 99 WHERE trial = 3", "trials.trial is 99 in a row"),
        ("UPDATE trials SET wave = 'x' WHERE trial = 3", "trials.wave is 'x' in a row"),
        ("DELETE FROM lanes WHERE trial = 3", "12 trials of 1 replicates have 11 lanes"),
        ("UPDATE lanes SET status = 'gone'", "lanes.status is 'gone' in a row"),
        ("UPDATE lanes SET replicate = 7 WHERE trial = 0", "lanes.replicate is 7 in a row"),
        ("UPDATE trials SET hparams = '[1]'", "where a JSON object must be"),
        ("UPDATE trials SET hparams = '{\"rate\": {}}'", "hyperparameters .*, which no run writes"),
        (
            "UPDATE trials SET hparams = '{\"other\": 1}'",
            "has hyperparameters .'other'., and the manifest has none",
        ),
        (("UPDATE trials SET hparams = ?", ["{" + '"a":[' * 100_000]), "where a JSON object must be"),
        ("INSERT INTO clones VALUES (0, 1, 99, '{}')", "clones.source is 99 in a row"),
        ("INSERT INTO tests VALUES (0, '{\"trial\": 1}')", "metrics .* which no run writes"),
        ("UPDATE finished SET seconds = 'long'", "finished.seconds is 'long' in a row"),
    ],
)
def test_a_database_that_no_run_wrote(finished, statement, message):
    finished.sql(statement)
    finished.refused(message.replace("|", r"\|"), lambda run: hpx.load(run).table())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE lanes SET status = 'gone'",
        "UPDATE trials SET wave = -2",
        "UPDATE curves SET data = x'00'",
        "UPDATE finished SET seconds = -1",
        "INSERT INTO tests VALUES (99, '{}')",
        "INSERT INTO clones VALUES (0, 1, 99, '{}')",
    ],
)
def test_the_database_itself_refuses_rows_that_no_run_writes(finished, statement):
    with contextlib.closing(sqlite3.connect(finished.run / "results.sqlite")) as database:
        database.execute("PRAGMA foreign_keys=ON")
        with pytest.raises(sqlite3.IntegrityError, match="constraint failed"):
            database.execute(statement)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("replicates", 10**12, "sweep.replicates = 1000000000000: Expected `int` <= 2147483647"),
        ("replicates", 2**30, "12 trials of 1073741824 replicates have 12 lanes"),
        ("replicates", "1", "sweep.replicates = '1': Expected `int`, got `str`"),
        ("replicates", True, "sweep.replicates = True: Expected `int`, got `bool`"),
        ("width", None, "sweep.width = None: Expected `array`, got `null`"),
        ("folds", 0, "sweep.folds = 0: Expected `int` >= 1"),
        ("names", ["../../etc"], r"sweep.names\[0\] = '../../etc': Expected `str` matching regex"),
        ("names", "rate", "sweep.names = 'rate': Expected `array`, got `str`"),
        ("metrics", [["valid/loss"]], r"sweep.metrics\[0\] = .'valid/loss'.: Expected `str`, got `array`"),
        ("scales", {"rate": "log"}, "sweep.scales = .*: must have the names in sweep.names"),
        ("scales", {"rate": []}, "sweep.scales = .*: Expected `str`, got `array`"),
        ("ranges", [{"rate": [0.1, "1", "log"]}], r"sweep.ranges\[0\] = .*: Expected `float`, got `str`"),
        ("program", ["study"], r"sweep.program = .'study'.: Expected `object`, got `array`"),
        ("ranges", [], r"sweep.ranges = \(\): must have the alternatives of sweep.space"),
        ("options", [{"rate": [1]}], r"sweep.options\[0\] = .*: Expected `str`, got `int`"),
        ("options", [{}, {}], "sweep.options = .*: must have the alternatives of sweep.space"),
        ("space", {"alternative 0": []}, "sweep.space = .*: Expected `object`, got `array`"),
        ("metrics", ["valid/loss", "valid/\x1b]0;title"], "sweep.metrics = .*: must be printable"),
        ("metrics", ["valid/loss", "valid/loss"], "sweep.metrics = .*: must have no doubles"),
        ("rounds", [11], "sweep.rounds = .*: must add up to sweep.trials"),
        ("study", {"kind": "batch scaling"}, "sweep.study = .*: Object missing required field `target`"),
        ("other", 1, "sweep = .*: Object contains unknown field `other`"),
        (
            "objective",
            ["valid/loss", "minimise", None],
            r"sweep.objective\[1\] = 'minimise': Invalid enum value 'minimise'",
        ),
        ("objective", ["valid/other", "minimize", None], "sweep.objective = .*: must be one of sweep.metrics"),
    ],
)
def test_a_manifest_that_no_run_wrote(finished, name, value, message):
    finished.edit("manifest.json", lambda manifest: manifest["sweep"].update({name: value}))
    finished.refused(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "manifest.json cannot be read: maximum recursion depth"),
        (b'{"format": 2, "sweep": ' + b"[" * 40 + b"]" * 40 + b"}", "nested more than 32 levels deep"),
        (b'{"format": NaN}', "NaN is no number of JSON"),
        (b'{"format": 2, "a": "\\ud800"}', "manifest.json cannot be read: .*surrogates not allowed"),
        (b"\xff\xfe{", "manifest.json cannot be read: 'utf-8' codec"),
        (b"\x80\x04\x95.", "manifest.json cannot be read"),
        (b"[]", "is no manifest of format 2"),
        (b"", "manifest.json cannot be read"),
    ],
)
def test_a_manifest_that_is_no_json(finished, content, message):
    (finished.run / "manifest.json").write_bytes(content)
    finished.refused(message)
    finished.refused(message, resume)


def test_a_manifest_whose_ranges_are_not_those_of_its_space(finished):
    finished.edit("manifest.json", lambda manifest: manifest["sweep"].update(ranges=[{}]))
    finished.refused(r"ranges: ", resume)


def test_a_manifest_that_names_another_width(finished):
    finished.edit("manifest.json", lambda manifest: manifest["sweep"].update(width=[4]))
    finished.refused(r"width: \[4\] there, \[2, 2, 2\] here", resume)


def test_a_truncated_database(finished):
    path = finished.run / "results.sqlite"
    path.write_bytes(path.read_bytes()[:-8192])
    finished.refused("results.sqlite cannot be read: .*malformed")
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
    finished.refused("results.sqlite cannot be read: file is not a database")


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path(os.environ["HPJAX_BOMB"]),)


def header(shape, dtype):
    """A file of NumPy that promises so much and holds nothing."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("0.npy", "object", "Array can't be memory-mapped: Python objects in dtype"),
        ("lanes.npy", "object", "Array can't be memory-mapped: Python objects in dtype"),
        ("0.npy", "pickle", "magic string is not correct"),
        ("0.npy", "npz", "magic string is not correct"),
        ("0.npy", header((10**12, 3), "<f4"), "mmap length is greater than file size"),
        ("lanes.npy", header((10**12, 2), "<i4"), "mmap length is greater than file size"),
        ("0.npy", header((1, 3), "<f8") + bytes(24), "0.npy is float64 .*, and must be int32 of shape"),
        ("0.npy", b"", "cannot be read"),
        ("tree.json", b'[{"path": ["../../../x"], "dtype": "object"}]', "'object' is no dtype of a state"),
        ("tree.json", b'[{"path": [["w"]], "dtype": "float32"}]', r"\[0\].path\[0\] = .'w'.: Expected `int \| str`"),
        ("tree.json", b'[{"path": "w", "dtype": "float32"}]', r"\[0\].path = 'w': Expected `array`, got `str`"),
        (
            "tree.json",
            b'[{"path": ["w"], "dtype": "int32"}, {"path": ["w", "x"], "dtype": "int32"}]',
            r"\[0\].path = .'w',.: must be of this leaf alone",
        ),
        ("tree.json", json.dumps([{"path": [str(i)], "dtype": "int32"} for i in range(9)]).encode(), "cannot be read"),
    ],
)
def test_states_that_no_run_wrote(finished, name, content, message, monkeypatch):
    monkeypatch.setenv("HPJAX_BOMB", str(finished.outside / "bomb"))
    result = hpx.load(finished.run)
    path = finished.run / "states" / f"wave-{result.waves[result.best.id]}" / name
    if content == "object":
        np.save(path, np.array([[Bomb()]], object), allow_pickle=True)
    elif content == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif content == "npz":
        with path.open("wb") as file:
            np.savez(file, a=np.array([Bomb()], object))
    else:
        path.write_bytes(content)
    finished.refused(message, lambda run: hpx.load(run).best.restore())


def test_a_path_in_a_state_is_a_key_and_no_file(finished):
    """Whatever names the leaves have, they are read from N.npy."""
    for tree in finished.run.glob("states/*/tree.json"):
        leaves = json.loads(tree.read_text())
        leaves[0]["path"] = ["../../../outside/secret.txt"]
        tree.write_text(json.dumps(leaves))
    assert "../../../outside/secret.txt" in hpx.load(finished.run).best.restore()
    finished.check()


def rewritten(folder, change):
    """A checkpoint as an attacker would write it: other arrays and JSON, with digests that fit them."""
    import orbax.checkpoint as ocp

    from hpjax.results.store.array_files import digests

    read = ocp.args.Composite(state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore())
    with ocp.CheckpointManager(folder) as manager:
        saved = {step: manager.restore(step, args=read) for step in manager.all_steps()}
    shutil.rmtree(folder)
    with ocp.CheckpointManager(folder) as manager:
        for step, found in saved.items():
            arrays, meta = dict(found["state"]), found["meta"]
            change(arrays, meta)
            meta["digests"] = digests({name: np.asarray(a) for name, a in arrays.items()})
            manager.save(
                step, args=ocp.args.Composite(state=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta))
            )


CRAFTED = [
    (lambda a, m: a.pop("scores/values"), "scores/values is missing"),
    (
        lambda a, m: a.update({"scores/values": np.zeros((3, 1))}),
        r"scores/values is float64 \(3, 1\), and must be float64 \(12, 1\)",
    ),
    (lambda a, m: a.update({"scores/steps": np.full(12, -9)}), "its scores/steps has numbers outside 0 … 2147483647"),
    (lambda a, m: a.update({"status": np.full((12, 1), 9, np.int8)}), "its status has numbers outside 0 … 5"),
    (lambda a, m: a.update({"progress/round": np.int64(7)}), "its progress/round has numbers outside 0 … 0"),
    (lambda a, m: a.update({"seconds": np.float64("nan")}), "its seconds are nan, and must be 0 or more"),
    (lambda a, m: a.update({"seconds": np.zeros(2)}), r"seconds is float64 \(2,\), and must be float64 \(\)"),
    (lambda a, m: a.pop("waves/0/trial"), "waves/0/trial is missing"),
    (lambda a, m: a.update({"waves/0/trial": a["waves/0/trial"] + 99}), "its waves/0/trial has numbers outside 0 … 11"),
    (lambda a, m: a.update({"waves/99/trial": a["waves/0/trial"]}), "waves/3/number is missing"),
    (
        lambda a, m: a.update({"waves/0/lanes/0/arrays/0": np.zeros((1, 7))}),
        r"waves/0/lanes/0/arrays/0 is float64 \(1, 7\)",
    ),
    (lambda a, m: m.update(hosts=2), "it says that 2 hosts wrote it, and there are parts of 1"),
    (lambda a, m: a.update({"waves/0/stream": np.zeros(3, np.uint8)}), "waves/0/stream is nothing that a run"),
    (lambda a, m: a.update({"waves/1/number": np.int64(7)}), "its waves are .*, and must have consecutive numbers"),
    (lambda a, m: a.update({"waves/0/number": np.int64(-1)}), "its waves are .-1"),
    (lambda a, m: m["empty"].update({"waves/0/lost": [[10**12], "bool"]}), "an empty array has the shape"),
    (lambda a, m: m.update(empty=[]), "it cannot be read"),
]


@pytest.mark.parametrize(
    "change",
    [(slow if number % 5 else pytest.param)(each, id=each[1]) for number, each in enumerate(CRAFTED)],
)
def test_a_crafted_checkpoint_is_not_used(interrupted, change):
    rewritten(interrupted.run / "checkpoints", change[0])
    with (
        pytest.warns(UserWarning, match=change[1]),
        pytest.raises(hpx.RunError, match=r"none of the checkpoints \[.*\] in .* can be used"),
    ):
        resume(interrupted.run)
    interrupted.check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda trial: np.full_like(trial, trial[0]), "the lanes of wave 0 are not those of its trials"),
        (lambda trial: trial[::-1].copy(), "the lanes of wave 0 are not those of its trials"),
        (lambda trial: np.concatenate([trial[:-1], [11]]).astype(np.int32), "wave 0 has trials of several groups"),
    ],
    ids=["one trial for all", "in another order", "of another group"],
)
def test_lanes_of_other_trials_are_refused(interrupted, change, message):
    rewritten(
        interrupted.run / "checkpoints",
        lambda arrays, meta: arrays.update({"waves/0/trial": change(np.asarray(arrays["waves/0/trial"]))}),
    )
    interrupted.refused(rf"is not of this sweep: {message}.* Delete the newest folder", resume)


def test_a_checkpoint_of_other_lanes_is_refused(interrupted):
    def change(arrays, meta):
        lanes = len(arrays["waves/0/live"])
        arrays["waves/0/lanes/0/arrays/0"] = np.zeros((lanes, 7), np.float32)

    rewritten(interrupted.run / "checkpoints", change)
    message = r"is not of this sweep: array 0 of \d+ lanes is float32 \(\d+, 7\).* Delete the newest folder"
    interrupted.refused(message, resume)


@pytest.mark.slow
def test_a_checkpoint_that_is_ahead_of_its_database_is_refused(interrupted):
    def change(arrays, meta):
        arrays["clones"] = np.int64(3)

    rewritten(interrupted.run / "checkpoints", change)
    interrupted.refused("lacks what its checkpoint was made of", resume)


def test_a_checkpoint_larger_than_memory_is_not_restored(interrupted, monkeypatch):
    """Its shapes are looked at before anything is allocated: here more is promised than a host has."""
    monkeypatch.setattr(checkpoints, "host_memory", lambda: 100)
    with (
        pytest.warns(UserWarning, match="its arrays take .*, more than the memory of this host"),
        pytest.raises(hpx.RunError, match="none of the checkpoints"),
    ):
        resume(interrupted.run)


def test_arrays_of_a_checkpoint_are_read_from_its_own_files(interrupted):
    """Orbax without OCDBT reads each array from where its name leads."""
    for path in interrupted.run.glob("checkpoints/*/state/_METADATA"):
        meta = json.loads(path.read_text())
        entry = next(iter(meta["tree_metadata"].values()))
        entry["key_metadata"][0]["key"] = str(interrupted.outside / "folder")
        path.write_text(json.dumps(meta | {"use_ocdbt": False}))
    with (
        pytest.warns(UserWarning, match="its arrays are not kept as a run keeps them"),
        pytest.raises(hpx.RunError, match="none of the checkpoints"),
    ):
        resume(interrupted.run)
    interrupted.check()


def test_what_is_printed_cannot_steer_a_terminal(finished):
    finished.sql(("UPDATE trials SET hparams = ?", [json.dumps({"rate": "\x1b]0;title\x07\n\ud800", "size": 1})]))
    done = CliRunner().invoke(main, ["show", str(finished.run)])
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert r"\x1b]0;title\x07\n\ud800" in done.output


# ---- The property: whatever is damaged, there is an answer or an error that names something.

ODD_JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([[[]]]),
    st.just("../../outside/secret.txt"),
    st.just("x" * 10_000),
    st.just({"a": [1, None]}),
)
ODD_SQL = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-2, 20),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=40),
    st.sampled_from(['{"rate": 1e308, "size": 2}', '{"rate": NaN, "size": null}', "[]", "stopped"]),
)
COLUMNS = [
    (table, column)
    for table, columns in {
        "trials": "trial round grp wave hparams",
        "lanes": "trial replicate status step",
        "curves": "wave segment metric dtype data",
        "clones": "trial step source hparams",
        "compilations": "grp seconds",
        "tests": "trial metrics",
        "finished": "seconds",
    }.items()
    for column in columns.split()
]


def within(value, at):
    """The place in a JSON value that ``at`` leads to: its holder and key."""
    holder, key = None, None
    while isinstance(value, dict | list) and value and (holder is None or at):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        holder, key = value, keys[at.pop(0) % len(keys)] if at else keys[0]
        value = holder[key]
    return holder, key


class Damage:
    """Kinds of damage, each a function of the world and of what Hypothesis draws."""

    @staticmethod
    def file(world, draw, ending=""):
        files = sorted(p for p in world.run.rglob(f"*{ending}") if p.is_file() and not p.is_symlink())
        return draw(st.sampled_from(files)) if files else None

    @staticmethod
    def noise(world, draw):
        if path := Damage.file(world, draw):
            content = bytearray(path.read_bytes())
            at = draw(st.integers(0, max(len(content) - 1, 0)))
            new = draw(st.binary(min_size=1, max_size=16))
            content[at : at + len(new)] = new
            path.write_bytes(content)

    @staticmethod
    def truncation(world, draw):
        if path := Damage.file(world, draw):
            path.write_bytes(path.read_bytes()[: draw(st.integers(0, path.stat().st_size))])

    @staticmethod
    def deletion(world, draw):
        if path := draw(st.sampled_from([None, *sorted(world.run.rglob("*"))])):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    @staticmethod
    def duplication(world, draw):
        source, target = Damage.file(world, draw), Damage.file(world, draw)
        if source and target and source != target:
            target.write_bytes(source.read_bytes())

    @staticmethod
    def json(world, draw):
        names = ("manifest.json", "tree.json", "metadata", "_METADATA", "_CHECKPOINT_METADATA")
        files = sorted(p for p in world.run.rglob("*") if p.name in names and p.is_file() and not p.is_symlink())
        if not files:
            return
        path = draw(st.sampled_from(files))
        with contextlib.suppress(ValueError):
            value = json.loads(path.read_bytes())
            holder, key = within(value, draw(st.lists(st.integers(0, 99), min_size=1, max_size=6)))
            if holder is not None:
                holder[key] = draw(ODD_JSON)
                path.write_text(json.dumps(value))

    @staticmethod
    def sql(world, draw):
        table, column = draw(st.sampled_from(COLUMNS))
        value, number = draw(ODD_SQL), draw(st.integers(0, 12))
        with contextlib.suppress(sqlite3.Error, UnicodeEncodeError, OverflowError):
            if draw(st.booleans()):
                world.sql((f"UPDATE OR REPLACE {table} SET {column} = ?", [value]))
            elif table in ("clones", "finished", "compilations", "tests", "trials"):
                world.sql((f"UPDATE OR IGNORE {table} SET {column} = ? WHERE rowid = ?", [value, number]))
            else:
                world.sql((f"INSERT OR REPLACE INTO {table} ({column}) VALUES (?)", [value]))

    @staticmethod
    def array(world, draw):
        if path := Damage.file(world, draw, ".npy"):
            shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 10**12]), max_size=3)))
            dtype = draw(st.sampled_from(["<f4", "<i4", "|O", "|V4", "<U3", ">f8", "|V0"]))
            path.write_bytes(header(shape, dtype) + draw(st.binary(max_size=40)))

    @staticmethod
    def extra(world, draw):
        name = draw(
            st.sampled_from(
                ["x", "overview.png", "report.html", "results.csv", "states/x", "checkpoints/x", "checkpoints/30/x"]
            )
        )
        with contextlib.suppress(OSError):
            path = world.run / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(path):
                return
            if draw(st.booleans()):
                path.symlink_to(world.outside / draw(st.sampled_from(["secret.txt", "folder", "nothing"])))
            elif draw(st.booleans()):
                path.mkdir()
            else:
                path.write_bytes(draw(st.binary(max_size=40)))


KINDS = ["noise", "truncation", "deletion", "duplication", "json", "sql", "array", "extra"]


def tried(runs, folder, kinds, data, act):
    """Damages a run directory one to three times and acts on it; nothing beside it may change."""
    world = World(runs, folder, data.draw(st.sampled_from(kinds)))
    for kind in data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3)):
        getattr(Damage, kind)(world, data.draw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        act(world.run)
    world.check()


def commanded(runs, tmp_path_factory, counted, cases, kinds, *command):
    outcomes = []

    def act(directory):
        done = CliRunner().invoke(main, [command[0], str(directory), *command[1:]])
        if done.exit_code != 0:
            assert done.exit_code == 2, (done.output, done.exception)
            assert done.exception is None or isinstance(done.exception, SystemExit)
            assert done.output.startswith("error: "), done.output
            assert len(done.output) > 20, done.output
        outcomes.append(done.exit_code)

    examine(runs, tmp_path_factory, cases, kinds, act)
    many, failed = len(outcomes), sum(code == 2 for code in outcomes)
    counted(f"{many} damaged run directories tried with {' '.join(command)}: {failed} refused")
    assert many >= cases
    assert 0 < failed < many


def examine(runs, tmp_path_factory, cases, kinds, act):
    @settings(max_examples=cases, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def each(data):
        folder = tmp_path_factory.mktemp("damaged")
        tried(runs, folder, kinds, data, act)
        shutil.rmtree(folder)

    each()


BOTH = ["finished", "interrupted"]


def few_and(many):
    """Few damaged directories in `make test`, many in the rest."""
    return pytest.mark.parametrize("cases", [20, slow(many * CASES)])


@few_and(140)
def test_show(runs, tmp_path_factory, counted, cases):
    commanded(runs, tmp_path_factory, counted, cases, BOTH, "show")


@pytest.mark.slow
def test_plot(runs, tmp_path_factory, monkeypatch, counted):
    # At full size drawing would be all of the time.
    from hpjax import plot
    from hpjax.results import picture_file

    monkeypatch.setitem(plot.STYLE, "figure.dpi", 20)
    monkeypatch.setattr(picture_file, "DPI", 20)
    commanded(runs, tmp_path_factory, counted, 10 * CASES, BOTH, "plot")


@few_and(20)
def test_report(runs, tmp_path_factory, counted, cases):
    commanded(runs, tmp_path_factory, counted, cases, BOTH, "report")


@few_and(100)
def test_export(runs, tmp_path_factory, counted, cases):
    commanded(runs, tmp_path_factory, counted, cases, BOTH, "export", "--csv")


@pytest.mark.slow
def test_export_to_optuna(runs, tmp_path_factory, counted):
    commanded(runs, tmp_path_factory, counted, 40 * CASES, BOTH, "export", "--optuna")


@few_and(40)
def test_restore(runs, tmp_path_factory, counted, cases):
    outcomes = []

    def act(directory):
        try:
            well = [trial for trial in hpx.load(directory) if trial.status not in ("running", "diverged")]
            outcomes.append(sum(len(jax.tree.leaves(trial.restore())) for trial in well))
        except (hpx.RunError, hpx.InputError):
            outcomes.append(None)

    examine(runs, tmp_path_factory, cases, ["finished"], act)
    counted(f"{len(outcomes)} damaged run directories tried with restore: {outcomes.count(None)} refused")
    assert len(outcomes) >= cases
    assert 0 < outcomes.count(None) < len(outcomes)


@functools.cache
def expected():
    return whole("halving")[0]


@few_and(40)
def test_resume(runs, tmp_path_factory, counted, cases):
    outcomes = []

    def act(directory):
        shown = sqlite_of(directory)
        try:
            found = resume(directory)
        except (hpx.RunError, hpx.InputError):
            outcomes.append(False)
            return
        outcomes.append(True)
        if shown == sqlite_of_original:
            for name in ("step", *expected().metrics):
                assert same_bits(found.curves(name), expected().curves(name))
            assert np.array_equal(found.lane_status, expected().lane_status)
            assert found.hparams == expected().hparams

    sqlite_of_original = sqlite_of(runs / "interrupted")
    examine(runs, tmp_path_factory, cases, ["interrupted"], act)
    counted(f"{len(outcomes)} damaged run directories tried with resume: {len(outcomes) - sum(outcomes)} refused")
    assert len(outcomes) >= cases
    assert 0 < sum(outcomes) < len(outcomes)


def sqlite_of(directory):
    """The bytes of a run's database: where they are damaged, what is shown of it may be too."""
    path = directory / "results.sqlite"
    return path.read_bytes() if path.is_file() else None
