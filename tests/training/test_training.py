"""What needs more than a row of test_axes.py: misuse, hints, packing, what the plan says of masks and selections."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from sklearn.model_selection import KFold

import hpjax as hpx
from hpjax.core.hparams import Selected
from hpjax.data.examples import Examples
from tests.support.compare import same_bits
from tests.support.counting import compilations, ran
from tests.support.marks import slow
from tests.support.networks import BATCH, MLP, Dense, Masked, Small, difference, make_data, points
from tests.support.plain import SEED, cross_entropy, train_alone


def program_of(data, **changes):
    arguments = {"model": MLP(), "optimizer": optax.sgd(0.1), "loss": cross_entropy, "data": data}
    return hpx.supervised(**(arguments | {"batch_size": BATCH, "steps": 12, "eval_every": 4} | changes))


def manual(space, listed, program, **more):
    return hpx.Sweep(program, space, sampler=hpx.Manual(listed), seed=SEED, width=2, devices=1, **more)


def test_early_stopping_may_maximize():
    data = make_data("blobs")
    program = program_of(
        data,
        metrics={"accuracy": hpx.metrics.accuracy},
        early_stopping=hpx.EarlyStopping(2, objective=hpx.maximize("valid/accuracy")),
        model=nn.Dense(3),
        eval_every=1,
    )
    result = ran(manual(hpx.Space(x=1), [{"x": 1}], program))
    curve = result.curves("valid/accuracy")[0, 0]
    assert result.best.metrics["valid/best_accuracy"] == curve.max()
    assert len(curve) == np.argmax(curve) + 3, "two evaluations after the best"


@pytest.mark.slow
def test_early_stopping_keeps_the_best_at_whatever_step_a_trial_ends():
    """The steps of a program may be changed after it was made, as ``hpjax run --steps`` does."""
    arguments = {"model": nn.Dense(3), "optimizer": optax.sgd(5.0), "eval_every": 1}
    program = program_of(make_data("blobs"), early_stopping=hpx.EarlyStopping(99), **arguments)
    shorter = dataclasses.replace(program, steps=9)
    result = ran(manual(hpx.Space(x=1), [{"x": 1}], shorter))
    best = int(result.curves("valid/loss")[0, 0].argmin()) + 1
    assert best < 9, "at this learning rate the last is not the best"
    alone = ran(manual(hpx.Space(x=1), [{"x": 1}], program_of(make_data("blobs"), steps=best, **arguments)))
    mine, other = (jax.tree.leaves(r[0].restore()["params"]) for r in (result, alone))
    assert all(map(same_bits, mine, other))
    assert result.test() == alone.test(), "of the parameters that are kept, and nothing that was found by validation"
    (hint,) = (each for each in manual(hpx.Space(x=1), [{"x": 1}], program).plan().hints if "rank by the last" in each)
    assert 'objective=hpx.minimize("valid/best_loss")' in hint.replace("'", '"')
    plan = manual(hpx.Space(x=1), [{"x": 1}], program, objective=hpx.minimize("valid/best_loss")).plan()
    assert not any("rank by the last" in each for each in plan.hints)


@pytest.mark.parametrize("told", [False, True])
def test_a_layer_behind_a_mask_that_is_not_told_of_it_is_a_hint(told):
    program = program_of(
        make_data("blobs"),
        model=lambda h: nn.Sequential([hpx.nn.Dense(8, h.n), hpx.nn.Dense(3, inputs=h.n if told else None)]),
    )
    hints = manual(hpx.Space(n=hpx.Int(1, 8)), points(n=[1, 4]), program).plan().hints
    assert any("n masks units, but no later layer is told how many of its inputs" in hint for hint in hints) is not told


def test_masks_by_a_computed_number_are_planned_and_checked():
    program = program_of(make_data("blobs"), model=lambda h: nn.Sequential([hpx.nn.Dense(8, 2 * h.n), nn.Dense(3)]))
    space = hpx.Space(n=hpx.Int(1, 20))
    assert len(manual(space, points(n=[1, 4]), program).plan().groups) == 1
    with pytest.raises(hpx.InputError, match=r"Dense.active = 10: must lie between 1 and 8"):
        manual(space, points(n=[1, 5]), program).plan()


def test_masked_kernels_are_drawn_at_the_scale_of_the_small_network():
    """Variance 1 / fan_in of the inputs that count; a closed form."""

    class Model(nn.Module):
        inputs: jax.Array

        @nn.compact
        def __call__(self, x):
            return hpx.nn.Dense(400, jnp.int32(300), inputs=self.inputs)(x)

    kernel = Model(jnp.int32(100)).init(jax.random.key(0), jnp.zeros((1, 800)))["params"]["Dense_0"]["kernel"]
    assert kernel[:100, :300].var() == pytest.approx(1 / 100, rel=0.02)
    assert not kernel[100:].any()
    assert not kernel[:, 300:].any()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["selected", "scaled"])
def test_selected_initializers_are_drawn_at_the_scale_of_the_small_network_too(how):
    @jax.jit
    def drawn(index):
        scheme = Selected(index, (hpx.nn.he_normal, hpx.nn.zeros, hpx.nn.orthogonal))
        init = scheme if how == "selected" else hpx.nn.scaled(scheme, 3.0)
        layer = hpx.nn.Dense(
            400, jnp.int32(300), inputs=jnp.int32(100), kernel_init=init, bias_init=nn.initializers.ones
        )
        return layer.init(jax.random.key(0), jnp.zeros((1, 800)))["params"]

    def kernel(index):
        params = drawn(index)
        assert not params["kernel"][100:].any()
        assert not params["kernel"][:, 300:].any()
        assert params["bias"].sum() == 300
        return params["kernel"][:100, :300] / (1 if how == "selected" else 3)

    assert kernel(0).var() == pytest.approx(2 / 100, rel=0.02)
    assert not kernel(1).any()
    rows = kernel(2)
    np.testing.assert_allclose(rows @ rows.T, np.eye(100), atol=1e-4)


def test_an_initializer_of_unknown_scale_makes_units_a_group():
    program = program_of(
        make_data("blobs"), model=lambda h: hpx.nn.Dense(20, h.n, kernel_init=nn.initializers.he_normal())
    )
    verdict = manual(hpx.Space(n=hpx.Int(3, 20)), points(n=[3, 9]), program).plan().verdicts[0]
    assert not verdict.traced
    assert "must be an initializer of hpx.nn where units are masked" in verdict.reason


@pytest.mark.slow
def test_an_optimizer_is_told_the_loss_of_the_whole_batch():
    seen = optax.GradientTransformationExtraArgs(
        lambda params: jnp.zeros(()),
        lambda updates, state, params=None, *, value, **_: (jax.tree.map(jnp.zeros_like, updates), value),
    )
    values = [
        ran(
            manual(hpx.Space(x=1), [{"x": 1}], program_of(make_data("blobs"), optimizer=seen, steps=1, **cut))
        ).best.restore()["opt_state"]
        for cut in ({}, {"microbatch": 4}, {"microbatch": 16})
    ]
    np.testing.assert_allclose(values[1:], values[0], rtol=1e-6)


@pytest.mark.slow
def test_monitors_leave_out_what_masks_leave_out():
    program = program_of(
        make_data("blobs"),
        model=lambda h: Masked(h.units, 2),
        penalty=lambda params, h: 0.01 * hpx.losses.l1(params),
        monitor=["dead_units", "sparsity", "gradient_norm"],
    )
    result = ran(manual(hpx.Space(units=hpx.Int(1, 8)), points(units=[2, 8]), program))
    for trial in range(2):
        units = result[trial].hparams["units"]
        for i in range(3):
            layer = result[trial].restore()["params"][f"Dense_{i}"]
            assert not layer["kernel"][:, units:].any()
            assert not layer["bias"][units:].any()
        for name, value in result[trial].metrics.items():
            if "dead_units" in name or "sparsity" in name:
                assert value < 0.05, name
    assert not any(finding.what in ("dead units", "vanishing gradients") for finding in hpx.diagnose(result))


def test_a_number_in_place_of_a_mask_is_the_small_network_itself():
    model = Masked(3, 1)
    params = model.init(jax.random.key(0), jnp.zeros((1, 5)))["params"]
    with jax.enable_x64(True):
        small = Small(3, 1).init(jax.random.key(0), jnp.zeros((1, 5)))["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, small)


@pytest.mark.slow
@pytest.mark.slow
def test_folds_and_seeds_equal_plain_loops_on_the_same_parts():
    """Against scikit-learn's KFold; every example is in the validation split of one fold, and never in its batches."""
    examples = 91  # which four folds do not divide
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        y = rng.integers(0, 3, examples)
        data = hpx.data.from_arrays(rng.normal(size=(examples, 5)) + y[:, None], y, valid=0.3)
        program = program_of(data, optimizer=lambda h: optax.sgd(h.rate), eval_batch_size=7)
        sweep = manual(hpx.Space(rate=hpx.Choice(0.1, 0.3)), points(rate=[0.1, 0.3]), program, folds=4, replicates=2)
        result = ran(sweep)
        assert result.lane_status.shape == (2, 8)
        pool = hpx.data.pool(data)
        parts = list(KFold(4).split(pool.x))
        for seed in range(2):
            for fold, (inside, outside) in enumerate(parts):
                own = hpx.Data(*(Examples(pool.x[part], pool.y[part]) for part in (inside, outside)))
                params, losses = train_alone(own, model=MLP(), optimizer=optax.sgd(0.3), replicate=seed)
                lane = 4 * seed + fold
                assert difference(result[1].restore(lane)["params"], params) < 1e-9
                np.testing.assert_allclose(result.curves("valid/loss")[1, lane], losses, rtol=1e-9)
        assert "8 replicates (2 seeds × 4 folds)" in str(sweep.plan())
        assert sweep.plan().data_bytes == sum(a.nbytes for a in pool)
        test = result.test()
        losses = []
        for lane in range(8):
            logits = MLP().apply({"params": result.best.restore(lane)["params"]}, data.test.x)
            losses.append(float(cross_entropy(logits, data.test.y).mean()))
        assert test["test/loss"] == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_attention_with_a_traced_rate_is_flax_s(kind, rate):
    x = jax.random.normal(jax.random.key(1), (2, 5, 4))

    def apply(layer, rate):
        if kind == "linen":
            model = layer(num_heads=2, dropout_rate=rate, deterministic=False)
            params = nn.MultiHeadAttention(num_heads=2).init(jax.random.key(0), x)
            return model.apply(params, x, rngs={"dropout": jax.random.key(2)})
        model = layer(num_heads=2, in_features=4, dropout_rate=rate, rngs=nnx.Rngs(0), decode=False)
        model.train()
        return model(x, rngs=nnx.Rngs(2))

    flax = nn.MultiHeadAttention if kind == "linen" else nnx.MultiHeadAttention
    if rate == 1.0:  # Flax divides by zero there
        assert np.isfinite(jax.jit(lambda rate: apply(hpx.nn.MultiHeadAttention, rate))(rate)).all()
        return
    traced = jax.jit(lambda rate: apply(hpx.nn.MultiHeadAttention, rate))(rate)
    np.testing.assert_allclose(traced, apply(flax, rate), rtol=1e-5, atol=1e-6)


