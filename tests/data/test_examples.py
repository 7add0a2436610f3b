"""Examples: the dtypes and the order in which arrays become splits."""

import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, jnp.float8_e4m3fn, np.float32, np.float64, np.longdouble])
def test_floats_of_every_width_become_float32(dtype):
    x = np.arange(10.0).reshape(5, 2).astype(dtype)
    data = hpx.data.from_arrays(x, x, valid=(x, x), test=(x, x))
    for split in (data.train, data.valid, data.test):
        assert {split.x.dtype, split.y.dtype} == {np.dtype(np.float32)}
        np.testing.assert_array_equal(split.x, np.arange(10.0).reshape(5, 2))


def test_a_number_beyond_float32_is_not_finite():
    x = np.array([[1.0], [1e39]])
    with pytest.raises(hpx.InputError, match=r"x\[1, 0\] = 1e\+39: must be finite in float32, and 1 values"):
        hpx.data.from_arrays(x, np.zeros(2))


def test_examples_that_need_not_be_split_keep_their_order():
    x, own = np.arange(10.0)[:, None], (np.zeros((2, 1)), np.zeros(2))
    data = hpx.data.from_arrays(x, np.arange(10), valid=own, test=own)
    assert data.train.y.tolist() == list(range(10))
    assert data.train.x[:, 0].tolist() == list(range(10))
    some = hpx.data.from_arrays(x, np.arange(10), valid=own, test=0.2)
    assert sorted([*some.train.y, *some.test.y]) == list(range(10))
