"""The laws, for groups that share a padded program: plain Flax layers of several sizes, and a check that it holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import hpjax as hpx
from hpjax.engine.padding.rules import RULES
from hpjax.engine.padding.values import Padded
from tests.support.compare import same_bits
from tests.support.counting import OF_A_GROUP, compilations
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
    """It compiles once, with the step of the smallest size by which it is checked."""
    own = program(steps=2, eval_every=2)
    for rate, expected in ((0.01, [*OF_A_GROUP, "jit(stepped)"]), (0.02, [])):
        with compilations() as names:
            sweep([{"rate": rate, "size": size} for size in SIZES], program=own).run(progress=False)
        assert sorted(names) == sorted(expected)


# Law 9


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
    assert "groups 0, 1, 2 share a padded program, compiled and run in " in text
    assert "where programs of their own would take" in text


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


def test_a_padded_program_that_computes_something_else_is_not_used(monkeypatch):
    """The check of one step finds a rule by which sums count the padding, too."""

    def summing(equation):
        (array,) = equation.bind(equation.given[0].array)
        return [Padded(array, equation.sizes[0])]

    monkeypatch.setitem(RULES, "reduce_sum", summing)
    own = sweep(POINTS[:3], program=program(steps=2, eval_every=2))
    assert len(own.plan().paddings) == 1
    found = own.run(progress=False)
    assert any("have programs of their own, since a step of a padded one gives" in line for line in found.manifest.plan)
    assert found.manifest.sweep.padded == ()
    monkeypatch.undo()
    assert_same(
        found, sweep(POINTS[:3], program=program(steps=2, eval_every=2), space=STATIC).run(progress=False), range(3)
    )
