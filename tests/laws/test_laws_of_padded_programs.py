"""Laws 1 to 5 and 7 to 9, for groups that share a padded program: plain Flax layers of several sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key, step_key
from hpjax.engine.device_lanes import DeviceLanes
from hpjax.sweep.planning.programs import GroupPrograms
from tests.support.compare import same_bits
from tests.support.counting import OF_A_GROUP, compilations
from tests.support.killed import GROUPS
from tests.support.killed import SIZES as KILLED_SIZES
from tests.support.marks import slow
from tests.support.plain import SEED, FromNnx, train_alone
from tests.support.programs import blobs

SIZES = (3, 8, 4)
STEPS, EVERY = 12, 4


class Net(nn.Module):
    """What padding must not be seen by: norms, dropout, and activations that are not 0 at 0."""

    size: int
    dtype: type = float

    @nn.compact
    def __call__(self, x, train=False):
        dense = functools.partial(nn.Dense, param_dtype=self.dtype)
        x = nn.LayerNorm(param_dtype=self.dtype)(nn.sigmoid(dense(self.size)(x)))
        x = nn.Dropout(0.2, deterministic=not train)(dense(2 * self.size + 1)(x))
        return dense(3)(nn.softplus(x))


class Nnx(nnx.Module):
    def __init__(self, size, rngs):
        self.first = nnx.Linear(5, size, param_dtype=float, rngs=rngs)
        self.last = nnx.Linear(size, 3, param_dtype=float, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.first(x)))


def program(**changes):
    arguments = {
        "model": lambda h: Net(h.size),
        "optimizer": lambda h: optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(h.rate)),
        "loss": optax.softmax_cross_entropy_with_integer_labels,
        "data": blobs(),
        "batch_size": 16,
        "steps": STEPS,
        "eval_every": EVERY,
    }
    return hpx.supervised(**(arguments | changes))


PROGRAM = program()
SPACE = hpx.Space(rate=hpx.LogUniform(1e-4, 1e9), size=hpx.Choice(*SIZES))
STATIC = hpx.Space(rate=hpx.LogUniform(1e-4, 1e9), size=hpx.Choice(*SIZES, static=True))
DIVERGING = 1e8
POINTS = [{"rate": rate, "size": size} for rate in (0.003, 0.01, DIVERGING) for size in SIZES]


def sweep(points=POINTS, **changes):
    settings = {"program": PROGRAM, "space": SPACE, "sampler": hpx.Manual(points), "seed": SEED, "width": 2}
    return hpx.Sweep(**(settings | changes))


@pytest.fixture(scope="module")
def reference():
    return sweep().run(progress=False)


def assert_same(found, expected, trials):
    """Trial i of ``found`` is trial ``trials[i]`` of what is expected, to the bit."""
    for metric in ("step", *expected.metrics):
        assert same_bits(found.curves(metric), expected.curves(metric)[trials])
    assert (found.lane_status == expected.lane_status[trials]).all()
    for mine, theirs in enumerate(trials):
        if expected[theirs].status == "complete":
            pairs = zip(found.leaves(mine, 0), expected.leaves(theirs, 0), strict=True)
            assert all(same_bits(a, b) for (_, a), (_, b) in pairs)


# Law 1


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_a_lane_gives_what_its_small_network_gives_alone(kind):
    with jax.enable_x64(True):
        here = hpx.data.from_arrays(np.asarray(blobs().train.x, float), blobs().train.y, valid=0.2)
        model = (lambda h: Net(h.size)) if kind == "linen" else (lambda h, rngs: Nnx(h.size, rngs))
        rates = {"space": hpx.Space(rate=hpx.LogUniform(1e-4, 1), size=hpx.Choice(*SIZES)), "width": 2}
        own = program(model=model, data=here)
        found = sweep(POINTS[: len(SIZES)], program=own, **rates)
        assert len(found.plan().paddings) == 1
        result = found.run(progress=False)
        for trial in result:
            size, rate = trial.hparams["size"], trial.hparams["rate"]
            alone = Net(size) if kind == "linen" else FromNnx(lambda rngs, size=size: Nnx(size, rngs))
            optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(rate))
            params, losses = train_alone(here, model=alone, optimizer=optimizer, steps=STEPS, eval_every=EVERY)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), trial.restore()["params"], params
            )
            np.testing.assert_allclose(trial.curve("valid/loss")[0], losses, rtol=0, atol=1e-9)


# Laws 2, 3 and 7


def test_what_diverges_harms_no_one(reference):
    assert reference.statuses.tolist() == ["complete"] * 6 + ["diverged"] * 3


@pytest.mark.parametrize("changes", [{"devices": 2}, slow({"devices": 3}), {"segment": 3}], ids=str)
def test_devices_and_segments_change_no_bit(changes, reference):
    assert_same(sweep(**changes).run(progress=False), reference, range(9))


def test_the_order_of_trials_changes_no_bit(reference):
    order = np.random.default_rng(0).permutation(9)
    found = sweep([POINTS[i] for i in order])
    assert found.plan().paddings[0].groups != sweep().plan().paddings[0].groups
    assert_same(found.run(progress=False), reference, order)


def test_one_program_serves_all_sizes_and_new_values():
    """It compiles once, with the step of one size by which it is checked."""
    own = program(steps=2, eval_every=2)
    for rate, expected in ((0.01, [*OF_A_GROUP, "jit(stepped)"]), (0.02, [])):
        with compilations() as names:
            sweep([{"rate": rate, "size": size} for size in SIZES], program=own).run(progress=False)
        # What copies a lane of these shapes to the host may have been compiled for another test.
        assert sorted(name for name in names if name != "jit(_lane_of_device)") == sorted(expected)


# Law 4


def test_survivors_of_each_size_cost_their_chunks_only(monkeypatch):
    calls, collect = [], DeviceLanes.collect

    def counted(self):
        found = collect(self)
        calls.append((len(found.lanes), found.iterations))
        return found

    monkeypatch.setattr(DeviceLanes, "collect", counted)
    halving = hpx.Halving(factor=2, min_steps=4)
    result = hpx.Sweep(GROUPS, KILLED_SIZES, trials=24, width=2, devices=1, scheduler=halving).run(progress=False)
    assert len(result.manifest.sweep.padded) == 1
    assert max(calls) == (8, 4), "of each of three sizes"
    assert all(chunks == -(-live // 2) for live, chunks in calls)
    assert {chunks for _, chunks in calls} >= {1, 2, 4}


# Law 5


@pytest.mark.parametrize(("others", "randomness"), [((3, 5), "shared"), ((4, 7), "independent")])
def test_keys_come_from_names_whatever_the_other_sizes(others, randomness):
    def init(key, h):
        return {"first": jax.random.uniform(key, (h.size,)), "last": jnp.zeros(h.size)}

    def step(key, state, batch, h):
        return state | {"last": jax.random.uniform(key, (h.size,))}, {"loss": h.rate * state["first"].sum()}

    def evaluate(key, state, split, h):
        return {"loss": state["last"].sum()}

    own = hpx.Program(init, step, evaluate, steps=4, eval_every=2)
    points = [{"rate": rate, "size": size} for rate in (0.1, 0.2) for size in (2, *others)]
    space = hpx.Space(rate=hpx.Uniform(0, 1), size=hpx.Choice(2, *others))
    result = sweep(points, program=own, space=space, replicates=2, randomness=randomness).run(progress=False)
    assert len(result.manifest.sweep.padded) == 1
    for trial in result:
        for replicate in range(2):
            key = lane_key(SEED, replicate, trial.id if randomness == "independent" else None)
            shape, state = (trial.hparams["size"],), trial.restore(replicate)
            assert same_bits(state["first"], jax.random.uniform(purpose_key(key, "init"), shape))
            assert same_bits(state["last"], jax.random.uniform(step_key(purpose_key(key, "step"), 3), shape))


# Law 8


def test_data_is_not_copied_per_lane():
    class Plain(nn.Module):
        size: int

        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.relu(nn.Dense(self.size)(x)))

    data = blobs(examples=20_000, features=40)
    size = sum(a.nbytes for a in jax.tree.leaves((data.train, data.valid)))
    changes = {"model": lambda h: Plain(h.size), "optimizer": lambda h: optax.sgd(h.rate), "data": data}
    own = program(**changes, steps=2, eval_every=2, eval_batch_size=100)

    def used(count):
        points = [{"rate": 0.01 + 1e-5 * i, "size": size} for size in SIZES for i in range(count)]
        wide = sweep(points, program=own, width=16, devices=1)
        plan, programs = wide.plan(), GroupPrograms.of(wide.spec)
        assert len(plan.paddings) == 1
        compiled = programs.compile(plan, 0, programs.hparams(plan, plan.groups[0], plan.points[:1]))
        lanes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(compiled._per_lane))
        found = [each.compiled.memory_analysis() for each in (compiled.advance, compiled.evaluate)]
        return sum(each.temp_size_in_bytes + each.argument_size_in_bytes - lanes for each in found)

    few, many = used(16), used(512)
    assert size <= few < 1.5 * size, "the data is an argument, and no chunk copies it"
    assert many < few + size // 10


# Law 9; ``tests.support.interrupted.check`` asserts that sweeps which are killed, and on two hosts, are padded


def test_a_run_that_is_abandoned_goes_on_with_the_same_bits(reference, tmp_path):
    events = sweep().events(tmp_path, checkpoint_seconds=0.0)
    for number, _ in enumerate(events):
        if number == 6:
            break
    events.close()
    found = sweep().run(tmp_path, progress=False)
    assert_same(found, reference, range(9))
    assert found.manifest.sweep.padded == (sweep().plan().paddings[0].groups,)


# What else a user sees


def test_states_have_their_own_shapes(reference):
    for trial in map(reference.__getitem__, range(6)):
        own = jax.eval_shape(lambda size=trial.hparams["size"]: Net(size).init(jax.random.key(0), jnp.zeros((1, 5))))
        shapes = jax.tree.map(jnp.shape, trial.restore()["params"])
        assert shapes == jax.tree.map(jnp.shape, own["params"])
        assert trial.predict(np.zeros((2, 5), np.float32)).shape == (1, 2, 3)
    assert sweep().replay(reference[1]).agrees


def test_the_plan_says_so():
    text = str(sweep().plan())
    assert "1 compiled program\n" in text
    assert "groups 0, 1, 2 share a padded program, compiled, checked and run in " in text
    assert "where programs of their own would take" in text


def test_two_sizes_keep_groups():
    """With the one by which a padded program is checked there would be two to compile, too."""
    assert sweep(POINTS[:2]).plan().paddings == ()


def test_static_keeps_groups():
    assert sweep(space=STATIC).plan().paddings == ()


def test_long_runs_keep_groups():
    """Where training takes longer than compiling, what the padding computes costs more than a program saves."""
    plan = sweep(program=program(steps=40_000_000, eval_every=4_000_000)).plan()
    assert plan.paddings == ()


def test_what_cannot_be_padded_is_told_and_trains_as_before():
    class Sorted(nn.Module):
        size: int

        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(jnp.sort(nn.Dense(self.size)(x)))

    own = sweep(POINTS[:3], program=program(model=lambda h: Sorted(h.size), steps=2, eval_every=2))
    assert "groups 0, 1, 2 have programs of their own, since sort is along an axis whose size differs" in str(
        own.plan()
    )
    with compilations() as names:
        assert own.run(progress=False).statuses.tolist() == ["complete"] * 3
    assert sorted(names) == sorted(OF_A_GROUP * 3)