def test_gradients_of_dropout_are_finite_at_every_rate():
    def loss(x, rate):
        return hpx.nn.Dropout(rate).apply({}, x, deterministic=False, rngs={"dropout": jax.random.key(0)}).sum()

    for rate in (0.0, 0.5, 1.0):
        assert np.isfinite(jax.jit(jax.grad(loss))(jnp.ones(8), rate)).all()


def test_parameters_in_bfloat16_are_warned_of():
    def hints(**types):
        model = nn.Sequential([nn.Dense(6, **types), nn.Dense(3, **types)])
        return manual(hpx.Space(x=1), [{"x": 1}], program_of(make_data("blobs"), model=model)).plan().hints

    assert not any("bfloat16" in hint for hint in hints(dtype=jnp.bfloat16))
    assert any("b2=0.999 becomes 1" in hint for hint in hints(param_dtype=jnp.bfloat16))


MISUSES = {
    "dropout": (
        {"model": lambda h: nn.Sequential([nn.Dense(3), hpx.nn.Dropout(h.x, deterministic=True)])},
        "Dropout.rate = 1.5: must lie between 0 and 1",
    ),
    "momentum": ({"optimizer": lambda h: hpx.optim.sgd(0.1, h.x)}, "sgd.momentum = 1.5: must lie between 0 and 1"),
    "units": (
        {"model": lambda h: nn.Sequential([hpx.nn.Dense(8, h.n), nn.Dense(3)])},
        "Dense.active = 9: must lie between 1 and 8",
    ),
    "warmup": (
        {"optimizer": lambda h: optax.sgd(hpx.optim.warmup_cosine_decay_schedule(0, 0.1, h.n, 9))},
        "warmup_cosine_decay_schedule.warmup_steps = 9: must be less than 9",
    ),
    "negative steps": (
        {"optimizer": lambda h: optax.sgd(hpx.optim.linear_schedule(0, 1, h.n - 10))},
        "polynomial_schedule.transition_steps = -1: must be 0 or more",
    ),
    "microbatch": (
        {"batch_size": lambda h: h.n, "microbatch": 4},
        "supervised.microbatch = 4: divides no batch size; there are 9. Write microbatch=9.",
    ),
    "patience": (
        {"early_stopping": lambda h: hpx.EarlyStopping(h.n - 9)},
        "EarlyStopping.patience = 0: must be 1 or more",
    ),
    "average": ({"average": lambda h: h.x}, "supervised.average = 1.5: must lie between 0 and 1"),
    "stopping by what is not there": (
        {"early_stopping": hpx.EarlyStopping(1, objective=hpx.minimize("valid/error"))},
        "EarlyStopping.objective = 'valid/error': must be a validation metric of the program",
    ),
    "plateau of what is not there": (
        {"optimizer": optax.chain(optax.sgd(0.1), hpx.optim.reduce_on_plateau(objective=hpx.minimize("valid/error")))},
        "reduce_on_plateau.objective = 'valid/error': must be a metric of the program",
    ),
    "Optax's momentum": ({"optimizer": lambda h: optax.sgd(0.1, h.x)}, "optax.sgd.momentum = 1.5: must lie between 0"),
    "b1 that is injected": (
        {"optimizer": lambda h: optax.inject_hyperparams(optax.adam)(learning_rate=0.1, b1=h.x)},
        "optax.inject_hyperparams.b1 = 1.5: must lie between 0 and 1",
    ),
    "momentum of MultiSteps": (
        {"optimizer": lambda h: optax.MultiSteps(optax.sgd(0.1, h.x), 2).gradient_transformation()},
        "optax.sgd.momentum = 1.5: must lie between 0 and 1. Narrow the domain",
    ),
    "units of a norm": (
        {"model": lambda h: nn.Sequential([nn.Dense(8), hpx.nn.LayerNorm(h.n), nn.Dense(3)])},
        "LayerNorm.active = 9: must lie between 1 and 8",
    ),
    "a constant number of units of a norm": (
        {"model": lambda h: nn.Sequential([nn.Dense(8), hpx.nn.LayerNorm(20), nn.Dense(3)])},
        "LayerNorm.active = 20: must lie between 1 and 8",
    ),
    "units of a norm as a real number": (
        {"model": lambda h: nn.Sequential([nn.Dense(8), hpx.nn.LayerNorm(h.x), nn.Dense(3)])},
        "LayerNorm.active = 1.5: must be a whole number",
    ),
    "Optax's b2": (
        {
            "optimizer": lambda h: optax.chain(
                optax.clip(1.0), optax.multi_transform({"a": optax.adamw(0.1, b2=h.x)}, "a")
            )
        },
        "optax.scale_by_adam.b2 = 1.5: must lie between 0 and 1",
    ),
    "a warmup beyond the run": (
        {"optimizer": lambda h: optax.sgd(hpx.optim.warmup_cosine_decay_schedule(0, 0.1, h.n + 10, 100))},
        "warmup_cosine_decay_schedule.warmup_steps = 19: must not be longer than the run, 12 steps",
    ),
    "units as a real number": (
        {"model": lambda h: nn.Sequential([hpx.nn.Dense(8, h.x), nn.Dense(3)])},
        "must be a whole number. Write hpx.Int(8, 64) or hpx.LogInt(8, 64)",
    ),
    "inputs": (
        {"model": lambda h: nn.Sequential([hpx.nn.Dense(3, inputs=h.n)])},
        "Dense.inputs = 9: must lie between 1 and 5",
    ),
    "class weights": (
        {"loss": lambda h: hpx.losses.cross_entropy(weights=(h.x, 1.0))},
        "cross_entropy.weights = 2: must be 3 numbers, one a class",
    ),
    "constant": (
        {"model": nn.Sequential([nn.Dense(3), nn.Dropout(0.5)]), "penalty": 3},
        "supervised.penalty = 3: must",
    ),
}


