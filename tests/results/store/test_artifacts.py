"""The files of artifacts: what is written is read, and what nobody here wrote is refused."""

import io
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from hpjax.results.store.artifacts import Artifacts
from tests.support.compare import same_bits

ARRAYS = {
    "f": np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "scalar": np.float64(3.0),
    "whole": np.arange(3, dtype=np.int8),
    "flags": np.array([True, False]),
    "complex": np.array([1 + 2j], np.complex64),
    "empty": np.zeros((0, 3), np.float32),
    "ä b/c.npy": np.array(7, np.uint32),
}


@pytest.fixture(params=["memory", "directory"])
def artifacts(request, tmp_path):
    return Artifacts(tmp_path / "artifacts" if request.param == "directory" else None)


def test_what_is_added_is_read(artifacts):
    artifacts.add(7, 10, 200, {"w": np.ones(2)})
    artifacts.add(7, 2, 40, ARRAYS)
    artifacts.add(8, 2, 40, {"w": np.zeros(2)})
    (first, arrays), (second, _) = artifacts.of(7)
    assert (first.number, first.step, second.number, second.step) == (2, 40, 10, 200)
    assert arrays.keys() == ARRAYS.keys()
    assert all(same_bits(arrays[name], ARRAYS[name]) for name in ARRAYS)
    assert np.signbit(arrays["f"][0, 1])
    assert artifacts.of(9) == []


def test_an_evaluation_that_is_made_again_replaces_itself(artifacts):
    for value in (1, 2):
        artifacts.add(7, 2, 40, {"w": np.full(2, value)})
    ((_, arrays),) = artifacts.of(7)
    assert arrays["w"].tolist() == [2, 2]


def test_what_is_kept_is_no_view(artifacts):
    array = np.ones(2)
    artifacts.add(7, 2, 40, {"w": array})
    array[:] = 5
    assert artifacts.of(7)[0][1]["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("dtype", "values", "becomes"),
    [
        (jnp.bfloat16, [1.0, -0.0, 3.140625], np.float32),
        (jnp.float8_e4m3fn, [1.0, 448.0], np.float32),
        (jnp.int4, [-8, 7], np.int32),
    ],
)
def test_numbers_that_numpy_lacks_become_wider_ones(artifacts, dtype, values, becomes):
    artifacts.add(0, 0, 1, {"w": np.asarray(jnp.asarray(values, dtype))})
    ((_, arrays),) = artifacts.of(0)
    assert same_bits(arrays["w"], np.array(values, becomes))


def test_they_are_rolled_back_and_forgotten(tmp_path):
    artifacts = Artifacts(tmp_path)
    for trial in range(4):
        for evaluation in range(3):
            artifacts.add(trial, evaluation, 10 * evaluation, {"w": np.ones(1)})
    artifacts.roll_back({0: 2, 1: 0, 2: None})
    artifacts.forget([2])
    assert [[each.number for each, _ in artifacts.of(trial)] for trial in range(4)] == [[0, 1], [], [], []]


def test_who_follows_writes_nothing(tmp_path):
    follower = Artifacts(tmp_path, follows=True)
    assert not follower.writes
    Artifacts(tmp_path).add(0, 0, 1, {"w": np.ones(1)})
    follower.forget([0])
    assert len(follower.of(0)) == 1


def npy(array, **options):
    content = io.BytesIO()
    np.lib.format.write_array(content, array, **options)
    return content.getvalue()


def zipped(entries, compression=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        for name, entry in entries.items():
            file.writestr(name, entry)
    return content.getvalue()


class Evil:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


GOOD = npy(np.ones(3))
LARGE = GOOD.replace(b"(3,)", b"(9999999999999,)").replace(b" " * 12 + b"\n", b"\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        GOOD,
        zipped({"w.npy": GOOD})[:-30],
        zipped({"w.npy": GOOD}, zipfile.ZIP_DEFLATED),
        zipped({"w.npy": npy(np.array([Evil()], object), allow_pickle=True)}),
        zipped({"w.npy": pickle.dumps(Evil())}),
        zipped({"w.npy": LARGE}),
        zipped({"w.npy": GOOD[:-1]}),
        zipped({"w.npy": GOOD + b"\0" * 8}),
        zipped({"w.npy": npy(np.array(["text"]))}),
        zipped({"w.npy": npy(np.array([(1, 2)], "i4,i4"))}),
        zipped({"w": GOOD}),
        zipped({"\n.npy": GOOD}),
        zipped({".npy": GOOD}),
    ],
    ids=range(15),
)
def test_what_nobody_here_wrote_is_refused(tmp_path, content):
    artifacts = Artifacts(tmp_path)
    artifacts.add(0, 0, 1, {"w": np.ones(3)})
    path = tmp_path / "trial-0" / "evaluation-0-step-1.npz"
    assert artifacts.of(0)
    path.write_bytes(content)
    with pytest.raises(hpx.RunError, match=r"evaluation-0-step-1\.npz cannot be read: .* Restore it from a copy"):
        artifacts.of(0)


def test_files_of_other_names_are_passed_over(tmp_path):
    artifacts = Artifacts(tmp_path)
    artifacts.add(0, 0, 1, {"w": np.ones(3)})
    for name in ("evaluation-0-step-1.npz.part", "evaluation-١-step-1.npz", "evaluation-1-step-x.npz", "notes.txt"):
        (tmp_path / "trial-0" / name).write_bytes(b"")
    assert len(artifacts.of(0)) == 1
