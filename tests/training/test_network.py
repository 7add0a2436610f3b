"""Models as people write them: flags, streams, sow, boxes, remat, Equinox; against the libraries' own calls."""

import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import hpjax as hpx
from hpjax.core.remarks import collecting_remarks
from hpjax.training.call_arguments import TRAIN_ARGUMENTS
from hpjax.training.model import network

H = hpx.Hparams({"rate": 0.1})
KEY = jax.random.key(3)
STREAMS = {
    "dropout": KEY,
    "params": jax.random.fold_in(KEY, 1),
    "latent": jax.random.fold_in(KEY, zlib.crc32(b"latent")),
}
X = jax.random.normal(jax.random.key(0), (6, 4))
Y = np.asarray(X[:, :3].argmax(1))
CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels


def outputs(model, train, stats=None):
    net = network(model)
    params, own = net.init(jax.random.key(1), X[:1], H)
    return net.apply(KEY, params, own if stats is None else stats, X, H, train)


def hints(model, **settings):
    return [hint for hint in sweep(model, **settings).plan().hints if "cores" not in hint]


def sweep(model, loss=CROSS_ENTROPY, spread="shard_map", optimizer=optax.sgd):
    program = hpx.supervised(
        model=model,
        optimizer=lambda h: optimizer(h.rate),
        loss=loss,
        data=hpx.data.from_arrays(X, Y, valid=(X, Y), test=(X, Y)),
        batch_size=6,
        steps=2,
    )
    return hpx.Sweep(program, hpx.Space(rate=hpx.Choice(0.1, 0.3)), sampler=hpx.Grid(), spread=spread)


def run(*args, **settings):
    return sweep(*args, **settings).run(progress=False)


def plain_losses(loss, params, rate=0.3, steps=2):
    """The validation loss after steps of gradient descent on all examples."""
    for _ in range(steps):
        params = jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))
    return float(loss(params))


def init_key():
    return hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "init")


# Whether it trains


def linen_with(flag):
    """A Linen model with a flag of that name."""
    off = not TRAIN_ARGUMENTS[flag]
    code = f"def call(self, x, *, {flag}={off}): return nn.Dropout(0.5)(x, deterministic={flag} is {off})"
    scope = {"nn": nn}
    exec(code, scope)
    return type("Net", (nn.Module,), {"__call__": nn.compact(scope["call"])})()


@pytest.mark.parametrize("flag", TRAIN_ARGUMENTS)
def test_every_usual_flag_of_linen_and_nnx_is_understood(flag):
    model = linen_with(flag)
    expected = model.apply({}, X, **{flag: TRAIN_ARGUMENTS[flag]}, rngs=STREAMS)
    np.testing.assert_array_equal(outputs(model, True).outputs, expected)
    assert (expected != X).any()
    np.testing.assert_array_equal(outputs(model, False).outputs, X)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.drop = nnx.Dropout(0.5, rngs=rngs)

    def call(self, x, **flags):
        return self.drop(x, deterministic=flags[flag] is not TRAIN_ARGUMENTS[flag])

    scope = {"call": call}
    exec(f"def named(self, x, {flag}=None): return call(self, x, {flag}={flag})", scope)
    Net.__call__ = scope["named"]
    assert (outputs(lambda h, rngs: Net(rngs), True).outputs != X).any()
    np.testing.assert_array_equal(outputs(lambda h, rngs: Net(rngs), False).outputs, X)


class Fields(nn.Module):
    """A model whose own field says whether it trains."""

    training: bool = False

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=not self.training)(x)


def test_a_flag_that_is_a_field_of_the_module_is_set():
    expected = Fields(training=True).apply({}, X, rngs=STREAMS)
    np.testing.assert_array_equal(outputs(Fields(), True).outputs, expected)
    np.testing.assert_array_equal(outputs(Fields(training=True), False).outputs, X)


class Unusual(nn.Module):
    layer: object

    @nn.compact
    def __call__(self, x, noisy=False):
        return nn.Dense(3)(self.layer(not noisy)(x))