@pytest.mark.parametrize("name", MISUSES)
def test_numbers_out_of_range_are_named_before_anything_compiles(name):
    """Also where the hyperparameter is traced: the check runs on the numbers that were sampled."""
    changes, message = MISUSES[name]
    data = make_data("blobs")
    space = hpx.Space(x=hpx.Uniform(0, 2), n=hpx.Int(1, 20))
    with compilations() as programs, pytest.raises(hpx.InputError) as caught:
        manual(space, [{"x": 1.5, "n": 9}], program_of(data, **changes)).plan()
    assert message in str(caught.value)
    assert programs == []


COMPUTED = {
    "dropout": (
        {"model": lambda h: nn.Sequential([nn.Dense(3), hpx.nn.Dropout(h.x * 2 - 1, deterministic=True)])},
        "Dropout.rate = 2.0: must lie between 0 and 1",
    ),
    "dropout by jnp": (
        {"model": lambda h: nn.Sequential([nn.Dense(3), hpx.nn.Dropout(jnp.log2(h.x + 1.5), deterministic=True)])},
        "Dropout.rate = 1.5849625: must lie between 0 and 1",
    ),
    "neither the least nor the greatest": (
        {"model": lambda h: nn.Sequential([hpx.nn.Dense(8, 4 + jnp.where(h.n == 9, 5, 0)), nn.Dense(3)])},
        "Dense.active = 9: must lie between 1 and 8",
    ),
    "smoothing": (
        {"loss": lambda h: hpx.losses.cross_entropy(smoothing=2 * h.x)},
        "cross_entropy.smoothing = 3.0: must lie between 0 and 1",
    ),
    "momentum": (
        {"optimizer": lambda h: optax.sgd(0.1, jnp.square(h.x))},
        "optax.sgd.momentum = 2.25: must lie between 0 and 1",
    ),
    "warmup": (
        {"optimizer": lambda h: optax.sgd(hpx.optim.warmup_constant_schedule(0, 0.1, jnp.round(h.n * jnp.sqrt(2.25))))},
        "warmup_constant_schedule.warmup_steps = 14.0: must not be longer than the run, 12 steps",
    ),
    "average": ({"average": lambda h: jnp.sqrt(h.x)}, "supervised.average = 1.2247449: must lie between 0 and 1"),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_numbers_that_the_program_computes_are_checked_for_every_trial(name):
    changes, message = COMPUTED[name]
    space = hpx.Space(x=hpx.Uniform(0, 2), n=hpx.Int(1, 20))
    listed = points(x=[0.5, 1.5, 0.5], n=[1, 9, 20])
    with compilations() as programs, pytest.raises(hpx.InputError) as caught:
        manual(space, listed, program_of(make_data("blobs"), **changes)).plan()
    assert message in str(caught.value)
    assert programs in ([], ["jit(values)"]), "at most the numbers themselves"


def test_numbers_that_cannot_be_seen_beforehand_are_told_of():
    class Inside(nn.Module):
        rate: jax.Array

        @nn.compact
        def __call__(self, x):
            return nn.remat(nn.Dense)(3)(jax.jit(self.drop)(x, self.rate))

        def drop(self, x, rate):
            return hpx.nn.Dropout(jnp.square(rate), deterministic=True, parent=None).apply({}, x)

    program = program_of(make_data("blobs"), model=lambda h: Inside(h.x))
    hints = manual(hpx.Space(x=hpx.Uniform(0, 1)), points(x=[0.5, 0.2]), program).plan().hints
    assert any("Dropout.rate is computed inside a loop or a jitted function" in hint for hint in hints)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"penalty": lambda params, h: params["Dense_0"]["bias"]}, r"supervised.penalty must give a scalar, got \[6\]"),
        ({"penalty": lambda params, h: {}}, "supervised.penalty must give a scalar, got dict"),
        (
            {"penalty": lambda params, h: 1j * hpx.losses.l2(params)},
            "supervised.penalty must give real numbers, got comp",
        ),
        ({"loss": lambda outputs, y: None}, "loss must give an array, got NoneType"),
        ({"metrics": {"a": lambda outputs, y: {}}}, "a must give an array, got dict"),
        ({"split_metrics": {"a": lambda outputs, y: "b"}}, "a must give an array, got str"),
        ({"loss": lambda outputs, y: outputs[:, 0] * 1j}, "loss must give real numbers, got complex"),
        ({"augment": lambda key, batch, h: (batch.x, batch.y)}, r"supervised.augment must return Examples\(x, y\)"),
    ],
)
def test_functions_that_return_something_else_are_named(changes, message):
    with pytest.raises(hpx.ProgramError, match=message):
        manual(hpx.Space(x=1), [{"x": 1}], program_of(make_data("blobs"), **changes)).plan()


