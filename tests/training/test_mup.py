"""μP against the paper's Table 8, and against plain loops of Optax with a rate and an initial scale for each layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import hpjax as hpx
from hpjax.core.hparams import Hparams
from hpjax.core.keys import lane_key, purpose_key, step_key

BASE, WIDE, M = 16, 64, 4.0


def mlp(width):
    return nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(width), nn.relu, nn.Dense(10)])


class Block(nn.Module):
    """A transformer of one block; heads are 8 wide, so that there are more of them where it is wider."""

    width: int

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(30, self.width, name="embed")(tokens)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, tokens.shape[1], self.width))
        y = nn.LayerNorm(name="norm")(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=self.width // 8, name="attention")(y)
        x = x + nn.Dense(self.width, name="down")(nn.gelu(nn.Dense(4 * self.width, name="up")(x)))
        return nn.Dense(30, name="head")(x)


def params_of(model, x):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), x)["params"])


# Table 8 of arXiv 2203.03466, of a model M times as wide as the base: the variance of initial values, the multiplier,
# the rate of SGD and that of Adam.
TABLE_8 = {"input": (1, 1, M, 1), "hidden": (1 / M, 1, 1, 1 / M), "output": (1, 1 / M, M, 1)}
MLP = {
    "layers_0/kernel": "input",
    "layers_0/bias": "input",
    "layers_2/kernel": "hidden",
    "layers_2/bias": "input",
    "layers_4/kernel": "output",
}
ATTENTION = [f"attention/{part}/kernel" for part in ("query", "key", "value", "out")]
BLOCK = {
    **dict.fromkeys(("embed/embedding", "positions", "norm/scale", "norm/bias", "up/bias", "down/bias"), "input"),
    **dict.fromkeys((*ATTENTION, "up/kernel", "down/kernel"), "hidden"),
    **dict.fromkeys(("attention/query/bias", "attention/out/bias"), "input"),
    "head/kernel": "output",
}


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("model", "x", "kinds"),
    [(mlp, jnp.ones((1, 8)), MLP), (Block, jnp.ones((1, 5), int), BLOCK)],
    ids=["mlp", "transformer block"],
)
def test_multipliers_are_those_of_the_papers_table(model, x, kinds, rule):
    found = hpx.mup.multipliers(params_of(model(WIDE), x), params_of(model(BASE), x), rule)
    for name, kind in kinds.items():
        variance, multiplier, sgd, adam = TABLE_8[kind]
        assert found[name][:4] == (kind, variance, multiplier, sgd if rule == "sgd" else adam), name
    last = "layers_4/bias" if model is mlp else "head/bias"
    assert found[last][:4] == ("finite", 1, 1, 1), "nothing of it grows"
    assert {name for name in found if name not in kinds and name != last} <= {
        "attention/key/bias",
        "attention/value/bias",
    }


def test_a_folded_multiplier_is_table_3():
    """The same function with parameters that hold the multiplier: variance 1/fan_in², SGD 1/fan_in, Adam 1/fan_in."""
    x = jnp.ones((1, 8))
    for rule in ("sgd", "adam"):
        own = hpx.mup.multipliers(params_of(mlp(WIDE), x), params_of(mlp(BASE), x), rule)["layers_4/kernel"]
        assert (own.own_deviation, own.own_rate) == (1 / M, 1 / M)


def test_attention_and_embeddings_of_other_shapes():
    """Heads that get wider and more, convolutions, layers of a scan, and low-rank adapters."""
    small = {
        "other": {"key": {"kernel": (5, 2, 4)}},
        "query": {"kernel": (8, 2, 4)},
        "out": {"kernel": (2, 4, 8)},
        "conv": (3, 3, 8, 8),
        "stem": (3, 3, 1, 8),
    }
    wide = {
        "other": {"key": {"kernel": (5, 8, 4)}},
        "query": {"kernel": (32, 4, 8)},
        "out": {"kernel": (4, 8, 32)},
        "conv": (3, 3, 32, 32),
        "stem": (3, 3, 1, 32),
    }
    more_small = {"scanned": {"kernel": (6, 8, 8), "bias": (6, 8)}, "down": (8, 2), "up": (2, 8)}
    more_wide = {"scanned": {"kernel": (6, 32, 32), "bias": (6, 32)}, "down": (32, 2), "up": (2, 32)}

    def shapes(tree):
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, float), tree, is_leaf=lambda s: isinstance(s, tuple))

    found = hpx.mup.multipliers(shapes(wide | more_wide), shapes(small | more_small))
    kinds = {name: each.kind for name, each in found.items()}
    assert kinds == {
        **dict.fromkeys(("query/kernel", "out/kernel", "conv", "scanned/kernel"), "hidden"),
        **dict.fromkeys(("stem", "scanned/bias", "up", "other/key/kernel"), "input"),
        "down": "output",
    }
    assert {found[name].rate for name, kind in kinds.items() if kind == "hidden"} == {0.25}


# What is trained.


def program(mup, optimizer=lambda h: optax.adam(h.learning_rate), model=lambda h: mlp(h.width), **changes):
    asked = {"loss": optax.softmax_cross_entropy_with_integer_labels, "data": hpx.data.digits(), "batch_size": 32}
    return hpx.supervised(model=model, optimizer=optimizer, mup=mup, **(asked | {"steps": 4} | changes))


def trained(own, h, steps=4):
    """The state before and after some steps, as a lane takes them."""
    key, (train, _) = lane_key(0, 0), own.splits
    start = state = jax.jit(lambda: own.init(purpose_key(key, "init"), h))()

    @jax.jit
    def step(state, number):
        batch = own.batch(purpose_key(key, "batch"), number, jax.tree.map(jnp.asarray, train), h)
        return own.step(step_key(purpose_key(key, "step"), number), state, batch, h)[0]

    for number in range(steps):
        state = step(state, number)
    return start, state


def batches(own, h, steps=4):
    train = jax.tree.map(jnp.asarray, own.splits[0])
    return [own.batch(purpose_key(lane_key(0, 0), "batch"), number, train, h) for number in range(steps)]


H = Hparams({"learning_rate": 0.02, "width": WIDE})
MUP = hpx.mup.MuP({"width": BASE})


def test_at_the_base_width_the_program_is_the_same():
    h = Hparams({"learning_rate": 0.02, "width": BASE})

    def text(mup):
        own = program(mup)
        state = own.init(jax.random.key(0), h)
        (batch,) = batches(own, h, 1)
        steps = jax.make_jaxpr(lambda s, b: own.step(jax.random.key(0), s, b, h))(state, batch)
        return str(jax.make_jaxpr(lambda key: own.init(key, h))(jax.random.key(0))), str(steps)

    assert text(MUP) == text(None)


def test_initial_values_are_the_drawn_ones_times_what_the_table_says():
    plain, own = (trained(program(mup), H, 0)[0].params for mup in (None, MUP))
    # LeCun's initializer has a variance of 1/fan_in by itself: hidden weights stay, those of the output lack 1/√m.
    np.testing.assert_array_equal(own["layers_0"]["kernel"], plain["layers_0"]["kernel"])
    np.testing.assert_array_equal(own["layers_2"]["kernel"], plain["layers_2"]["kernel"])
    np.testing.assert_array_equal(own["layers_4"]["kernel"], plain["layers_4"]["kernel"] / 2)


@pytest.mark.parametrize(
    ("kernel_init", "powers"),
    [
        (nn.initializers.normal(0.3), {0: 0, 2: -0.5, 4: -1}),
        (nn.initializers.he_uniform(), {0: 0, 2: -0.5, 4: -1}),
        # With one fixed side these are no powers of the width.
        (nn.initializers.glorot_normal(), {0: 0, 2: -0.5, 4: -1}),
        (nn.initializers.orthogonal(), {0: 0, 2: -0.5, 4: -1}),
    ],
    ids=["normal", "he_uniform", "glorot_normal", "orthogonal"],
)
def test_whatever_drew_them_initial_deviations_go_with_the_power_of_the_width_that_the_table_says(kernel_init, powers):
    def model(h):
        layers = [nn.Dense(size, kernel_init=kernel_init) for size in (h.width, h.width, 10)]
        return nn.Sequential([layers[0], nn.relu, layers[1], nn.relu, layers[2]])

    def deviations(width):
        params = trained(program(MUP, model=model), Hparams({"learning_rate": 0.1, "width": width}), 0)[0].params
        return {at: float(jnp.sqrt(jnp.mean(params[f"layers_{at}"]["kernel"] ** 2))) for at in powers}

    base, wide = deviations(BASE), deviations(32 * BASE)
    for at, power in powers.items():
        # The standard deviation of a sample of 160 numbers is known to 6 %.
        assert wide[at] / base[at] == pytest.approx(32.0**power, rel=0.2), at


def test_zeros_stay_zeros_and_embeddings_keep_their_size():
    """An embedding of Flax has variance 1/width; as an input weight it has that of the base model."""
    model = lambda h: nn.Sequential([nn.Embed(30, h.width), lambda x: x.mean(axis=-2), nn.Dense(10)])
    x, y = np.arange(40).reshape(8, 5) % 30, np.arange(8) % 10
    own = program(MUP, model=model, data=hpx.data.from_arrays(x, y), batch_size=4)
    base, wide = (trained(own, Hparams({"learning_rate": 0.1, "width": w}), 0)[0].params for w in (BASE, 512))
    sizes = [float(jnp.std(each["layers_0"]["embedding"])) for each in (base, wide)]
    assert sizes == [pytest.approx(BASE**-0.5, rel=0.1)] * 2
    assert not wide["layers_2"]["bias"].any()


LAYERS = {"layers_0": "input", "layers_2": "hidden", "layers_4": "output"}
# Table 3, which Table 8 is with its multiplier folded into the weights.
RATES = {
    "sgd": {"input": M, "hidden": 1, "output": 1 / M},
    "adam": {"input": 1, "hidden": 1 / M, "output": 1 / M},
}


def labels(params, rule):
    """The rate of each parameter: a bias of a hidden layer is as an input weight, that of the last one is finite."""

    def rate(path, _):
        layer, part = (each.key for each in path)
        if part == "bias":
            return 1.0 if layer == "layers_4" else float(RATES[rule]["input"])
        return float(RATES[rule][LAYERS[layer]])

    return jax.tree_util.tree_map_with_path(rate, params)


@pytest.mark.parametrize(
    ("rule", "make"),
    [
        ("sgd", lambda rate, decay: optax.sgd(rate, momentum=0.9)),
        ("adam", lambda rate, decay: optax.adamw(rate, weight_decay=decay)),
        ("adam", lambda rate, decay: optax.lion(rate / 10, weight_decay=decay)),
    ],
    ids=["sgd", "adamw", "lion"],
)
def test_training_is_that_of_an_optimizer_for_each_rate(rule, make):
    """Optax multiplies weight decay by the rate: divided by a multiplier of the rate, it stays as it is."""
    mup = hpx.mup.MuP({"width": BASE}, rule)
    own = program(mup, lambda h: make(h.learning_rate, 0.1))
    start, end = trained(own, H)
    rates = labels(start.params, rule)
    by_rate = {rate: make(0.02 * rate, 0.1 / rate) for rate in set(jax.tree.leaves(rates))}
    plain = optax.multi_transform(by_rate, rates)
    params, state = start.params, plain.init(start.params)

    @jax.jit
    def step(params, state, batch):
        def loss(params):
            logits = mlp(WIDE).apply({"params": params}, batch.x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean()

        updates, state = plain.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for batch in batches(own, H):
        params, state = step(params, state, batch)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, start.params)
    assert min(jax.tree.leaves(moved)) > 1e-4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-7), end.params, params)


def test_schedule_free_is_evaluated_at_its_own_average():
    """Of rates that are powers of two, so that dividing and multiplying is exact: the average of what was trained."""
    make = lambda rate: optax.contrib.schedule_free(optax.sgd(rate), rate, b1=0.9)
    own = program(hpx.mup.MuP({"width": BASE}, "sgd"), lambda h: make(0.25))
    start, end = trained(own, H)
    rates = labels(start.params, "sgd")
    divided = lambda tree: jax.tree.map(lambda x, rate: x / rate, tree, rates)
    plain = make(0.25)
    inner, state = divided(start.params), plain.init(divided(start.params))
    for batch in batches(own, H):

        def loss(params, batch=batch):
            logits = mlp(WIDE).apply({"params": params}, batch.x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean()

        gradients = jax.grad(loss)(jax.tree.map(lambda x, rate: x * rate, inner, rates))
        updates, state = plain.update(gradients, state, inner)
        inner = optax.apply_updates(inner, updates)
    average = optax.contrib.schedule_free_eval_params(state, inner)
    wanted = jax.tree.map(lambda x, rate: x * rate, average, rates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-7), end.average, wanted)


def test_lanes_with_and_without_it_share_a_program():
    own = program(lambda h: hpx.mup.MuP({"width": BASE}, enabled=h.mup))
    space = hpx.Space(learning_rate=0.02, width=WIDE, mup=hpx.Choice(True, False))
    sweep = hpx.Sweep(own, space, sampler=hpx.Grid())
    assert len(sweep.plan().groups) == 1
    result = sweep.run(progress=False)
    losses = dict(zip([h["mup"] for h in result.hparams], result.last("valid/loss")[:, 0], strict=True))
    for enabled, mup in ((True, MUP), (False, None)):
        fixed = hpx.Sweep(program(mup), hpx.Space(learning_rate=0.02, width=WIDE), trials=1, seed=0).run(progress=False)
        assert losses[enabled] == pytest.approx(fixed.last("valid/loss")[0, 0], rel=1e-4)


def test_models_of_nnx_have_the_same_numbers():
    class Net(nnx.Module):
        def __init__(self, width, rngs):
            self.layers_0, self.layers_2 = nnx.Linear(64, width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)
            self.layers_4 = nnx.Linear(width, 10, rngs=rngs)

        def __call__(self, x):
            return self.layers_4(nnx.relu(self.layers_2(nnx.relu(self.layers_0(x)))))

    own, plain = (program(mup, model=lambda h, rngs: Net(h.width, rngs)) for mup in (MUP, None))
    start, (drawn, _) = trained(own, H)[0].params, trained(plain, H)
    np.testing.assert_array_equal(start["layers_4"]["kernel"], drawn.params["layers_4"]["kernel"] / 2)
    scaling = own.init.__self__.scaling.rates(H)
    assert {name: scaling[name, "kernel"] for name in LAYERS} == {"layers_0": 1, "layers_2": 1 / M, "layers_4": 1 / M}


def test_a_narrow_last_layer_is_known_as_well_as_wide_ones():
    """A head of one output, whose few numbers tell little of the initializer: many are drawn."""
    model = lambda h: nn.Sequential([nn.Dense(h.width), nn.relu, nn.Dense(1)])
    own, plain = (
        program(
            mup,
            model=model,
            data=hpx.data.from_arrays(np.ones((40, 3), np.float32), np.ones((40, 1), np.float32)),
            loss=lambda outputs, y: (outputs - y)[:, 0] ** 2,
            batch_size=8,
        )
        for mup in (hpx.mup.MuP({"width": 4}), None)
    )
    for width in (8, 16, 64):
        h = Hparams({"learning_rate": 0.1, "width": width})
        mine, drawn = (trained(each, h, 0)[0].params["layers_2"]["kernel"] for each in (own, plain))
        np.testing.assert_allclose(
            mine, drawn / np.sqrt(width / 4), rtol=1e-6, err_msg="LeCun's, as a power of the width"
        )


def test_microbatches_averages_and_bfloat16_train_as_without():
    """Whole batches and parts of them are the same; an average is that of the parameters themselves."""
    whole, parts = (trained(program(MUP, microbatch=m), H, 4 * n)[1].params for m, n in ((None, 1), (8, 4)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), whole, parts)
    start, end = trained(program(MUP, average=0.5), H, 1)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, start.params, end.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), end.average, mean)
    narrow = trained(program(MUP, compute_dtype="bfloat16"), H, 1)[1].params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.05), narrow, end.params)


def test_given_parameters_stay_and_frozen_ones_have_no_rate():
    plain = trained(program(None), H, 0)[0].params
    start, end = trained(program(MUP, init_from={"params": plain}, frozen="layers_0/*"), H, 2)
    assert jax.tree.leaves(start.params["layers_0"]) == []
    np.testing.assert_array_equal(start.params["layers_4"]["kernel"], plain["layers_4"]["kernel"])
    assert (end.params["layers_2"]["kernel"] != start.params["layers_2"]["kernel"]).any()


def test_attention_divides_by_the_width_of_a_head():
    query, key, value = jax.random.normal(jax.random.key(0), (3, 2, 5, 4, 32))
    found = hpx.mup.attention(8)(query, key, value)
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) * np.sqrt(8) / 32
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, np.einsum("bhqk,bkhd->bqhd", weights, value), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(hpx.mup.attention(32)(query, key, value), nn.dot_product_attention(query, key, value))


def test_branches_are_those_of_completep():
    """Table 1 of arXiv 2505.01618, α = 1: multiplied by 1/m_L, and no rate depends on the depth."""
    assert [hpx.mup.residual(depth, 4) for depth in (4, 8, 32)] == [1, 1 / 2, 1 / 8]


# What cannot be.


def ran(mup, space=None, **changes):
    space = space or hpx.Space(learning_rate=0.1, width=hpx.Choice(BASE, WIDE))
    hpx.Sweep(program(mup, **changes), space, trials=2).plan()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: hpx.mup.MuP({}), "MuP.base = {}: must be hyperparameter to its value"),
        (lambda: hpx.mup.MuP({"width": 0}), "= 0: must be a whole number, 1 or more"),
        (lambda: hpx.mup.MuP({"width": 8}, enabled="yes"), "MuP.enabled = 'yes': must be True or False"),
        (lambda: hpx.mup.MuP({"width": 8}, "lion"), "MuP.rule = 'lion': must be one of adam, sgd"),
        (lambda: ran(hpx.mup.MuP({"depth": 8})), "MuP.base = 'depth': must be a hyperparameter of the space"),
        (
            lambda: ran(hpx.mup.MuP({"learning_rate": 1})),
            "MuP.base = {'learning_rate': 1}: must change the shape of a parameter; learning_rate at twice",
        ),
        (lambda: ran("mup"), "supervised.mup = 'mup': must be an hpx.mup.MuP"),
        (
            lambda: ran(MUP, optimizer=lambda h: optax.lookahead(optax.sgd(0.1), 5, 0.5)),
            "supervised.mup = 'optax.lookahead': cannot be combined",
        ),
        (lambda: ran(MUP, optimizer=lambda h: optax.lbfgs()), r"supervised.mup = 'MuP\(...\)': cannot be combined"),
        (
            lambda: hpx.mup.multipliers({"a": jnp.ones(3)}, {"a": jnp.ones(3)}),
            "multipliers.base = 'equal shapes': must differ from the model",
        ),
        (lambda: hpx.mup.multipliers({"a": jnp.ones(3)}, {"b": jnp.ones(2)}), "only one of both has a"),
        (lambda: hpx.mup.residual(0, 4), "residual.depth = 0"),
        (
            lambda: program(MUP, model=lambda h, key: eqx.nn.MLP(64, 10, h.width, 2, key=key)),
            "supervised.mup = 'MuP': needs a model of Linen or NNX",
        ),
    ],
)
def test_what_cannot_be_is_told(make, told):
    with pytest.raises(hpx.InputError, match=told):
        make()