class UnusualNnx(nnx.Module):
    def __init__(self, rate, rngs):
        self.drop, self.dense = nnx.Dropout(rate, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x, noisy=False):
        return self.dense(self.drop(x, deterministic=not noisy))


class AlwaysNnx(UnusualNnx):
    def __call__(self, x):
        return self.dense(self.drop(x, deterministic=False))


class AttentionNnx(nnx.Module):
    def __init__(self, rate, off, rngs):
        self.layer = nnx.MultiHeadAttention(1, 4, 4, 3, dropout_rate=rate, decode=False, rngs=rngs)
        self.off = off

    def __call__(self, x):
        return self.layer(x[:, None], deterministic=self.off)[:, 0]


class NormedNnx(nnx.Module):
    def __init__(self, average, rngs):
        self.norm, self.dense, self.average = nnx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs), average

    def __call__(self, x):
        return self.dense(self.norm(x, use_running_average=self.average))


class UnusualEquinox(eqx.Module):
    drop: eqx.nn.Dropout
    dense: eqx.nn.Linear
    off: bool | None = eqx.field(static=True)

    def __init__(self, rate, off, key):
        self.drop, self.dense, self.off = eqx.nn.Dropout(rate), eqx.nn.Linear(4, 3, key=key), off

    def __call__(self, x, key):
        return self.dense(self.drop(x, key=key, inference=self.off))


class Noise(nn.Module):
    """A layer of one's own that does nothing unless it is told to."""

    rate: float

    @nn.compact
    def __call__(self, x, deterministic: bool = True):
        if deterministic or self.rate == 0:
            return x
        return x * jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, x.shape) / (1 - self.rate)


class Around(nn.Module):
    arguments: object
    rate: float = 0.5

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(Noise(self.rate)(x, **self.arguments))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Unusual(lambda off: nn.Dropout(0.5, deterministic=off)), "Dropout at Dropout_0 has deterministic=True in tr"),
        (Unusual(lambda off: hpx.nn.Dropout(0.5, deterministic=off)), "has deterministic=True in training"),
        (Unusual(lambda off: nn.BatchNorm(off)), "BatchNorm at BatchNorm_0 has use_running_average=True in training"),
        (lambda h, rngs: UnusualNnx(0.5, rngs), "nnx.Dropout at drop draws nothing in training"),
        (Unusual(lambda off: nn.Dropout(0.0, deterministic=off)), None),
        (lambda h, rngs: UnusualNnx(0.0, rngs), None),
        (lambda h, rngs: AttentionNnx(0.5, True, rngs), "MultiHeadAttention at layer draws nothing in training"),
        (lambda h, rngs: AttentionNnx(0.0, True, rngs), None),
        (lambda h, key: UnusualEquinox(0.5, True, key), "eqx.nn.Dropout draws nothing in training"),
        (lambda h, key: UnusualEquinox(0.0, True, key), None),
        (lambda h, key: UnusualEquinox(0.5, None, key), None),
        (Around({}), "Noise at Noise_0 is called in training without deterministic, which is True then"),
        (Around({"deterministic": True}), "Noise at Noise_0 has deterministic=True in training"),
        (Around({}, rate=0.0), None),
        # On in evaluations, too.
        (Unusual(lambda off: nn.Dropout(0.5, deterministic=False)), "Dropout_0 draws from dropout in evaluations, too"),
        (nn.Sequential([nn.Dropout(0.5, deterministic=False), nn.Dense(3)]), "layers_0 draws from dropout in evaluat"),
        (nn.Sequential([nn.Dropout(0.0, deterministic=False), nn.Dense(3)]), None),
        (nn.Sequential([nn.Dense(3), hpx.nn.Dropout(0.5, deterministic=False)]), "layers_1 draws from dropout in eval"),
        (Around({"deterministic": False}), "Noise_0 draws from dropout in evaluations, too, which are random then"),
        (lambda h, rngs: AlwaysNnx(0.5, rngs), "nnx.Dropout at drop draws in evaluations, too"),
        (lambda h, rngs: AlwaysNnx(0.0, rngs), None),
        (lambda h, rngs: AttentionNnx(0.5, False, rngs), "MultiHeadAttention at layer draws in evaluations, too"),
        (lambda h, rngs: NormedNnx(False, rngs), "nnx.BatchNorm at norm takes the statistics of the batch in evaluat"),
        (lambda h, rngs: NormedNnx(None, rngs), None),
        (lambda h, key: UnusualEquinox(0.5, False, key), "the model has eqx.nn.Dropout, and draws in evaluations, too"),
        (lambda h, key: UnusualEquinox(0.0, False, key), None),
    ],
)
def test_a_layer_that_stays_off_in_training_or_on_in_evaluations_is_told(model, told):
    found = hints(model)
    assert [told in hint and "must be one of train, training" in hint for hint in found] == [True] * bool(told)


