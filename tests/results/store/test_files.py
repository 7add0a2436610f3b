"""Files are whole or not there, and text is UTF-8 whatever the locale says."""

import csv
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import hpjax as hpx
from hpjax.results.store.files import replacing, write_bytes, write_for_user

ROOT = Path(__file__).parents[3]


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_bytes(path, b"before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"after")
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["a"], "nothing half written stays"


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted():
        with replacing(tmp_path / "a") as part:
            part.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_error_names_the_file_that_the_user_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_for_user(tmp_path / "no such folder" / "a.csv", b"")
    assert caught.value.filename == str(tmp_path / "no such folder" / "a.csv")


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path):
    (tmp_path / "there").write_bytes(b"before")
    (tmp_path / "link").symlink_to("there")
    write_for_user(tmp_path / "link", b"after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_bytes() == b"after"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_for_user(tmp_path / "pipe", b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


SCRIPT = """
import sys, locale
import jax.numpy as jnp
import hpjax as hpx
assert locale.getpreferredencoding(False) != "UTF-8", locale.getpreferredencoding(False)
program = hpx.Program(
    lambda key, h: jnp.zeros(()), lambda key, s, b, h: (s, {}), lambda key, s, d, h: {"verlust_ä": h.rate}, steps=1
)
space = hpx.Space(rate=hpx.Choice(0.1, 0.2), s=hpx.Choice("a", "\\u03bb", "\\ud800"), größe=hpx.Choice(True, False))
sweep = hpx.Sweep(program, space, sampler=hpx.Grid(), objective=hpx.minimize("valid/verlust_ä"))
result = sweep.run("lauf", progress=False)
result.to_csv("a.csv")
result.to_optuna("a.log")
result.plot(path="a.svg")
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A folder with what a process with another locale than UTF-8 wrote."""
    folder = tmp_path_factory.mktemp("posix")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    environment = os.environ | {
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "LC_ALL": "POSIX",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_files_are_utf_8_under_any_locale(foreign):
    with open(foreign / "a.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:4] == ["trial", "rate", "s", "größe"]
    assert "valid/verlust_ä" in header
    assert [row[2] for row in rows[::2]] == ["a", "λ", r"\ud800"] * 2
    assert {row[3] for row in rows} == {"True", "False"}
    for name in ("a.log", "a.svg", "lauf/manifest.json"):
        assert (foreign / name).read_text(encoding="utf-8")
    assert not [each.name for each in foreign.rglob("*.part")]


def test_what_was_written_under_another_locale_is_read(foreign):
    result = hpx.load(foreign / "lauf")
    assert result.names == ("rate", "s", "größe")
    assert {trial.hparams["s"] for trial in result} == {"a", "λ", "\ud800"}
    assert result.table()["größe"].dtype == bool