def test_folds_that_cannot_be():
    data = make_data("blobs")
    with pytest.raises(hpx.InputError, match=r"Sweep.folds = 100: must be a whole number, 2 or more, 72 at most"):
        manual(hpx.Space(x=1), [{"x": 1}], program_of(data), folds=100)
    with pytest.raises(hpx.InputError, match="batch_size = 40: must be at most 36"):
        manual(hpx.Space(x=1), [{"x": 1}], program_of(data, batch_size=40), folds=2).plan()


def test_units_of_an_nnx_norm_may_be_static():
    class Model(nnx.Module):
        def __init__(self, units, rngs):
            self.first = hpx.nn.Dense(8, units, in_features=5, rngs=rngs)
            self.norm = hpx.nn.LayerNorm(units, num_features=8, rngs=rngs)
            self.last = hpx.nn.Dense(3, inputs=units, in_features=8, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.norm(self.first(x))))

    program = program_of(make_data("blobs"), model=lambda h, rngs: Model(h.n, rngs))
    plan = manual(hpx.Space(n=hpx.Int(1, 8, static=True)), points(n=[3, 8]), program).plan()
    assert [shapes.parameters for shapes in plan.shapes] == [6 * n + 2 * n + 3 * n + 3 for n in (3, 8)]


@pytest.mark.parametrize("optimizer", [lambda h: optax.sgd(0.1, h.x), lambda h: optax.adam(0.01, h.x)])
def test_numbers_are_traced_where_parameters_are_bfloat16(optimizer):
    model = nn.Sequential([nn.Dense(6, param_dtype=jnp.bfloat16), nn.Dense(3, param_dtype=jnp.bfloat16)])
    program = program_of(make_data("blobs"), model=model, optimizer=optimizer)
    sweep = manual(hpx.Space(x=hpx.Uniform(0, 1)), points(x=[0.5, 0.9]), program)
    assert sweep.plan().verdicts[0].traced
    assert all(leaf.dtype in (jnp.bfloat16, jnp.int32) for leaf in jax.tree.leaves(sweep.plan().shapes[0].state))