class AsksForAKey(nn.Module):
    """A model that trains where there is a key of dropout."""

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(x)


def test_evaluations_have_no_key_of_dropout_unless_a_layer_draws():
    np.testing.assert_array_equal(outputs(AsksForAKey(), False).outputs, AsksForAKey().apply({}, X))
    np.testing.assert_array_equal(outputs(AsksForAKey(), True).outputs, AsksForAKey().apply({}, X, rngs=STREAMS))
    always = nn.Sequential([nn.Dropout(0.5, deterministic=False)])
    for train in (True, False):
        np.testing.assert_array_equal(outputs(always, train).outputs, always.apply({}, X, rngs=STREAMS))


def test_a_remark_outside_of_a_plan_is_dropped():
    with collecting_remarks() as found:
        outputs(Unusual(lambda off: nn.Dropout(0.5, deterministic=off)), True)
        outputs(Unusual(lambda off: nn.Dropout(0.5, deterministic=off)), False)
    assert len(found) == 1


# Streams and keys


class Noisy(nn.Module):
    """Draws from a stream of its own, in training and in evaluation."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dropout(0.5)(x, deterministic=not train) + jax.random.normal(self.make_rng("latent"), x.shape)


class Autoencoder(nn.Module):
    """Takes the key as an argument, as Flax's example of a VAE does."""

    @nn.compact
    def __call__(self, x, z_rng):
        return nn.Dense(3)(x) + jax.random.normal(z_rng, (len(x), 3))


def test_streams_other_than_dropout_and_keys_as_arguments_are_given_in_training_and_evaluation():
    for train in (True, False):
        expected = Noisy().apply({}, X, train, rngs=STREAMS)
        np.testing.assert_array_equal(outputs(Noisy(), train).outputs, expected)
    params = Autoencoder().init(jax.random.key(1), X[:1], jax.random.key(2))
    for train in (True, False):
        expected = Autoencoder().apply(params, X, jax.random.fold_in(KEY, 4))
        np.testing.assert_allclose(outputs(Autoencoder(), train).outputs, expected, rtol=1e-6)
    assert run(Autoencoder()).best.predict(X).shape == (1, 6, 3)


class Steps(nn.Module):
    """Draws anew at each of its steps, of which ``nn.scan`` splits one stream and not the other."""

    @nn.compact
    def __call__(self, x):
        class Cell(nn.Module):
            @nn.compact
            def __call__(self, carry, x):
                noise, same = (jax.random.normal(self.make_rng(name), x.shape) for name in ("latent", "params"))
                return carry, jnp.stack([noise, same])

        split = {"params": False, "latent": True}
        return nn.scan(Cell, split_rngs=split, in_axes=1, out_axes=1)()(0.0, x)[1]


def test_each_stream_has_a_key_of_its_own_which_scan_splits():
    expected = Steps().apply({}, X, rngs=STREAMS)
    assert (expected.std(1)[0] > 0.1).all()
    for train in (True, False):
        np.testing.assert_array_equal(outputs(Steps(), train).outputs, expected)


class OwnStreams(nnx.Module):
    """Has streams of its own beside those that it is given."""

    def __init__(self, rngs):
        self.given, self.own = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=nnx.Rngs(dropout=0))

    def __call__(self, x):
        return jnp.stack([self.given(x), self.own(x)])


