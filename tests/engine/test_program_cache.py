"""Compiled programs on disk: what is damaged, a folder that is full or cannot be written, and how much is kept."""

import os
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpjax.core.fallback import warn_once
from hpjax.engine import program_cache
from hpjax.engine.program_cache import ProgramCache
from tests.support.processes import full_disk

PROGRAM = bytes(range(84))  # 100 bytes with its checksum


@pytest.fixture(autouse=True)
def untold():
    warn_once.cache_clear()


def names(folder):
    return {file.name for file in folder.iterdir()}


def test_what_is_kept_is_found_by_its_key(tmp_path):
    cache = ProgramCache(tmp_path / "made")
    assert cache.get("a") is None
    cache.put("a", PROGRAM)
    cache.put("b", b"")
    shutil.copytree(tmp_path / "made", tmp_path / "there")
    shutil.rmtree(tmp_path / "made")
    assert [cache.get(key) for key in "ab"] == [None, None], "the folder may be deleted"
    assert [ProgramCache(tmp_path / "there").get(key) for key in "abc"] == [PROGRAM, b"", None]
    cache.put("a", PROGRAM)
    assert names(tmp_path / "made") == {"a.program"}


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:-1], lambda content: content[:5] + b"?" + content[6:]],
    ids=["empty", "cut off", "changed"],
)
def test_what_is_damaged_is_told_once_and_kept_anew(tmp_path, damage):
    cache = ProgramCache(tmp_path)
    for key in "ab":
        cache.put(key, PROGRAM)
        (tmp_path / f"{key}.program").write_bytes(damage((tmp_path / f"{key}.program").read_bytes()))
    with pytest.warns(RuntimeWarning, match="^compiled programs in .* are damaged: they are compiled again") as caught:
        assert [cache.get(key) for key in "ab"] == [None, None]
    assert len(caught) == 1
    assert names(tmp_path) == set()
    cache.put("a", PROGRAM)
    assert cache.get("a") == PROGRAM


def test_what_jax_could_not_load_is_replaced(tmp_path):
    cache = ProgramCache(tmp_path)
    cache.put("a", b"of another compiler")
    cache.put("a", PROGRAM)
    assert cache.get("a") == PROGRAM


def test_what_was_not_used_for_longest_makes_room_in_the_same_process(tmp_path):
    cache = ProgramCache(tmp_path, most=350)
    for age, key in enumerate("cba"):
        cache.put(key, PROGRAM)
        os.utime(tmp_path / f"{key}.program", (1000 - age, 1000 - age))
    assert cache.get("a") == PROGRAM
    cache.put("d", PROGRAM)
    assert names(tmp_path) == {"a.program", "c.program", "d.program"}, "a was used a moment ago"
    cache.put("larger than all", bytes(351))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 350


def test_what_other_processes_drop_meanwhile_is_no_error(tmp_path, monkeypatch):
    for key in "abc":
        (tmp_path / key).write_bytes(bytes(100))
    (tmp_path / "gone").symlink_to("nowhere")
    known = Path.stat

    def stat(self, **more):
        found = known(self, **more)
        if self.name in ("a", "b"):
            self.unlink()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", stat)
        program_cache.drop_oldest(tmp_path, 0)
    assert names(tmp_path) == {"gone"}


def test_a_full_disk_is_told_once_and_nothing_is_left_in_part(tmp_path):
    cache = ProgramCache(tmp_path)
    cache.put("a", PROGRAM)
    with full_disk(1000), pytest.warns(RuntimeWarning, match="not kept for the next run: File too large") as caught:
        [cache.put(key, bytes(5000)) for key in "bc"]
    assert len(caught) == 1
    assert names(tmp_path) == {"a.program"}
    cache.put("b", bytes(5000))
    assert (cache.get("a"), cache.get("b")) == (PROGRAM, bytes(5000)), "once there is room again"


@pytest.mark.parametrize("fault", ["in the way", "full", "read-only"])
def test_a_folder_that_cannot_be_written_is_told_once(tmp_path, fault):
    if fault == "in the way":
        (tmp_path / "programs").write_text("in the way")
    if fault == "read-only":
        tmp_path.chmod(0o500)
        if os.access(tmp_path, os.W_OK):
            pytest.skip("root may write anywhere")
    with (
        full_disk(1000 if fault == "full" else -1),
        pytest.warns(RuntimeWarning, match="XDG_CACHE_HOME to a folder that can be written") as caught,
    ):
        assert [program_cache.usable(tmp_path / "programs") for _ in range(2)] == [False, False]
    assert len(caught) == 1


def test_a_folder_that_can_be_written_is_left_empty(tmp_path):
    with warnings.catch_warnings(action="error"):
        assert program_cache.usable(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == set()


def test_a_jax_that_keeps_programs_in_another_way_is_told(tmp_path, monkeypatch):
    renamed = SimpleNamespace(_store=None)
    monkeypatch.setattr(program_cache, "import_module", lambda name: renamed)
    with pytest.warns(RuntimeWarning, match=r"^compilation_cache: jax .* are not bounded in size"):
        program_cache.install(tmp_path)
    assert vars(renamed) == {"_store": None}
