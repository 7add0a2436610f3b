"""Examples: the dtypes and the order in which arrays become splits."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

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


def test_weights_are_split_with_their_examples():
    x, counts = np.arange(10.0)[:, None], np.arange(10)
    data = hpx.data.from_arrays(x, np.arange(10), weights=counts, valid=0.2, test=(x, counts, counts > 3))
    for split in (data.train, data.valid, data.test):
        assert isinstance(split, hpx.data.WeightedExamples)
        assert split.weights.dtype == np.float32
    for split in (data.train, data.valid):
        np.testing.assert_array_equal(split.weights, split.y)
    np.testing.assert_array_equal(data.test.weights, counts > 3)
    equal = hpx.data.from_arrays(x, counts).train
    assert type(equal) is hpx.data.Examples
    assert equal.weights is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"weights = \[3\]: must have a weight for each of the 4 examples, shape \(4,\) or \(4, tokens\)"),
        (1.0, r"weights = \[\]: must have a weight for each of the 4 examples"),
        ([1, 1, -2, 1], "weights = -2: must be 0 or more"),
        ([1, np.nan, 1, 1], r"weights\[1\] = nan: must be finite"),
        ([1, 1, np.inf, 1], r"weights\[2\] = inf: must be finite"),
        (np.zeros(4), "weights = 0: must not all be 0"),
        (["a"] * 4, "weights = .*: must be numbers"),
        ({"w": np.ones(4)}, "weights = 'dict': must be one array"),
    ],
)
def test_bad_weights_are_refused_by_name(weights, message):
    x, y = np.zeros((4, 2)), np.zeros(4)
    with pytest.raises(hpx.InputError, match=f"from_arrays {message}"):
        hpx.data.from_arrays(x, y, weights=weights)
    with pytest.raises(hpx.InputError, match=f"from_arrays.valid {message}"):
        hpx.data.from_arrays(x, y, valid=(x, y, weights))
    if isinstance(weights, list) and isinstance(weights[0], str):
        return  # which Data itself refuses
    data = hpx.Data(hpx.data.WeightedExamples(x, y, weights), hpx.data.Examples(x, y))
    with pytest.raises(hpx.InputError, match=f"data.train {message}"):
        hpx.supervised(model=nn.Dense(1), optimizer=optax.sgd(0.1), loss=abs, data=data, batch_size=2, steps=1)


def test_a_triple_of_a_stream_is_weighted_where_its_third_part_are_floats():
    x, y = np.zeros((4, 2)), np.zeros(4)
    for weights in (np.ones(4), [1.0, 0.5, 0.0, 2.0]):
        data = hpx.data.stream(lambda weights=weights: [(x, y, weights)], valid=(x, y, [1, 1, 0, 0]))
        assert isinstance(data.train.first, hpx.data.WeightedExamples)
        np.testing.assert_array_equal(data.valid.weights, [1, 1, 0, 0])
    labels = -np.ones(4, int)
    data = hpx.data.stream(lambda: [(x, y, labels)], valid=(x, y, labels))
    assert type(data.train.first) is type(data.valid) is tuple
    with pytest.raises(hpx.InputError, match=r"batch 0 of .* weights = -1.0: must be 0 or more.*a dict in place of a"):
        hpx.data.stream(lambda: [(x, y, labels.astype(float))], valid=(x, y))