def test_streams_that_an_nnx_model_makes_itself_draw_anew_at_each_step():
    net = network(lambda h, rngs: OwnStreams(rngs))
    masks = [net.apply(jax.random.key(i), *net.init(KEY, X[:1], H), X, H, True).outputs for i in range(2)]
    assert (masks[0] != masks[1]).any(axis=(1, 2)).all()
    model = OwnStreams(nnx.Rngs(0))
    nnx.reseed(model, default=KEY, dropout=jax.random.fold_in(KEY, zlib.crc32(b"dropout")))
    np.testing.assert_array_equal(outputs(lambda h, rngs: OwnStreams(rngs), True).outputs, model(X))


class AtCall(nnx.Module):
    """Draws from streams that its call is given."""

    def __init__(self, rngs):
        self.drop, self.dense = nnx.Dropout(0.5), nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x, *, rngs, train=True):
        return self.dense(self.drop(x, rngs=rngs, deterministic=not train))


def test_an_nnx_model_that_takes_rngs_at_call_gets_them():
    model = AtCall(nnx.Rngs(jax.random.key(1)))
    for train in (True, False):
        expected = model(X, rngs=nnx.Rngs(KEY), train=train)
        np.testing.assert_array_equal(outputs(lambda h, rngs: AtCall(rngs), train).outputs, expected)


# Sow


class Sowing(nn.Module):
    reduce: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        more = {"reduce_fn": lambda a, b: a + b, "init_fn": lambda: 0.0} if self.reduce else {}
        self.sow("losses", "aux", jnp.square(x).mean(), **more)
        self.sow("intermediates", "x", x)
        return nn.Dense(3)(nn.BatchNorm(not train)(x))


class SowingNnx(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        self.sow(nnx.Intermediate, "aux", jnp.square(x).mean())
        return self.dense(x)


@pytest.mark.parametrize("reduce", [False, True])
def test_what_a_linen_model_sows_is_given_for_each_call_and_is_no_part_of_the_state(reduce):
    for train in (True, False):
        found = outputs(Sowing(reduce), train)
        assert found.stats.keys() == {"batch_stats"}
        (aux,) = jax.tree.leaves(found.sown["losses"])
        np.testing.assert_allclose(aux, jnp.square(X).mean(), rtol=1e-6)
        np.testing.assert_array_equal(found.sown["intermediates"]["x"][0], X)


def test_a_model_that_sows_trains_like_one_that_does_not():
    found = run(lambda h, rngs: SowingNnx(rngs)).last("valid/loss")
    plain = run(lambda h, rngs: nnx.Linear(4, 3, rngs=rngs)).last("valid/loss")
    np.testing.assert_array_equal(found, plain)
    (aux,) = jax.tree.leaves(outputs(lambda h, rngs: SowingNnx(rngs), True).sown["intermediates"])
    np.testing.assert_allclose(aux, jnp.square(X).mean(), rtol=1e-6)


# Boxes and meshes


def boxed(name):
    kernel = {
        "with_partitioning": lambda: nn.with_partitioning(nn.initializers.lecun_normal(), (None, "data")),
        "with_logical_partitioning": lambda: nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("a", "b")),
    }[name]()

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.with_logical_constraint(nn.Dense(3, kernel_init=kernel)(x), ("batch", "b"))

    return Net()


class Sharded(nnx.Module):
    def __init__(self, rngs):
        kernel = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "data"))
        self.dense = nnx.Linear(4, 3, kernel_init=kernel, rngs=rngs)

    def __call__(self, x):
        return self.dense(x)


