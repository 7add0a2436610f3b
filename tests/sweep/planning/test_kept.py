"""What is kept for later runs: no run needs it, and what keeps it from being read or written is told once."""

import errno
from dataclasses import dataclass

import pytest

from hpjax.sweep.planning import kept


@dataclass(frozen=True)
class Numbers:
    found: tuple[int, ...] = ()


def test_what_was_written_is_read(tmp_path):
    file = tmp_path / "folder" / "numbers.json"
    assert kept.read(file, Numbers) is None, "nothing is told of what is not there"
    kept.write(file, Numbers((1, 2)))
    assert kept.read(file, Numbers) == Numbers((1, 2))


@pytest.mark.parametrize(
    "content", [b"", b'{"found": [1, "2"]}', b'{"found": [NaN]}', b'{"found": "\xff"}', b"[" * 99999]
)
def test_what_is_damaged_is_told_once(content, tmp_path):
    file = tmp_path / "numbers.json"
    file.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=f"{file} cannot be read: .* Delete the file") as told:
        assert kept.read(file, Numbers) is kept.read(file, Numbers) is None
    assert len(told) == 1


def test_what_cannot_be_opened_is_told_once(tmp_path):
    with pytest.warns(RuntimeWarning, match=f"{tmp_path} cannot be read: .*Is a directory") as told:
        assert kept.read(tmp_path, Numbers) is kept.read(tmp_path, Numbers) is None
    assert len(told) == 1


def test_a_full_disk_is_told_once_for_all_files(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(kept, "write_bytes", full)
    message = f"{tmp_path} cannot be written: No space left on device. .* Free space"
    with pytest.warns(RuntimeWarning, match=message) as told:
        [kept.write(tmp_path / name, Numbers()) for name in ("a.json", "b.json")]
    assert len(told) == 1