@pytest.mark.slow
@pytest.mark.slow
def test_a_large_batch_takes_the_memory_of_a_microbatch():
    data = hpx.data.from_arrays(np.ones((4096, 100), np.float32), np.zeros(4096, np.int32))

    def used(**batch):
        program = program_of(data, model=nn.Dense(3), **batch)
        h, key = hpx.Hparams({}), jax.random.key(0)
        state = jax.eval_shape(program.init, key, h)
        step = jax.jit(lambda key, state: program.step(key, state, program.batch(key, 0, data.train, h), h))
        return step.lower(key, state).compile().memory_analysis().temp_size_in_bytes

    small, large, whole = used(batch_size=16), used(batch_size=2048, microbatch=16), used(batch_size=2048)
    assert whole > 2048 * 100 * 4
    assert large < small + 10_000


def test_a_choice_by_selection_wants_functions_that_agree():
    with pytest.raises(hpx.InputError, match=r"Choice.select = True: needs functions"):
        hpx.Choice("relu", "tanh", select=True)
    space = hpx.Space(act=hpx.Choice(nn.relu, lambda x: x[..., :1], select=True))
    program = program_of(make_data("blobs"), model=lambda h: nn.Sequential([Dense(3), h.act]))
    with pytest.raises(hpx.InputError, match=r"Space.act.select = True: cannot be"):
        hpx.Sweep(program, space, sampler=hpx.Grid()).plan()


