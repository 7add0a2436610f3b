"""Windows of a token array: those of NumPy, on the device without a copy, and the bits of windows that are copied."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from numpy.lib.stride_tricks import sliding_window_view

import hpjax as hpx
from tests.support.plain import SEED, cross_entropy, train_alone

TEXT = np.random.default_rng(0).integers(0, 50, 403).astype(np.uint16)
LENGTH = 8


class Bigrams(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(50)(nn.Embed(50, 6)(x))


def copied(tokens, stride):
    """The windows of NumPy, copied as int32: x and y."""
    rows = sliding_window_view(np.asarray(tokens), LENGTH + 1)[::stride].astype(np.int32)
    return rows[:, :-1], rows[:, 1:]


def program(data, **settings):
    settings = {"batch_size": 6, "steps": 9, "eval_every": 3, "eval_batch_size": 3} | settings
    sgd = lambda h: optax.sgd(h.learning_rate)
    return hpx.supervised(model=Bigrams(), optimizer=sgd, loss=cross_entropy, data=data, **settings)


def sweep(data, randomness="shared", **settings):
    space = hpx.Space(learning_rate=hpx.LogUniform(0.1, 1.0))
    return hpx.Sweep(program(data, **settings), space, trials=3, width=2, seed=SEED, randomness=randomness, devices=1)


@pytest.mark.parametrize("stride", [None, 1, 3, 11])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_the_windows_are_those_of_numpy(dtype, stride):
    data = hpx.data.tokens(TEXT.astype(dtype), LENGTH, stride=stride, valid=0.1, test=0.2)
    begin, end = 403 - 81 - 40, 403 - 81
    splits = {"train": TEXT[:begin], "valid": TEXT[begin:end], "test": TEXT[end:]}
    for name, text in splits.items():
        split = getattr(data, name)
        x, y = copied(text, stride or LENGTH if name == "train" else LENGTH)
        assert len(split) == len(x)
        np.testing.assert_array_equal(split.x, x)
        np.testing.assert_array_equal(split.y, y)
        index = np.random.default_rng(1).permutation(len(x))
        taken = hpx.data.take(split, index)
        assert {taken.x.dtype, taken.y.dtype} == {np.dtype(np.int32)}
        np.testing.assert_array_equal(taken.x, x[index])
        np.testing.assert_array_equal(taken.y, y[index])


def test_no_window_has_tokens_of_two_splits():
    data = hpx.data.tokens(np.arange(100), 7, stride=1, valid=0.2, test=0.1)
    seen = [set(np.ravel([split.x, split.y])) for split in (data.train, data.valid)]
    assert seen[0] == set(range(70))
    assert seen[1] == set(range(70, 85)), "two windows of 7 and the token behind them; 5 tokens fill no window"
    assert set(np.ravel(data.test.y)) == set(range(91, 98))


def test_an_epoch_has_each_window_once_in_the_order_of_the_shuffle():
    """Two epochs in batches that do not divide them, drawn as a step draws them."""
    data = hpx.data.tokens(TEXT, LENGTH, stride=5)
    train, h, key = data.train, hpx.Hparams({}), jax.random.key(3)
    draw = jax.jit(lambda t, train: program(data).batch(key, t, train, h))
    steps = 2 * len(train) // 6
    batches = [draw(t, train) for t in range(steps)]
    index = np.concatenate([hpx.data.batch_indices(key, t, len(train), 6) for t in range(steps)])
    x, y = copied(train.tokens, 5)
    np.testing.assert_array_equal(np.concatenate([b.x for b in batches]), x[index])
    np.testing.assert_array_equal(np.concatenate([b.y for b in batches]), y[index])
    assert sorted(index[: len(x)]) == list(range(len(x)))


def test_the_array_is_in_memory_once(tmp_path):
    path = tmp_path / "tokens.bin"
    TEXT.tofile(path)
    text = np.memmap(path, np.uint16, "r")
    data = hpx.data.tokens(text, LENGTH, stride=1)
    for part in (data.train.tokens, data.train.x, data.train.y, data.valid.tokens):
        assert np.shares_memory(part, text)
    own = sweep(data)
    assert own.plan().data_bytes == TEXT.nbytes
    held = []
    look = lambda _: held.append(sum(a.nbytes for a in jax.live_arrays() if a.dtype == np.uint16))
    own.run(progress=False, on_event=look)
    assert set(held) == {TEXT.nbytes}


def test_nothing_in_a_step_is_as_large_as_all_windows():
    data = hpx.data.tokens(TEXT, LENGTH, stride=1)
    call = (jax.random.key(0), jnp.int32(0))
    made = jax.make_jaxpr(lambda train: program(data).batch(*call, train, hpx.Hparams({})))(data.train)
    shapes = re.findall(r"[a-z]+\d+\[([\d,]+)\]", str(made))
    sizes = {int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes}
    assert {6 * LENGTH, 6 * (LENGTH + 1)} < sizes, "the batch"
    assert max(sizes) == len(data.train.tokens), "the array itself"


@pytest.mark.parametrize("randomness", ["shared", "independent"])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 12, "microbatch": 4}, {"eval_batch_size": 512}])
def test_training_has_the_bits_of_windows_that_are_copied(randomness, settings):
    data = hpx.data.tokens(TEXT, LENGTH, stride=2, valid=0.3)
    train, valid = copied(data.train.tokens, 2), copied(data.valid.tokens, LENGTH)
    ours, theirs = (
        sweep(each, randomness, **settings).run(progress=False)
        for each in (data, hpx.data.from_arrays(*train, valid=valid, test=None))
    )
    for metric in ("train/loss", "valid/loss"):
        np.testing.assert_array_equal(ours.curves(metric), theirs.curves(metric))
    for mine, other in zip(ours, theirs, strict=True):
        jax.tree.map(np.testing.assert_array_equal, mine.restore(), other.restore())


def test_a_plain_loop_over_copied_windows_ends_the_same():
    data = hpx.data.tokens(TEXT, LENGTH)
    result = sweep(data, steps=9, batch_size=6, eval_every=3).run(progress=False)
    rate = result[1].hparams["learning_rate"]
    x, y = copied(data.train.tokens, LENGTH)
    alone = hpx.Data(hpx.data.Examples(x, y), hpx.data.Examples(*copied(data.valid.tokens, LENGTH)))
    _, losses = train_alone(alone, model=Bigrams(), optimizer=optax.sgd(rate), steps=9, batch_size=6, eval_every=3)
    np.testing.assert_allclose(result.curves("valid/loss")[1, 0], losses, rtol=1e-5)


def test_weights_split_metrics_several_sets_and_tests_see_windows():
    half = lambda text: (text[:200], text[200:])
    train, rest = half(TEXT)
    first, second = rest[:90], rest[90:]
    ours = hpx.data.tokens(train, LENGTH, valid={"a": first, "b": second}, test=first)
    sets = {"a": copied(first, LENGTH), "b": copied(second, LENGTH)}
    theirs = hpx.data.from_arrays(*copied(train, LENGTH), valid=sets, test=sets["a"])
    settings = {
        "weights": lambda y: y % 3,
        "split_metrics": {"last": lambda outputs, y, x: (outputs[-1, :, 0] * y[-1] * x[0]).sum()},
        "artifacts": lambda x, outputs: {"x": x["a"], "outputs": outputs["b"]},
        "keep": hpx.minimize("valid/a/loss"),
    }
    found = []
    for data in (ours, theirs):
        own = hpx.Sweep(
            program(data, **settings),
            hpx.Space(learning_rate=hpx.LogUniform(0.1, 1.0)),
            trials=2,
            objective=hpx.minimize("valid/b/loss"),
        )
        result = own.run(progress=False)
        kept = result[0].artifacts
        assert {name: each[-1][1].shape for name, each in kept.items()} == {"x": (11, 8), "outputs": (14, 8, 50)}
        found.append((result.curves("valid/a/last"), result.curves("valid/b/loss"), result.test(), kept))
        predicted = result[0].predict(copied(first, LENGTH)[0])
        assert predicted.shape == (1, 11, LENGTH, 50)
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: t(TEXT[:8], 8), "tokens.array = '8 tokens': must have at least 9, a window of 8 and the token"),
        (lambda t: t(TEXT[:16], 8), "tokens.valid = '2 tokens': .*Write length=1, or give more text"),
        (lambda t: t(TEXT[:40], 8, valid=0.9), "tokens.array = '4 tokens': .*Write length=3, or give more text"),
        (lambda t: t(TEXT, 8, valid=TEXT[:5]), "tokens.valid = '5 tokens': .*Write length=4, or give more text"),
        (lambda t: t(TEXT, 8, valid={"a": TEXT, "b": TEXT[:1]}), r"tokens.valid\['b'\] = '1 token': .*Give more text"),
        (lambda t: t(TEXT, 8, valid=1), "tokens.valid = 1: must be a share between 0 and 1, .*Write valid=0.1"),
        (lambda t: t(TEXT, 8, test=1.5), "tokens.test = 1.5: must be a share.*or test=None"),
        (lambda t: t(TEXT, 8, valid=None), "tokens.valid = 'object': must be an array of integers"),
        (lambda t: t("to be or not", 4), "tokens.array = 'str': .*numpy.frombuffer"),
        (lambda t: t(b"to be or not", 4), "tokens.array = 'bytes': .*numpy.frombuffer"),
        (lambda t: t(TEXT / 2, 4), "tokens.array = 'float64': must be an array of integers"),
        (lambda t: t(TEXT[None], 4), r"tokens.array = \[1, 403\]: must have one axis"),
        (lambda t: t([3, -1, 2, 4], 1), r"tokens.array = \(-1, 4\): must lie in 0 … 2\*\*31 - 1"),
        (lambda t: t(TEXT, 0), "tokens.length = 0: must be a whole number, 1 or more"),
        (lambda t: t(TEXT, 8, stride=0), "tokens.stride = 0: must be a whole number, 1 or more"),
    ],
)
def test_what_is_no_text_is_refused_with_what_to_do(make, message):
    with pytest.raises(hpx.InputError, match=message):
        make(hpx.data.tokens)


def test_folds_are_refused():
    space = hpx.Space(learning_rate=hpx.LogUniform(0.1, 1.0))
    with pytest.raises(hpx.InputError, match="data = 'tokens': must be examples to be cut into folds"):
        hpx.Sweep(program(hpx.data.tokens(TEXT, LENGTH)), space, trials=2, folds=3)


def test_a_label_beyond_the_outputs_is_named():
    with pytest.raises(hpx.InputError, match=r"data\.y = 60: labels must lie in 0 … 49"):
        sweep(hpx.data.tokens(np.append(TEXT, 60), LENGTH)).plan()
