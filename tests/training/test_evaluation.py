"""Evaluations of several sets, and metrics of whole splits, against scikit-learn."""

import warnings

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

import hpjax as hpx
from tests.support.programs import blobs, classifier

ONE = hpx.Space(learning_rate=0.1, momentum=0.9)
RNG = np.random.default_rng(0)


def run(program, space=ONE, **arguments):
    return hpx.Sweep(program, space, sampler=hpx.Grid(), width=1, **arguments).run(progress=False)


def shifted():
    data = blobs()
    rows = data.test
    sets = {"clean": (data.valid.x, data.valid.y), "shifted": (rows.x[:11] + 1, rows.y[:11])}
    return hpx.data.from_arrays(data.train.x, data.train.y, valid=sets, test=sets)


def loss_of(trial, x, y):
    outputs = np.asarray(trial.predict(x)[0], np.float64)
    p = np.exp(outputs)
    return log_loss(y, p / p.sum(-1, keepdims=True), labels=range(outputs.shape[-1]))


class Bare(nn.Module):
    """A linear model, with dropout that is off where nothing trains."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


def test_each_validation_and_test_set_is_measured():
    data = shifted()
    program = classifier(model=Bare(), data=data, eval_batch_size=4, split_metrics={"f1": hpx.metrics.f1})
    result = run(program, objective=hpx.minimize("valid/shifted/loss"))
    trial, tested = result.best, result.test()
    assert data.train.y.tolist() == blobs().train.y.tolist()
    names = {f"valid/{name}/{metric}" for name in ("clean", "shifted") for metric in ("loss", "accuracy", "f1")}
    assert {name for name in trial.metrics if name.startswith("valid")} == names
    for name, (x, y) in data.valid.items():
        found = trial.predict(x)[0].argmax(-1)
        for metrics, split in ((trial.metrics, "valid"), (tested, "test")):
            assert metrics[f"{split}/{name}/loss"] == pytest.approx(loss_of(trial, x, y), rel=1e-5)
            assert metrics[f"{split}/{name}/accuracy"] == pytest.approx((found == y).mean(), rel=1e-6)
            macro = f1_score(y, found, average="macro")
            assert metrics[f"{split}/{name}/f1"] == pytest.approx(macro, rel=1e-5)
    assert "examples" in program.describe
    assert program.describe["examples"][1] == {"clean": 18, "shifted": 11}
    assert "gap" not in result.table()


def test_sets_are_those_of_data_and_of_streams_too():
    train, sets = blobs().train, shifted().valid
    assert run(classifier(data=hpx.Data(train, sets, None)), objective=hpx.minimize("valid/clean/loss")).best.id == 0
    pairs = {name: tuple(examples) for name, examples in sets.items()}
    stream = hpx.data.stream(lambda: iter([(train.x[:16], train.y[:16])]), valid=pairs)
    result = run(classifier(data=stream, batch_size=None, steps=2), objective=hpx.minimize("valid/clean/loss"))
    assert np.isfinite(result.best.metrics["valid/shifted/loss"])


def test_early_stopping_and_optimizers_look_at_one_of_the_sets():
    stopping = hpx.EarlyStopping(patience=1, objective=hpx.minimize("valid/shifted/loss"))
    optimizer = lambda h: optax.chain(
        optax.sgd(0.1),
        hpx.optim.reduce_on_plateau(factor=0.5, patience=1, objective=hpx.maximize("valid/clean/accuracy")),
    )
    result = run(
        classifier(data=shifted(), early_stopping=stopping, optimizer=optimizer, steps=42),
        objective=hpx.minimize("valid/best_shifted/loss"),
    )
    curve = result[0].curve("valid/shifted/loss")[0]
    curve = curve[np.isfinite(curve)]
    assert result[0].metrics["valid/best_shifted/loss"] == pytest.approx(curve.min(), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sweep", "message"),
    [
        ({}, {}, r"Sweep.objective = 'valid/loss': must be a metric of the program.*valid/clean/loss"),
        (
            {"early_stopping": hpx.EarlyStopping(patience=1)},
            {},
            r"EarlyStopping.objective = 'valid/loss': .*clean/loss",
        ),
        ({"keep": "best"}, {}, r"supervised.keep = 'valid/loss': must be a validation metric.*clean/loss"),
        ({}, {"folds": 3}, r"data.valid = \['clean', 'shifted'\]: must be one set like data.train"),
    ],
)
def test_what_needs_one_validation_set_says_which_there_are(arguments, sweep, message):
    with pytest.raises(hpx.InputError, match=message):
        hpx.Sweep(classifier(data=shifted(), **arguments), ONE, 1, **sweep).plan()


@pytest.mark.parametrize(
    ("valid", "message"),
    [
        ({}, "must be a dict of names without slashes"),
        ({"a/b": blobs().valid}, "must be a dict of names without slashes"),
        ({"a": blobs().valid, "b": np.ones(3)}, r"data.valid\['b'\] = 'ndarray': must be Examples"),
        (
            {"a": blobs().valid._replace(x=np.ones((18, 2)))},
            r"data.valid\['a'\] = \[\(2,\), \(\)\]: must have the shapes",
        ),
    ],
)
def test_sets_that_cannot_be_are_refused(valid, message):
    with pytest.raises(hpx.InputError, match=message):
        classifier(data=hpx.Data(blobs().train, valid))


def binary(examples=297):
    y = RNG.integers(0, 2, examples)
    x = RNG.normal(size=(examples, 3)).astype(np.float32) + y[:, None]
    return hpx.data.from_arrays(x.round(1), y)


class Score(nn.Module):
    """One logit of class 1, with many ties."""

    @nn.compact
    def __call__(self, x):
        return jnp.round(nn.Dense(1, kernel_init=nn.initializers.ones)(x)[:, 0], 0)


def average_precision(outputs, y):
    return average_precision_score(y, outputs)


@pytest.mark.parametrize("size", [7, 20, 1000])
def test_metrics_of_a_split_are_exact_for_any_size_of_parts(size):
    data = binary()
    program = hpx.supervised(
        model=Score(),
        optimizer=optax.sgd(0.0),
        loss=optax.sigmoid_binary_cross_entropy,
        data=data,
        batch_size=16,
        steps=1,
        split_metrics={
            "auc": hpx.metrics.auc,
            "f1": hpx.metrics.f1,
            "precision": hpx.metrics.on_host(average_precision),
            "spread": lambda outputs, y, x, params, h: (
                outputs.std() + x.mean() + h.offset + params["Dense_0"]["bias"][0]
            ),
        },
        eval_batch_size=size,
    )
    space = hpx.Space(offset=hpx.Choice(1.0, 2.0))
    result = hpx.Sweep(program, space, sampler=hpx.Grid(), width=2).run(progress=False)
    x, y = data.valid
    for trial in result:
        outputs = trial.predict(x)[0]
        expected = {
            "auc": roc_auc_score(y, outputs),
            "f1": f1_score(y, outputs > 0),
            "precision": average_precision_score(y, outputs),
            "spread": outputs.std() + x.mean() + trial.hparams["offset"],
        }
        for name, value in expected.items():
            assert trial.metrics[f"valid/{name}"] == pytest.approx(value, rel=1e-5), name
        assert not any(name.startswith("train/auc") for name in trial.metrics)
    tested = result.test()
    assert tested["test/auc"] == pytest.approx(
        roc_auc_score(data.test.y, result.best.predict(data.test.x)[0]), rel=1e-5
    )


@pytest.mark.parametrize("folds", [4, 7])
@pytest.mark.parametrize("randomness", ["shared", "independent"])
def test_metrics_of_a_split_are_of_the_fold_s_examples(folds, randomness):
    """60 examples in 7 folds: four of 9 and three of 8, each of which the function sees without padding."""
    data = binary(75)
    program = hpx.supervised(
        model=Score(),
        optimizer=lambda h: optax.sgd(h.rate),
        loss=optax.sigmoid_binary_cross_entropy,
        data=data,
        batch_size=16,
        steps=2,
        eval_batch_size=4,
        split_metrics={
            "auc": hpx.metrics.auc,
            "host": hpx.metrics.on_host(lambda outputs, y: float(len(y)) + roc_auc_score(y, outputs)),
            "size": lambda outputs, y: jnp.float32(len(y)),
        },
    )
    space = hpx.Space(rate=hpx.Choice(0.1, 0.2))
    result = hpx.Sweep(program, space, sampler=hpx.Grid(), folds=folds, width=2, randomness=randomness).run(
        progress=False
    )
    pool = hpx.data.pool(data)
    for fold, rows in enumerate(np.array_split(np.arange(60), folds)):
        assert result.last("valid/size")[:, fold].tolist() == [len(rows)] * 2
        for trial in result:
            expected = roc_auc_score(pool.y[rows], trial.predict(pool.x[rows])[fold])
            assert result.last("valid/auc")[trial.id, fold] == pytest.approx(float(expected), rel=1e-5)
            assert result.last("valid/host")[trial.id, fold] == pytest.approx(len(rows) + expected, rel=1e-5)


class Several(nn.Module):
    """Outputs of which some have no axis of examples."""

    @nn.compact
    def __call__(self, x):
        codes = self.param("codes", nn.initializers.normal(), (6, 2))
        return {"pred": nn.Dense(3)(x), "codes": codes, "norm": jnp.sum(codes**2)}


def test_outputs_without_an_axis_of_examples_are_given_as_they_are():
    program = classifier(
        model=Several(),
        loss=lambda o, y: optax.softmax_cross_entropy_with_integer_labels(o["pred"], y),
        metrics={},
        split_metrics={"all": lambda o, y: (o["pred"].argmax(-1) == y).mean() + 10 * len(o["codes"]) + o["norm"]},
        eval_batch_size=6,
        steps=1,
        eval_every=None,
    )
    trial = run(program)[0]
    outputs = Several().apply({"params": trial.restore()["params"]}, program.data.valid.x)
    expected = (outputs["pred"].argmax(-1) == program.data.valid.y).mean() + 60 + outputs["norm"]
    assert trial.metrics["valid/all"] == pytest.approx(float(expected), rel=1e-5)


def test_a_metric_of_the_batch_that_is_averaged_over_parts_is_told():
    """Scikit-learn's AUC in three parts; and as a metric of the whole split, where nothing is to be told."""
    data = binary()

    def area(outputs, y):
        return roc_auc_score(y, outputs)

    def trained(**arguments):
        program = hpx.supervised(
            model=Score(),
            optimizer=optax.sgd(0.0),
            loss=optax.sigmoid_binary_cross_entropy,
            data=data,
            batch_size=32,
            steps=1,
            **arguments,
        )
        return run(program, hpx.Space(x=1))[0].metrics["valid/auc"]

    with pytest.warns(RuntimeWarning, match=r"metric area gives one number for the batch.*Write split_metrics") as told:
        trained(metrics={"auc": hpx.metrics.on_host(area)}, eval_batch_size=20)
    assert len(told) == 1
    assert (told[0].filename, told[0].lineno) == (__file__, area.__code__.co_firstlineno)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = trained(split_metrics={"auc": hpx.metrics.on_host(area)}, eval_batch_size=20)
        assert trained(metrics={"auc": hpx.metrics.on_host(area)}) == pytest.approx(whole, rel=1e-6)


def test_a_metric_of_a_split_is_one_number_and_has_a_name_of_its_own():
    per_example = {"own": hpx.metrics.accuracy}
    with pytest.raises(hpx.ProgramError, match="own, a metric of a whole split, must give one number"):
        hpx.Sweep(classifier(split_metrics=per_example), ONE, 1).plan()
    with pytest.raises(hpx.ProgramError, match="or give a metric of the whole split as split_metrics"):
        hpx.Sweep(classifier(metrics={"own": lambda outputs, y: jnp.float32(1)}), ONE, 1).plan()
    for name in ("loss", "accuracy"):
        with pytest.raises(hpx.InputError, match=rf"supervised.split_metrics = '{name}': must be a string other than"):
            classifier(split_metrics={name: hpx.metrics.f1})
        with pytest.raises(hpx.InputError, match=rf"= '{name}'"):
            hpx.Sweep(classifier(split_metrics=lambda h, name=name: {name: hpx.metrics.f1}), ONE, 1).plan()
    with pytest.raises(hpx.InputError, match=r"supervised.split_metrics = 'auc': must be a dict"):
        classifier(split_metrics=hpx.metrics.auc)