class Wide(nn.Module):
    units: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(hpx.nn.Dense(512, self.units)(x))
        x = nn.relu(hpx.nn.Dense(512, self.units, inputs=self.units)(x))
        return hpx.nn.Dense(3, inputs=self.units)(x)


def test_the_plan_says_what_masks_and_selections_cost():
    """Matrix products dominate: 512² against the mean of 64² and 512²."""
    data = make_data("blobs")
    units = hpx.Choice(64, 512)
    with compilations() as programs:
        short, long = (
            hpx.Sweep(
                program_of(data, model=lambda h: Wide(h.units), steps=steps), hpx.Space(units=units), sampler=hpx.Grid()
            ).plan()
            for steps in (2, 10**7)
        )
        space = hpx.Space(act=hpx.Choice(nn.relu, nn.tanh, nn.gelu, select=True))
        selected = hpx.Sweep(program_of(data, model=lambda h: MLP(act=h.act)), space, sampler=hpx.Grid()).plan()
    assert programs == []
    expected = 512**2 / np.mean([64**2, 512**2])
    found = float(short.verdicts[0].reason.removeprefix("masked in one program; ").split(" ")[0])
    assert found == pytest.approx(expected, rel=0.05)
    assert short.verdicts[0].reason.endswith("× the arithmetic of 2 groups, in 1 program for 2: cheaper here")
    assert long.verdicts[0].reason.endswith("static=True would be cheaper here")
    assert selected.verdicts[0].reason.startswith("one program computes all 3 and selects; ")
    assert len(selected.groups) == 1


