"""Starting from given parameters, some of them frozen and held once for all lanes; against plain loops."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState

import hpjax as hpx
from hpjax.engine.compile import Compiled

X = jax.random.normal(jax.random.key(0), (8, 128))
Y = np.asarray(X[:, :2].sum(1))
WIDE = 256  # of the base model, whose 128 KiB are worth holding once
INIT = hpx.keys.purpose_key(hpx.keys.lane_key(0, 0), "init")


class Lora(nn.Module):
    """A dense base layer with a low-rank adapter, and a head."""

    @nn.compact
    def __call__(self, x):
        a = self.param("lora_a", nn.initializers.normal(0.1), (x.shape[-1], 2))
        b = self.param("lora_b", nn.initializers.zeros, (2, WIDE))
        return nn.Dense(1, name="head")(nn.tanh(nn.Dense(WIDE, name="base")(x) + x @ a @ b))[:, 0]


BASE = Lora().init(jax.random.key(9), X)["params"]
squared = hpx.metrics.squared_error


def sweep(model=None, loss=squared, trials=2, **settings):
    settings = {"optimizer": lambda h: optax.sgd(h.rate, momentum=0.9), "batch_size": 8} | settings
    program = hpx.supervised(
        model=model or Lora(),
        loss=loss,
        data=hpx.data.from_arrays(X, Y, valid=(X, Y), test=(X, Y)),
        steps=3,
        **settings,
    )
    return hpx.Sweep(program, hpx.Space(rate=hpx.Choice(0.01, 0.03)), sampler=hpx.Grid(), width=2)


def trained_alone(loss, params, rate=0.03, steps=3):
    """Parameters after steps of gradient descent with momentum on all examples."""
    optimizer = optax.sgd(rate, momentum=0.9)
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def of_model(params):
    return squared(Lora().apply({"params": params}, X), Y).mean()


def assert_close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(dict(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, dict(expected))


@pytest.fixture(scope="module")
def adapted():
    """Adapters over one base model: what it holds is recorded."""
    seen = []
    make = Compiled.__init__
    Compiled.__init__ = lambda self, *args: (make(self, *args), seen.append(self))[0]
    try:
        found = sweep(init_from={"base": BASE["base"]}, frozen="base")
        return found, found.run(progress=False), seen[-1]
    finally:
        Compiled.__init__ = make


def test_adapters_train_over_a_frozen_base_as_in_a_plain_loop(adapted):
    _, result, _ = adapted
    drawn = Lora().init(INIT, X[:1])["params"]
    own = {name: part for name, part in drawn.items() if name != "base"}
    expected = trained_alone(lambda own: of_model(own | {"base": BASE["base"]}), own)
    assert_close(result[1].restore()["params"], expected | {"base": BASE["base"]})
    np.testing.assert_allclose(result[1].metrics["valid/loss"], of_model(result[1].restore()["params"]), rtol=1e-5)
    np.testing.assert_allclose(
        result[1].predict(X)[0], Lora().apply({"params": result[1].restore()["params"]}, X), rtol=1e-5
    )


def test_the_frozen_base_is_in_memory_once(adapted):
    found, _, compiled = adapted
    plan, base = found.plan(), sum(x.nbytes for x in jax.tree.leaves(BASE["base"]))
    lanes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(compiled.lanes)) / compiled.mesh.devices.size
    assert lanes / 2 < base / 10, "two lanes, whose states are without it"
    assert [x.nbytes for x in compiled.advance.constants] == [BASE["base"]["kernel"].nbytes]
    assert compiled.advance.compiled.memory_analysis().argument_size_in_bytes < base + lanes + X.nbytes * 2 + 2**13
    assert plan.data_bytes >= BASE["base"]["kernel"].nbytes
    assert any("init_from has 2 of 6 parameters; drawn are head/bias, head/kernel, lora_a" in h for h in plan.hints)


def test_variables_that_the_model_lacks_are_told():
    given = {"params": BASE, "batch_stats": {"norm": {"mean": jnp.zeros(3)}}}
    (hint,) = (hint for hint in sweep(init_from=given).plan().hints if "init_from" in hint)
    assert hint == "init_from has variables that are none of the model's, and are left out: batch_stats/norm/mean."


class Layers(nnx.Module):
    def __init__(self, rngs):
        self.dense, self.norm = nnx.Linear(128, 1, rngs=rngs), nnx.BatchNorm(1, momentum=1.0, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.dense(x))[:, 0]


def test_statistics_of_nnx_come_in_any_form_and_are_told_where_they_do_not():
    base = Layers(nnx.Rngs(5))
    base.norm.mean[...] = jnp.full(1, 0.5)
    params, stats = nnx.state(base, nnx.Param), nnx.state(base, nnx.BatchStat)
    for given in (base, nnx.state(base), {"params": params, "stats": stats}, {"params": params, "batch_stats": stats}):
        found = sweep(lambda h, rngs: Layers(rngs), init_from=given, optimizer=optax.sgd(0.0))
        assert not [hint for hint in found.plan().hints if "init_from" in hint]
        restored = found.run(progress=False)[0].restore()
        assert_close(restored["params"], nnx.to_pure_dict(params))
        np.testing.assert_array_equal(restored["stats"]["norm"]["mean"], [0.5])
    (hint,) = (
        hint for hint in sweep(lambda h, rngs: Layers(rngs), init_from=params).plan().hints if "init_from" in hint
    )
    assert hint.startswith("init_from has no norm/mean, norm/var, which begin as the model makes them")


def test_statistics_of_equinox_come_with_the_model():
    class Normed(eqx.Module):
        dense: eqx.nn.Linear
        norm: eqx.nn.BatchNorm

        def __init__(self, key):
            self.dense, self.norm = eqx.nn.Linear(128, 1, key=key), eqx.nn.BatchNorm(1, "batch", mode="batch")

        def __call__(self, x, state):
            y, state = self.norm(self.dense(x), state)
            return y[0], state

    make = eqx.nn.make_with_state(Normed)
    model, state = make(jax.random.key(5))
    state = state.set(model.norm.batch_state_index, tuple(jnp.full(1, x, jnp.float32) for x in (0.5, 2.0)))
    found = sweep(lambda h, key: make(key), init_from=(model, state), optimizer=optax.sgd(0.0), batch_size=8)
    assert not [hint for hint in found.plan().hints if "init_from" in hint]
    found = sweep(lambda h, key: make(key), init_from=model, optimizer=optax.sgd(0.0))
    assert any("init_from has no state/" in hint for hint in found.plan().hints)


def test_a_directory_keeps_the_frozen_base_once(adapted, tmp_path):
    found, result, _ = adapted
    found.run(tmp_path / "run", progress=False)
    loaded = hpx.load(tmp_path / "run")
    assert_close(loaded[1].restore()["params"], result[1].restore()["params"])
    files = [path for path in (tmp_path / "run").rglob("*.npy") if path.stat().st_size > BASE["base"]["kernel"].nbytes]
    assert [path.parent.name for path in files] == ["shared"]


@pytest.mark.parametrize("average", [None, 0.5])
def test_a_run_starts_from_a_trial_a_file_or_orbax(adapted, tmp_path, average):
    _, result, _ = adapted
    whole = result[1].restore()["params"]
    expected = trained_alone(of_model, whole)
    result[1].export(tmp_path / "model.safetensors")
    result[1].export(tmp_path / "model.msgpack")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "orbax", whole)
    given = (
        [result[1], tmp_path / "model.msgpack"]
        if average
        else [tmp_path / "model.safetensors", str(tmp_path / "orbax")]
    )
    for init_from in given:
        found = sweep(init_from=init_from, average=average).run(progress=False)[1].restore()
        assert_close(found["params"], expected)


def begun(init_from, model=None, loss=squared, **settings):
    """The parameters before the first step."""
    program = sweep(model, loss, init_from=init_from, **settings).program
    return program.init(jax.random.key(5), hpx.Hparams({"rate": 0.1})).params


def by_name(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


class Listed(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(128, 2, rngs=rngs), nnx.Linear(2, 1, rngs=rngs)])

    def __call__(self, x):
        return self.layers[1](self.layers[0](x))


class Dotted(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1, name="block.0")(x)


@pytest.mark.parametrize(
    "model",
    [
        lambda h, rngs: Listed(rngs),
        lambda h, rngs: nnx.Sequential(nnx.Linear(128, 2, rngs=rngs), nnx.Linear(2, 1, rngs=rngs)),
        lambda h, key: eqx.nn.MLP(128, 1, 2, 1, key=key),
        Dotted(),
    ],
    ids=["nnx.List", "nnx.Sequential", "Equinox", "a name with a dot"],
)
def test_files_of_models_with_lists_are_read_again(model, tmp_path):
    loss = lambda outputs, y: squared(outputs[:, 0], y)
    trial = sweep(model, loss).run(progress=False)[0]
    params = trial.restore()["params"]
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "orbax", params)
    for name in ("model.safetensors", "model.msgpack", "orbax"):
        if not name.startswith("orbax"):
            trial.export(tmp_path / name)
        found = begun(tmp_path / name, model, loss)
        jax.tree.map(np.testing.assert_array_equal, by_name(found), by_name(params))
    if isinstance(model, nn.Module):
        return
    name = "*layers/0/*"
    found = sweep(model, loss, init_from=tmp_path / "model.safetensors", frozen=name).run(progress=False)[0].restore()
    assert jax.tree.structure(found["params"]) == jax.tree.structure(params)
    same = [bool(np.array_equal(a, b)) for a, b in zip(*map(jax.tree.leaves, (found["params"], params)), strict=True)]
    assert same == [True, True, False, False], "both arrays of the first layer"


AVERAGED = {
    "average": {"average": 0.5},
    "lookahead": {"optimizer": lambda h: optax.lookahead(optax.sgd(h.rate), 2, 0.5)},
    "schedule-free": {"optimizer": lambda h: optax.contrib.schedule_free_sgd(h.rate)},
    "SAM": {
        "optimizer": lambda h: optax.contrib.sam(
            optax.sgd(h.rate), optax.chain(optax.contrib.normalize(), optax.sgd(0.1)), sync_period=2
        )
    },
}


@pytest.mark.parametrize("frozen", [None, "base"])
@pytest.mark.parametrize("name", AVERAGED)
def test_a_trial_and_its_file_start_at_what_it_was_evaluated_at(name, frozen, tmp_path):
    trial = sweep(init_from=BASE, frozen=frozen, **AVERAGED[name]).run(progress=False)[1]
    trial.export(tmp_path / "model.safetensors")
    state = trial.restore()
    assert of_model(state["average"]) == pytest.approx(trial.metrics["valid/loss"], rel=1e-5)
    assert of_model(state["params"]) != pytest.approx(trial.metrics["valid/loss"], rel=1e-5)
    for given in (trial, state, tmp_path / "model.safetensors"):
        assert_close(begun(given), state["average"])


def test_a_run_starts_from_a_train_state_and_from_the_newest_step_of_a_checkpoint_manager(tmp_path):
    newer = jax.tree.map(lambda x: x + 1, BASE)
    made = TrainState.create(apply_fn=Lora().apply, params=newer, tx=optax.adam(0.1))
    with ocp.CheckpointManager(tmp_path / "states") as manager:
        manager.save(3, args=ocp.args.StandardSave({"params": BASE}))
        manager.save(12, args=ocp.args.StandardSave({"params": newer}))
    with ocp.CheckpointManager(tmp_path / "items") as manager:
        items = {name: ocp.args.StandardSave(newer) for name in ("params", "ema")}
        manager.save(1, args=ocp.args.Composite(**items))
    program_state = sweep(init_from=newer).program.init(INIT, hpx.Hparams({"rate": 0.1}))
    folders = [tmp_path / "states", tmp_path / "states" / "12", tmp_path / "items" / "1" / "ema"]
    for given in (made, made.replace(params={"params": newer}), program_state, *folders):
        assert_close(begun(given), newer)
    with pytest.raises(hpx.InputError, match=r"holds ema, params. Write init_from='.*/items/1/ema'"):
        begun(tmp_path / "items")
    with pytest.raises(hpx.InputError, match="must hold one pytree that Orbax wrote"):
        begun(tmp_path / "items" / "1" / "ema" / "d")


def test_statistics_are_given_too():
    class Normalized(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(1)(nn.BatchNorm(not train, momentum=1.0)(x))[:, 0]

    variables = Normalized().init(jax.random.key(3), X)
    variables = jax.tree.map(lambda x: x + 0.5, variables)
    found = sweep(Normalized(), init_from=variables, optimizer=optax.sgd(0.0)).run(progress=False)[0]
    assert_close(found.restore()["params"], variables["params"])
    assert_close(found.restore()["stats"]["batch_stats"], variables["batch_stats"])

    class WithStats(TrainState):
        batch_stats: dict

    state = WithStats.create(apply_fn=Normalized().apply, tx=optax.sgd(0.1), **variables)
    program = sweep(Normalized(), init_from=state).program
    begins = program.init(jax.random.key(5), hpx.Hparams({"rate": 0.1}))
    assert_close(begins.stats["batch_stats"], variables["batch_stats"])


class Counting(nn.Module):
    """Counts its calls in a Python number, draws a typed key at each, and has a number among its parameters."""

    @nn.compact
    def __call__(self, x):
        calls = self.variable("counts", "calls", lambda: 0)
        key = self.variable("keys", "key", lambda: jax.random.key(7))
        if self.is_mutable_collection("counts") and not self.is_initializing():
            calls.value, key.value = calls.value + 1, jax.random.split(key.value)[0]
        return nn.Dense(1)(x)[:, 0] * self.param("scale", lambda key: 1.0)


def test_numbers_and_keys_of_a_model_go_on_from_those_of_a_trial():
    first = sweep(Counting()).run(progress=False)[1]
    begun = first.restore()
    assert begun["stats"]["counts"]["calls"] == 3
    key = jax.random.key(7)
    for _ in range(6):
        key = jax.random.split(key)[0]
    for given in (first, {"params": begun["params"], **begun["stats"]}):
        found = sweep(Counting(), init_from=given, optimizer=optax.sgd(0.0)).run(progress=False)[0].restore()
        assert found["stats"]["counts"]["calls"] == 6
        np.testing.assert_array_equal(found["stats"]["keys"]["key"], jax.random.key_data(key))
        assert_close(found["params"], begun["params"])
    given = {"params": {"scale": 3.0}, "counts": {"calls": 5}, "keys": {"key": jax.random.key(7)}}
    found = sweep(Counting(), init_from=given, optimizer=optax.sgd(0.0)).run(progress=False)[0].restore()
    assert (found["params"]["scale"], found["stats"]["counts"]["calls"]) == (3, 5 + 3)
    np.testing.assert_array_equal(found["stats"]["keys"]["key"], first.restore()["stats"]["keys"]["key"])
    with pytest.raises(hpx.InputError, match=r"init_from\['keys/key'\] = \(3,\): must have the shape .* \(2,\)"):
        sweep(Counting(), init_from={"params": {"scale": 3.0}, "keys": {"key": np.zeros(3, np.uint32)}}).plan()


@pytest.mark.parametrize("library", ["NNX", "Equinox"])
def test_models_of_nnx_and_equinox_start_from_given_parameters(library):
    if library == "NNX":
        base = nnx.to_pure_dict(nnx.state(nnx.Linear(128, 1, rngs=nnx.Rngs(5)), nnx.Param))
        model, name, kernel = lambda h, rngs: nnx.Linear(128, 1, rngs=rngs), "kernel", base["kernel"]
    else:
        base = eqx.nn.Linear(128, 1, key=jax.random.key(5))
        model, name, kernel = lambda h, key: eqx.nn.Linear(128, 1, key=key), "weight", base.weight
    found = sweep(model, loss=lambda outputs, y: squared(outputs[:, 0], y), init_from=base, frozen=name)
    params = found.run(progress=False)[0].restore()["params"]
    np.testing.assert_array_equal(params[name], kernel)
    assert (params["bias"] != 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen": "base"}, r"supervised.frozen = 'base': needs init_from"),
        ({"init_from": BASE, "frozen": "bass"}, r"must match a parameter of init_from. .*Did you mean 'base/\*'?"),
        ({"init_from": {}}, "must hold parameters"),
        ({"init_from": {"bace": BASE["base"]}}, "'bace/bias': is no parameter of the model. Did you mean 'base/bias'"),
        (
            {"init_from": {"base": {"bias": np.zeros(3)}}},
            r"init_from\['base/bias'\] = \(3,\): must have the shape .* \(256,\)",
        ),
        ({"init_from": "nowhere.safetensors"}, "must exist"),
        ({"init_from": __file__}, "must be a .safetensors or .msgpack file"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(settings, message):
    with pytest.raises(hpx.InputError, match=message):
        sweep(**settings).plan()


class Valued(nn.Module):
    """Has a boxed parameter that is called value, as the attribute of its box is."""

    @nn.compact
    def __call__(self, x):
        ones = nn.with_partitioning(nn.initializers.ones, ("data",))
        return x[:, 0] * self.param("value", ones, (1,))


def test_boxes_and_variables_are_told_apart_from_parameters_of_the_name_of_their_attribute():
    boxed = jax.tree.map(lambda x: x + 2, Valued().init(INIT, X)["params"])
    for given in (boxed, nn.meta.unbox(boxed)):
        found = sweep(Valued(), init_from=given, optimizer=optax.sgd(0.0)).run(progress=False)[0]
        np.testing.assert_array_equal(found.restore()["params"]["value"], [3.0])
    state = nnx.state(nnx.Linear(128, 1, rngs=nnx.Rngs(5)), nnx.Param)
    loss = lambda outputs, y: squared(outputs[:, 0], y)
    settings = {"loss": loss, "optimizer": optax.sgd(0.0)}
    found = sweep(lambda h, rngs: nnx.Linear(128, 1, rngs=rngs), init_from=state, **settings).run(progress=False)[0]
    np.testing.assert_array_equal(found.restore()["params"]["kernel"], state["kernel"].get_value())


def test_losses_that_take_params_get_the_frozen_ones_too():
    size = lambda params: jnp.square(params["base"]["kernel"]).mean()
    loss = lambda outputs, y, params: squared(outputs, y) + size(params)
    found = sweep(loss=loss, init_from=BASE, frozen="base", penalty=lambda params, h: size(params)).run(progress=False)
    params = found[0].restore()["params"]
    np.testing.assert_allclose(found[0].metrics["valid/loss"], of_model(params) + size(BASE), rtol=1e-5)
    np.testing.assert_allclose(found[0].metrics["train/penalty"], size(BASE), rtol=1e-5)
