"""Data: splits, batches without replacement, files; and law 5, keys from names."""

import gzip
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx
from hpjax.core.keys import PURPOSES, lane_key, purpose_key, step_key
from hpjax.data.batches import batch_indices


@pytest.mark.parametrize(("examples", "size"), [(1, 1), (2, 1), (5, 2), (10, 10), (17, 5), (100, 64), (1079, 64)])
def test_each_epoch_takes_every_example_once(examples, size):
    key = jax.random.key(examples)
    steps = -(-3 * examples // size)
    drawn = np.asarray(jax.jit(jax.vmap(lambda t: batch_indices(key, t, examples, size)))(jnp.arange(steps))).reshape(
        -1
    )
    for epoch in range(3):
        part = drawn[epoch * examples : (epoch + 1) * examples]
        assert sorted(part) == list(range(examples))
    if examples > 10:
        assert list(drawn[:examples]) != list(drawn[examples : 2 * examples])


def test_keys_come_from_names_alone():
    """Law 5: a key is a fold of numbers, so that another library could draw the same."""
    by_hand = jax.random.key(7)
    for number in (2, PURPOSES["step"], 31):
        by_hand = jax.random.fold_in(by_hand, number)
    mine = step_key(purpose_key(lane_key(7, 2), "step"), 31)
    assert (jax.random.key_data(mine) == jax.random.key_data(by_hand)).all()


def test_keys_of_different_names_differ():

    @jax.jit
    def drawn(seed, replicate, number, trial):
        keys = [step_key(purpose_key(lane_key(seed, replicate, t), p), number) for t in (None, trial) for p in PURPOSES]
        return [jax.random.key_data(key) for key in keys]

    both = np.indices((2, 2, 2, 2)).reshape(4, -1)
    keys = np.concatenate([data.reshape(-1, 2) for data in jax.vmap(drawn)(*both)])
    names = 2 * 2 * 2 * len(PURPOSES) * 3
    assert len(keys) == names + names // 3, "those of no trial come twice"
    assert len(np.unique(keys, axis=0)) == names


def test_splits_are_disjoint_and_of_the_size_asked_for():
    x = np.arange(100, dtype=np.float32)[:, None]
    data = hpx.data.from_arrays(x, np.arange(100), valid=0.25, test=0.1, seed=3)
    parts = [set(split.y.tolist()) for split in (data.train, data.valid, data.test)]
    assert [len(part) for part in parts] == [65, 25, 10]
    assert set.union(*parts) == set(range(100))
    for split in (data.train, data.valid, data.test):
        assert (split.x[:, 0] == split.y).all()
    again = hpx.data.from_arrays(x, np.arange(100), valid=0.25, test=0.1, seed=3)
    assert (again.train.y == data.train.y).all()


def test_own_splits_are_taken_as_they_are():
    x, y = np.zeros((10, 2)), np.arange(10)
    data = hpx.data.from_arrays(x, y, valid=(x[:3], y[:3]), test=(x[:4], y[:4]))
    assert [len(s.y) for s in (data.train, data.valid, data.test)] == [10, 3, 4]


def test_without_a_test_split(tmp_path):
    x, y = np.arange(10.0), np.arange(10)
    np.savez(tmp_path / "toy.npz", x=x, y=y)
    for data in (
        hpx.data.from_arrays(x, y, valid=0.3, test=None),
        hpx.data.from_npz(tmp_path / "toy.npz", valid=0.3, test=None),
    ):
        assert [len(data.train.y), len(data.valid.y), data.test] == [7, 3, None]
        assert sorted([*data.train.y, *data.valid.y]) == list(range(10))
    with pytest.raises(hpx.InputError, match=r"test = 0:.*or None. Write test=0.2, or test=None for no test split"):
        hpx.data.from_arrays(x, y, test=0)


def test_digits():
    data = hpx.data.digits()
    assert [len(s.y) for s in (data.train, data.valid, data.test)] == [1257, 270, 270]
    assert data.train.x.dtype == np.float32
    assert 0 <= data.train.x.min() < data.train.x.max() <= 1


def write_idx(path, array):
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_idx_files_plain_and_gzip(tmp_path):
    rng = np.random.default_rng(0)
    images = {part: rng.integers(0, 256, (n, 4, 3)) for part, n in (("train", 20), ("t10k", 6))}
    labels = {part: rng.integers(0, 10, len(image)) for part, image in images.items()}
    for part, ending in (("train", ""), ("t10k", ".gz")):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{ending}", images[part])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{ending}", labels[part])
    data = hpx.data.from_idx(tmp_path, valid=0.25)
    assert [len(s.y) for s in (data.train, data.valid, data.test)] == [15, 5, 6]
    np.testing.assert_allclose(data.test.x[..., 0] * 255, images["t10k"], rtol=1e-6)
    assert (data.test.y == labels["t10k"]).all()


@pytest.mark.parametrize("damage", [b"", b"\0\0\x08", b"junk junk junk", b"\0\0\x08\x01\0\0\0\x09abc"])
def test_a_damaged_idx_file_is_named(tmp_path, damage):
    for stem in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / stem).write_bytes(damage)
    with pytest.raises(hpx.InputError, match="must be an idx file"):
        hpx.data.from_idx(tmp_path)


def test_npz(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20)
    np.savez(tmp_path / "one.npz", x=x, y=y)
    assert len(hpx.data.from_npz(tmp_path / "one.npz").train.y) == 12
    np.savez(tmp_path / "two.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    data = hpx.data.from_npz(tmp_path / "two.npz")
    assert [len(s.y) for s in (data.train, data.valid, data.test)] == [16, 4, 5]
    np.savez(tmp_path / "other.npz", images=x)
    with pytest.raises(hpx.InputError, match="it holds images"):
        hpx.data.from_npz(tmp_path / "other.npz")
