"""The trained models of a result: predictions and test metrics with the very functions that were trained."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx

LOSS = optax.softmax_cross_entropy_with_integer_labels


class Scaled(nn.Module):
    scale: object

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(self.scale(x))


def blobs():
    x = np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32)
    y = x[:, :3].argmax(1)
    return hpx.Data(*(hpx.data.Examples(x[part], y[part]) for part in (slice(64), slice(64, 80), slice(80, 96))))


# Three functions that print alike, of which one is another module's twin by name.
SPACE = hpx.Space(
    rate=hpx.Uniform(0.01, 0.3), scale=hpx.Choice(lambda v: v, lambda v: 3 * v, lambda v: jnp.tanh(v), select=True)
)


@pytest.fixture(scope="module")
def sweep():
    program = hpx.supervised(
        model=lambda h: Scaled(h.scale),
        optimizer=lambda h: optax.sgd(h.rate),
        loss=LOSS,
        data=blobs(),
        batch_size=16,
        steps=6,
        eval_every=1,
    )
    points = [{"rate": 0.05 + i / 50, "scale": SPACE.domains("scale")[0].options[i % 3]} for i in range(8)]
    scheduler = hpx.PBT(every=1, explore="resample")
    return hpx.Sweep(program, SPACE, sampler=hpx.Manual(points), scheduler=scheduler, width=4)


@pytest.fixture(scope="module")
def directory(sweep, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    sweep.run(path, progress=False)
    return path


def test_functions_that_print_alike_are_told_apart_by_position(sweep, directory):
    """Of each trial the predictions and the test metrics are those of the function that trained its last state."""
    result, models, data = hpx.load(directory), sweep.models(hpx.load(directory)), sweep.program.data
    changed = {t.trial for t in result.lineage if result.first_hparams[t.trial]["scale"] != t.hparams["scale"]}
    assert changed, "an exploration chose another function"
    assert len({t.hparams["scale"] for t in result}) > 1
    for trial, point in zip(result, models.points(), strict=True):
        outputs = models.predictor(trial.id)(data.valid.x)[0]
        assert float(LOSS(outputs, data.valid.y).mean()) == pytest.approx(trial.metrics["valid/loss"], rel=1e-5)
        # By hand, from the restored parameters and the function of the position that the record names.
        dense = trial.restore()["params"]["Dense_0"]
        position = int(trial.hparams["scale"].removeprefix("<lambda> #"))
        assert point["scale"] is SPACE.domains("scale")[0].options[position]
        by_hand = np.asarray(point["scale"](data.test.x) @ dense["kernel"] + dense["bias"][None])
        expected = float(LOSS(by_hand, data.test.y).mean())
        assert models.test_metrics(trial.id)["test/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_replay_uses_the_functions_that_were_trained(sweep, directory):
    result = hpx.load(directory)
    longest = max(result, key=lambda trial: len(trial.descent))
    assert sweep.replay(longest).agrees


def test_points_that_differ_in_such_a_function_are_other_sweeps(sweep, directory):
    """The manifest tells them apart, though both print alike."""
    options = SPACE.domains("scale")[0].options
    points = [{"rate": 0.05 + i / 50, "scale": options[(i + 1) % 3]} for i in range(8)]
    other = hpx.Sweep(sweep.program, SPACE, sampler=hpx.Manual(points), scheduler=sweep.scheduler, width=4)
    with pytest.raises(hpx.RunError, match="points"):
        other.run(directory, progress=False)
    static = hpx.Space(rate=0.1, scale=hpx.Choice(*options))
    assert [str(g) for g in hpx.Sweep(sweep.program, static, sampler=hpx.Grid()).plan().groups] == [
        "scale=<lambda> #0",
        "scale=<lambda> #1",
        "scale=<lambda> #2",
    ]