@pytest.mark.parametrize("microbatch", [slow(None), 10])
def test_the_plan_says_what_batch_sizes_cost_otherwise(microbatch):
    """Compiling is most of a short run: one program; and work of a long one, where updates are for whole batches."""
    data = make_data("blobs")
    space = hpx.Space(batch=hpx.Choice(10, 20, 40), act=hpx.Choice(nn.relu, nn.tanh, static=True))

    def told(steps):
        program = program_of(
            data, model=lambda h: MLP(act=h.act), batch_size=lambda h: h.batch, steps=steps, microbatch=microbatch
        )
        (found,) = (v for v in hpx.Sweep(program, space, sampler=hpx.Grid()).plan().verdicts if v.name == "batch")
        assert found.traced is (microbatch is not None)
        return found.reason

    with compilations() as programs:
        short, long = told(2), told(10**8)
    assert programs == []
    for reason in (short, long):
        assert "6 programs for 3 batch sizes" in reason
        assert "2 programs with microbatch=10" in reason
    other = "would be cheaper here"
    assert [other in short, other in long] == [microbatch is None, microbatch is not None]


@pytest.mark.parametrize("factor", [1, 2], ids=["as it is", "computed"])
def test_a_plan_of_many_trials_looks_at_every_number_and_once_at_what_they_share(factor):
    looks, data = [], make_data("blobs")

    def optimizer(h):
        looks.append(h)
        return optax.sgd(h.rate, h.momentum if factor == 1 else factor * h.momentum)

    def plan(momenta):
        looks.clear()
        listed = [{"rate": 0.1, "momentum": m / factor} for m in momenta]
        space = hpx.Space(rate=hpx.Uniform(0, 1), momentum=hpx.Uniform(0, 2))
        manual(space, listed, program_of(data, optimizer=optimizer)).plan()
        return len(looks)

    few, many = (plan([0.9] * n) for n in (10, 100))
    assert (few == many) is (factor == 1), "what is computed from numbers is computed for each"
    with pytest.raises(hpx.InputError, match=r"sgd.momentum.* = 1.5"):
        plan([0.9] * 99 + [1.5])


