"""Data that JAX would refuse, or change without a word, is refused by name with what to type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hpjax as hpx

pd = pytest.importorskip("pandas")


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (np.array(["a", "b"]), "'ndarray': must be an array of numbers. Encode it"),
        (np.array([1, None], object), "'ndarray': must be an array of numbers. Encode it"),
        ("text", "'text': must be an array of numbers"),
        (pd.DataFrame({"a": [1.0]}), r"'DataFrame': must be an array of numbers. Write table.to_numpy\(\)"),
        (pd.Series([1.0]), r"'Series': must be an array of numbers. Write table.to_numpy\(\)"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), r"'MaskedArray': .* Write x.filled\(0.0\)"),
        (np.zeros(2, [("a", "f4")]), r"'ndarray': .* Write a dict: {name: x\[name\]"),
        (np.zeros(2, ">f4"), r"'ndarray': .* Write np.asarray\(x, np.float32\)"),
        (np.zeros(2, np.longdouble), r"'ndarray': .* Write np.asarray\(x, np.float32\)"),
        ({1, 2}, r"'set': .* Write np.asarray\(x, np.float32\)"),
        (jax.ShapeDtypeStruct((2,), jnp.float32), r"'ShapeDtypeStruct': .* Write np.zeros\(shape, dtype\)"),
        (jax.random.key(0), r"must be an array of numbers. Write jax.random.key_data\(keys\)"),
        (np.array([0, 2**31]), "= 2147483648: must lie in -2147483648 … 2147483647"),
        (np.array([0, 2**32], np.uint64), "= 4294967296: must lie in 0 … 4294967295"),
        (2**40, "= 1099511627776: must lie in"),
    ],
)
def test_a_leaf_that_is_no_array_of_numbers_is_refused_by_name(leaf, message):
    with pytest.raises(hpx.InputError, match=r"^Data.train\['x'\] .*" + message):
        hpx.Data({"x": leaf}, np.zeros(1))


@pytest.mark.parametrize(
    "leaf",
    [
        np.array([-(2**31), 2**31 - 1]),
        np.array([2**32 - 1], np.uint64),
        np.zeros((0, 3), np.int64),
        np.zeros(2, np.uint8),
        np.zeros(2, np.float16),
        jnp.zeros(2, jnp.bfloat16),
        np.zeros(2, np.complex64),
        np.float64(1),
        3,
        True,
    ],
)
def test_numbers_keep_their_values(leaf):
    np.testing.assert_array_equal(np.asarray(jnp.asarray(hpx.Data([leaf], None).train[0])), np.asarray(leaf))


def test_wide_integers_are_kept_where_jax_has_them():
    with jax.enable_x64(True):
        assert hpx.Data(np.array([2**40]), None).train[0] == 2**40