@pytest.mark.parametrize(
    ("name", "spread"),
    [("with_partitioning", "shard_map"), ("with_partitioning", "pmap"), ("with_logical_partitioning", "shard_map")],
)
def test_boxed_parameters_train_as_plain_ones(name, spread):
    result = run(boxed(name), spread=spread)
    assert [leaf[0] for leaf in result.leaves(1)] == [("params", "Dense_0", "bias"), ("params", "Dense_0", "kernel")]
    params = nn.meta.unbox(boxed(name).init(init_key(), X[:1]))
    loss = lambda params: CROSS_ENTROPY(boxed(name).apply(params, X), Y).mean()
    assert result.last("valid/loss")[1, 0] == pytest.approx(plain_losses(loss, params), rel=1e-5)
    restored = {"params": result[1].restore()["params"]}
    np.testing.assert_allclose(boxed(name).apply(restored, X), result[1].predict(X)[0], rtol=1e-5)


def test_sharding_metadata_of_nnx_is_ignored():
    assert run(lambda h, rngs: Sharded(rngs)).statuses.tolist() == ["complete", "complete"]
    assert outputs(lambda h, rngs: Sharded(rngs), True).outputs.shape == (6, 3)


# Transformed modules


class Flagged(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dropout(0.5, deterministic=not train)(x)


@pytest.mark.parametrize("transform", [nn.remat, nn.jit])
def test_a_transformed_model_is_told_whether_it_trains(transform):
    model = transform(Flagged, static_argnums=(2,))()
    np.testing.assert_array_equal(outputs(model, True).outputs, model.apply({}, X, True, rngs=STREAMS))
    np.testing.assert_array_equal(outputs(model, False).outputs, X)
    with pytest.raises(hpx.InputError, match=r"takes train as an array.*static_argnums=\(2,\)\), where self is 0"):
        outputs(transform(Flagged)(), True)


def test_remat_around_a_whole_model_changes_no_bit():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.tanh(nn.Dense(4)(x)))

    whole, plain = (run(model).last("valid/loss") for model in (nn.remat(Net)(), Net()))
    np.testing.assert_array_equal(whole, plain)


# Equinox


class Stateful(eqx.Module):
    """Batch normalization, whose state goes in and out, dropout, and an activation as a leaf."""

    dense: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    activation: object

    def __init__(self, key):
        self.dense = eqx.nn.Linear(4, 3, key=key)
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch")
        self.drop, self.activation = eqx.nn.Dropout(0.5), jnp.tanh

    def __call__(self, x, state, key):
        x, state = self.norm(self.dense(x), state)
        return self.drop(self.activation(x), key=key), state


def test_an_equinox_model_with_state_and_dropout_is_called_as_its_documentation_says():
    build = lambda h, key: eqx.nn.make_with_state(Stateful)(key)
    model, state = build(H, jax.random.key(1))
    call = jax.vmap(model, (0, None, 0), (0, None), axis_name="batch")
    expected, after = call(X, state, jax.random.split(KEY, 6))
    found = outputs(build, True)
    np.testing.assert_allclose(found.outputs, expected, rtol=1e-6)
    for leaf, other in zip(jax.tree.leaves(found.stats["state"]), jax.tree.leaves(after), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-6)
    quiet = eqx.nn.inference_mode(model)
    expected, _ = jax.vmap(quiet, (0, None, 0), (0, None), axis_name="batch")(X, after, jax.random.split(KEY, 6))
    np.testing.assert_allclose(outputs(build, False, found.stats).outputs, expected, rtol=1e-6)


def test_an_equinox_model_trains_as_in_a_plain_loop():
    result = run(lambda h, key: eqx.nn.MLP(4, 3, 8, 1, key=key))
    params, static = eqx.partition(eqx.nn.MLP(4, 3, 8, 1, key=init_key()), eqx.is_inexact_array)
    loss = lambda params: CROSS_ENTROPY(jax.vmap(eqx.combine(params, static))(X), Y).mean()
    assert result.last("valid/loss")[1, 0] == pytest.approx(plain_losses(loss, params), rel=1e-5)
    model = result[1].restore(like={"params": eqx.nn.MLP(4, 3, 8, 1, key=KEY)})["params"]
    np.testing.assert_allclose(jax.vmap(model)(X), result[1].predict(X)[0], rtol=1e-5)


