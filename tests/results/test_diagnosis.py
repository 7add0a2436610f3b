"""Monitors against sums by hand, and what diagnose says of curves that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key
from hpjax.data.batches import batch_indices
from tests.support.marks import slow
from tests.support.programs import blobs

MONITORS = ["gradient_norm", "update_ratio", "dead_units", "sparsity"]


class HalfDead(nn.Module):
    """Of four units one has a bias so low that it never fires."""

    @nn.compact
    def __call__(self, x):
        bias = lambda key, shape, dtype: jnp.array([0.0, 0.0, 0.0, -1e3], dtype)
        x = nn.relu(nn.Dense(4, bias_init=bias)(x))
        return nn.Dense(3)(x)


def program(**changes):
    arguments = {"steps": 2, "eval_every": 2, "batch_size": 8, "optimizer": optax.sgd(0.1), "model": HalfDead()}
    loss = optax.softmax_cross_entropy_with_integer_labels
    return hpx.supervised(loss=loss, data=blobs(), monitor=MONITORS, **(arguments | changes))


@pytest.mark.parametrize("changes", [{}, slow({"microbatch": 4, "eval_every": 4})])
def test_monitors_are_what_the_gradients_say(changes):
    result = hpx.Sweep(program(**changes), hpx.Space(x=1), sampler=hpx.Grid()).run(progress=False)
    data, model, key = blobs(), HalfDead(), lane_key(0, 0)
    params = model.init(purpose_key(key, "init"), data.train.x[:1])["params"]
    expected = {name: [] for name in result.metrics if name.count("/") > 1}
    small = []

    def loss(params, index):
        logits = model.apply({"params": params}, jnp.asarray(data.train.x)[index])
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(data.train.y)[index]).mean()

    gradient = jax.jit(jax.grad(loss))
    for t in range(2):
        index = batch_indices(purpose_key(key, "batch"), t, len(data.train.y), 8)
        grads = gradient(params, index)
        kernels = [params[layer]["kernel"] for layer in params]
        small.append(np.mean(np.concatenate([np.ravel(np.abs(k) < 1e-3) for k in kernels])))
        for layer in ("Dense_0", "Dense_1"):
            norm, weight = (
                np.linalg.norm(np.concatenate([np.ravel(a) for a in t[layer].values()])) for t in (grads, params)
            )
            expected[f"train/gradient_norm/{layer}"].append(norm)
            expected[f"train/update_ratio/{layer}"].append(0.1 * norm / weight)
            expected[f"train/dead_units/{layer}"].append(np.mean(~np.asarray(grads[layer]["kernel"]).any(axis=0)))
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    assert np.mean(expected["train/dead_units/Dense_0"]) >= 0.25
    for name, values in expected.items():
        assert result.best.metrics[name] == pytest.approx(np.mean(values), rel=1e-4, abs=1e-7), name
    assert result.best.metrics["train/sparsity"] == pytest.approx(np.mean(small), abs=1e-6)


@pytest.mark.slow
def test_an_l1_penalty_shows_as_sparsity():
    swept = program(
        penalty=lambda params, h: h.l1 * hpx.losses.l1(params), steps=2000, eval_every=500, optimizer=optax.sgd(0.005)
    )
    sweep = hpx.Sweep(swept, hpx.Space(l1=hpx.Choice(0.0, 0.1)), sampler=hpx.Grid())
    none, some = sweep.run(progress=False).last("train/sparsity")[:, 0]
    assert none < 0.1 < some


def test_an_unknown_monitor_is_named():
    with pytest.raises(hpx.InputError, match=r"must be a list of monitors. Did you mean 'sparsity'"):
        hpx.supervised(
            model=HalfDead(), optimizer=optax.sgd(0.1), loss=hpx.metrics.accuracy, data=blobs(), batch_size=8, steps=1,
            monitor=["sparcity"],
        )  # fmt: skip


# What each kind of trial reports at evaluation t = 1 … 20: (train/loss, valid/loss) and monitors.
CURVES = {
    "healthy": lambda t: {"loss": 1 / t, "valid": 1 / t},
    "diverged": lambda t: {"loss": jnp.where(t > 5, jnp.nan, 1.0), "valid": 1.0},
    "too slow": lambda t: {"loss": 3 - 0.1 * t, "valid": 3 - 0.1 * t},
    "oscillating": lambda t: {"loss": 1 + 0.5 * (t % 2), "valid": 1.0},
    "overfitting": lambda t: {"loss": 1 / t, "valid": 0.3 + 0.01 * (t - 8) ** 2},
    "underfitting": lambda t: {"loss": 2 + 0 * t, "valid": 2.0},
    "vanishing gradients": lambda t: {"loss": 1 / t, "valid": 1 / t, "gradient_norm/a": 1e-6, "gradient_norm/b": 1.0},
    "exploding gradients": lambda t: {"loss": 1 / t, "valid": 1 / t, "gradient_norm/a": 1e6, "gradient_norm/b": 1.0},
    "dead units": lambda t: {"loss": 1 / t, "valid": 1 / t, "dead_units/a": 0.6, "dead_units/b": 1.0},
    "small updates": lambda t: {"loss": 1 / t, "valid": 1 / t, "update_ratio/a": 1e-7},
    "large updates": lambda t: {"loss": 1 / t, "valid": 1 / t, "update_ratio/a": 0.5},
}
USUAL = {
    "gradient_norm/a": 1.0,
    "gradient_norm/b": 0.5,
    "dead_units/a": 0.1,
    "dead_units/b": 0.0,
    "update_ratio/a": 1e-3,
}


def test_each_curve_is_told_for_what_it_is():
    kinds = list(CURVES)

    def seen(t, h):
        values = [USUAL | CURVES[kind](t) for kind in kinds]
        return {name: jnp.stack([jnp.asarray(v[name], float) for v in values])[h.kind] for name in values[0]}

    def step(key, state, batch, h):
        return state + 1, {n: v for n, v in seen(state + 1, h).items() if n != "valid"}

    swept = hpx.Program(
        lambda key, h: jnp.zeros(()),
        step,
        lambda key, state, split, h: {"loss": seen(state, h)["valid"]},
        steps=20,
        eval_every=1,
    )
    space = hpx.Space(kind=hpx.Choice(*range(len(kinds))))
    result = hpx.Sweep(swept, space, sampler=hpx.Grid(), replicates=2).run(progress=False)
    told = {}
    for finding in hpx.diagnose(result):
        told.setdefault(kinds[finding.trial], []).append(finding.what)
    expected = {kind: [kind] for kind in kinds if kind != "healthy"}
    assert told == expected | {"small updates": ["too slow"], "large updates": ["oscillating"]}
    first, *_ = hpx.diagnose(result)
    dead = next(finding for finding in hpx.diagnose(result) if finding.what == "dead units")
    assert str(first) == (
        "trial 1: diverged. 2 of 2 replicates were not finite at step 6: "
        "lower the learning rate, or clip the gradients."
    )
    assert dead.sentence == (
        "60% of a, 100% of b get no gradient: lower the learning rate, or use leaky units. "
        "A layer of which it is 100% may be one that a mask skips."
    )


def test_only_results_are_diagnosed():
    with pytest.raises(hpx.InputError, match=r"diagnose.result = 3: must be a result"):
        hpx.diagnose(3)