@pytest.mark.slow
@pytest.mark.slow
def test_sums_of_microbatches_report_the_mean_of_the_whole_batch():
    """At rate 0 the loss of a step is that of its batch, whichever way it is cut."""
    data = make_data("blobs")

    def loss(**cutting):
        program = program_of(data, optimizer=optax.sgd(0.0), batch_size=20, steps=3, **cutting)
        return ran(manual(hpx.Space(x=1), [{"x": 1}], program)).last("train/loss")[0, 0]

    assert loss(eval_every=3) == pytest.approx(loss(eval_every=9, microbatch=10), rel=1e-5)


@pytest.mark.slow
@pytest.mark.slow
def test_packing_changes_no_bit_of_these_axes_either():
    """Microbatches, early stopping, averages, selections, masks and folds together: devices, order, segments."""
    data = make_data("blobs")
    listed = points(
        batch=[8, 16, 24, 16, 8],
        patience=[1, 2, 9, 1, 2],
        rate=[0.1, 3.0, 0.3, 1.0, 0.5],
        act=[nn.relu, nn.tanh, nn.relu, nn.tanh, nn.relu],
        units=[2, 8, 5, 8, 3],
    )

    class Model(nn.Module):
        h: hpx.Hparams

        @nn.compact
        def __call__(self, x, train):
            x = self.h.act(hpx.nn.Dense(8, self.h.units)(x))
            x = hpx.nn.Dropout(0.1 * self.h.rate / 3, deterministic=not train)(x)
            return hpx.nn.Dense(3, inputs=self.h.units)(x)

    program = program_of(
        data,
        model=lambda h: Model(h),
        optimizer=lambda h: hpx.optim.sgd(h.rate, 0.9, True),
        batch_size=lambda h: h.batch,
        microbatch=8,
        average=0.5,
        early_stopping=lambda h: hpx.EarlyStopping(h.patience),
        steps=12,
        eval_every=4,
    )
    space = hpx.Space(
        batch=hpx.Choice(8, 16, 24),
        patience=hpx.Int(1, 9),
        rate=hpx.Uniform(0, 5),
        act=hpx.Choice(nn.relu, nn.tanh, select=True),
        units=hpx.Int(1, 8),
    )

    def run(listed, programs=1, **more):
        sweep = hpx.Sweep(program, space, sampler=hpx.Manual(listed), seed=SEED, width=2, folds=3, **more)
        return ran(sweep, programs)

    first = run(listed, devices=2)
    assert len(set(first.lane_step.ravel().tolist())) > 2
    for order, result in (
        (-1, run(listed[::-1], devices=4)),
        (1, run(listed, devices=2, segment=3, programs=0)),  # that of the first two devices
    ):
        assert same_bits(result.lane_step[::order], first.lane_step)
        for metric in ("train/loss", "valid/loss", "valid/best_loss"):
            assert same_bits(result.curves(metric)[::order], first.curves(metric))
        for a, b in zip(range(5), range(5)[::order], strict=True):
            mine, other = (jax.tree.leaves(r[t].restore(2)["params"]) for r, t in ((first, a), (result, b)))
            assert all(map(same_bits, mine, other))