class Normed(eqx.Module):
    """Batch statistics of what a layer computes; and a state that is set to a new array at every call."""

    dense: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    last: eqx.nn.StateIndex

    def __init__(self, key):
        self.dense, self.norm = eqx.nn.Linear(4, 3, key=key), eqx.nn.BatchNorm(3, "batch", mode="batch", momentum=0.5)
        self.last = eqx.nn.StateIndex(jnp.ones(3))

    def __call__(self, x, state):
        x, state = self.norm(self.dense(x), state)
        return x * (1 + state.get(self.last)), state.set(self.last, jnp.zeros(3))


@pytest.mark.parametrize("spread", ["shard_map", "pmap"])
def test_an_equinox_model_with_batch_statistics_trains_as_in_a_plain_loop(spread):
    model, state = eqx.nn.make_with_state(Normed)(init_key())
    params, static = eqx.partition(model, eqx.is_inexact_array)
    call = lambda model, state: jax.vmap(model, (0, None), (0, None), axis_name="batch")(X, state)

    def loss(params, state):
        outputs, state = call(eqx.combine(params, static), state)
        return CROSS_ENTROPY(outputs, Y).mean(), state

    for _ in range(2):
        gradients, state = jax.grad(loss, has_aux=True)(params, state)
        params = jax.tree.map(lambda p, g: p - 0.3 * g, params, gradients)
    outputs, _ = call(eqx.nn.inference_mode(eqx.combine(params, static)), state)
    result = run(lambda h, key: eqx.nn.make_with_state(Normed)(key), spread=spread)
    np.testing.assert_allclose(result[1].predict(X)[0], outputs, rtol=1e-4)
    assert result.last("valid/loss")[1, 0] == pytest.approx(float(CROSS_ENTROPY(outputs, Y).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (eqx.nn.Linear(4, 3, key=KEY), r"is an Equinox module .* Write model=lambda h, key: Linear\(..., key=key\)"),
        (lambda h: eqx.nn.Linear(4, 3, key=KEY), "is an Equinox module and needs key of the sweep"),
        (lambda h, key: nn.Dense(3), "of h and key must give an Equinox module"),
        (lambda h, rngs: nn.Dense(3), "of h and rngs must give an NNX module"),
    ],
)
def test_a_module_of_another_library_is_refused_with_what_to_type(model, message):
    with pytest.raises(hpx.InputError, match=message):
        hints(model)


def test_an_auxiliary_loss_that_a_model_sows_is_taken_by_name():
    def loss(outputs, y, sown):
        return CROSS_ENTROPY(outputs, y) + sum(jax.tree.leaves(sown["losses"]))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(3)(x)
            self.sow("losses", "aux", jnp.square(x).mean())
            return x

    def plain(params):
        outputs, sown = Net().apply(params, X, mutable=["losses"])
        return loss(outputs, Y, sown).mean()

    params = {"params": Net().init(init_key(), X[:1])["params"]}
    assert run(Net(), loss=loss).last("valid/loss")[1, 0] == pytest.approx(plain_losses(plain, params), rel=1e-5)
    assert hints(Net(), loss=loss) == []
    assert "the model sows into losses, and no loss takes it" in hints(Net())[0]


class TwoInputs(nn.Module):
    @nn.compact
    def __call__(self, a, b, train=False):
        return nn.Dense(3)(a) + nn.Dropout(0.5, deterministic=not train)(b[:, :3])


@pytest.mark.parametrize("x", [(X, 2 * X), {"b": 2 * X, "a": X}])
@pytest.mark.parametrize("model", [TwoInputs(), nn.remat(TwoInputs, static_argnums=(3,))()])
def test_a_model_of_several_inputs_gets_the_parts_of_x(model, x):
    net = network(model)
    params, stats = net.init(KEY, x, H)
    found = net.apply(KEY, params, stats, x, H, True).outputs
    np.testing.assert_array_equal(found, TwoInputs().apply({"params": params}, X, 2 * X, True, rngs=STREAMS))


def test_inputs_that_a_model_does_not_get_are_named():
    with pytest.raises(hpx.InputError, match=r"__call__\(a, b\)': needs 2 inputs, and the x of the data is one array"):
        hints(TwoInputs())
