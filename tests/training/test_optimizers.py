"""Every gradient transformation of ``optax`` and ``optax.contrib`` against a plain loop as Optax documents it.

All is in float64, where a difference is a mistake and not rounding. Two replicates are two lanes, with other parameters
and other batches. A transformation that a newer Optax has, and this file does not, fails the first test.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from optax import contrib
from safetensors.numpy import load_file

import hpjax as hpx
from hpjax.core.keys import lane_key, purpose_key
from tests.support.marks import few_of
from tests.support.networks import BATCH, MLP, REAL, difference, make_data
from tests.support.plain import SEED, FromNnx, cross_entropy, drawn

STEPS, EVERY, RATE = 7, 3, 0.05
SPACE = hpx.Space(penalty=0.01)


class Case(NamedTuple):
    """A transformation and how Optax's documentation has it called.

    Attributes:
      build: gives it.
      extra: the names of the extra arguments that ``update`` gets.
      evaluated: of the state and the parameters, those that evaluations use.
      pair: whether the parameters are ``optax.LookaheadParams``.
    """

    build: Callable[[], Any]
    extra: tuple[str, ...] = ()
    evaluated: Callable[[Any, Any], Any] = lambda state, params: params
    pair: bool = False


def vectors(params):
    return jax.tree.map(lambda leaf: leaf.ndim == 1, params)


def kinds(params):
    return jax.tree.map(lambda leaf: "bias" if leaf.ndim == 1 else "kernel", params)


def changing(*arguments, **options):
    """A case for a function of Optax that changes gradients; descent follows it."""
    return lambda make: Case(lambda: optax.chain(make(*arguments, **options), optax.scale(-RATE)))


def around(*arguments, **options):
    """A case for a function of Optax whose first argument is an optimizer."""
    return lambda make: Case(lambda: make(optax.adam(RATE), *arguments, **options))


def given(*extra, **options):
    """A case for an optimizer with a default rate that needs extra arguments."""
    return lambda make: Case(lambda: make(**options), extra)


def all_matrices(params):
    return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(), params)


def is_odd(step):
    return step % 2 == 1


def sum_of_squares(updates):
    return sum(jnp.sum(u**2) for u in jax.tree.leaves(updates))


SEARCH = ("value", "grad", "value_fn")

# By name, a function of the function of Optax. What takes a learning rate and nothing else needs no entry.
LISTED: dict[str, Callable[[Any], Case]] = {
    "adadelta": given(learning_rate=RATE),
    "adafactor": given(learning_rate=RATE, min_dim_size_to_factor=2),
    "adaptive_grad_clip": changing(0.01),
    "add_decayed_weights": changing(0.1),
    "add_noise": changing(0.1, 0.5, key=3),
    "apply_every": changing(2),
    "apply_if_finite": around(3),
    "centralize": changing(),
    "chain": lambda make: Case(lambda: make(optax.clip(0.1), optax.adam(RATE))),
    "clip": changing(0.01),
    "clip_by_block_rms": changing(0.01),
    "clip_by_global_norm": changing(0.1),
    "cocob": given(),
    "conditionally_mask": around(is_odd),
    "conditionally_transform": lambda make: Case(
        lambda: optax.chain(make(optax.clip(0.01), is_odd), optax.sgd(RATE))
    ),
    "dadapt_adamw": given(),
    "dog": given(init_step=("distance", 0.1)),
    "dowg": given(init_estim_sq_dist=0.1),
    "ema": changing(0.9),
    "flatten": around(),
    "freeze": lambda make: Case(lambda: optax.chain(optax.adam(RATE), make(vectors))),
    "hutchinson_estimator_diag_hessian": lambda make: Case(
        lambda: optax.chain(make(), optax.scale(-RATE)), ("obj_fn",)
    ),
    "identity": changing(),
    "inject_hyperparams": lambda make: Case(
        lambda: make(optax.adam)(learning_rate=optax.linear_schedule(RATE, 0.0, 5), b1=0.8)
    ),
    "inject_stateful_hyperparams": lambda make: Case(lambda: make(optax.adam)(learning_rate=RATE)),
    "keep_params_nonnegative": lambda make: Case(lambda: optax.chain(optax.sgd(RATE), make())),
    "lbfgs": given(*SEARCH),
    "lookahead": lambda make: Case(
        lambda: make(optax.adam(RATE), 2, 0.5), evaluated=lambda state, pair: pair.slow, pair=True
    ),
    "masked": around(vectors),
    "mechanize": around(),
    "momo": given("value"),
    "momo_adam": given("value"),
    "multi_transform": lambda make: Case(lambda: make({"bias": optax.sgd(RATE), "kernel": optax.adam(RATE)}, kinds)),
    "named_chain": lambda make: Case(lambda: make(("clip", optax.clip(0.1)), ("adam", optax.adam(RATE)))),
    "noisy_sgd": given(learning_rate=RATE, key=3),
    "normalize": changing(),
    "normalize_by_update_norm": changing(),
    "partition": lambda make: Case(lambda: make({"bias": optax.sgd(RATE), "kernel": contrib.muon(RATE)}, kinds)),
    "polyak_sgd": given("value"),
    "prodigy": given(learning_rate=1.0),
    "reduce_on_plateau": lambda make: Case(
        lambda: optax.chain(optax.adam(RATE), make(patience=1, factor=0.5, rtol=0.5)), ("value",)
    ),
    "sam": lambda make: Case(
        lambda: make(optax.adam(RATE), optax.chain(contrib.normalize(), optax.sgd(0.1))),
        evaluated=lambda state, params: params if int(state.steps_since_sync) == 0 else state.cache,
    ),
    "scale": lambda make: Case(lambda: make(-RATE)),
    "scale_by_backtracking_linesearch": lambda make: Case(lambda: optax.chain(optax.sgd(1.0), make(5)), SEARCH),
    "scale_by_distance_over_gradients": changing(),
    "scale_by_factored_rms": changing(min_dim_size_to_factor=2),
    "scale_by_galore": changing(rank=2),
    "scale_by_learning_rate": lambda make: Case(lambda: make(RATE)),
    "scale_by_madgrad": lambda make: Case(lambda: make(RATE)),
    "scale_by_muon": lambda make: Case(
        lambda: optax.masked(
            optax.chain(make(weight_dimension_numbers=all_matrices), optax.scale(-RATE)),
            lambda params: jax.tree.map(lambda p: p.ndim == 2, params),
        )
    ),
    "scale_by_polyak": lambda make: Case(lambda: optax.chain(make(), optax.scale(-RATE)), ("value",)),
    "scale_by_rprop": lambda make: Case(lambda: optax.chain(make(RATE), optax.scale(-1.0))),
    "scale_by_schedule": lambda make: Case(lambda: make(optax.linear_schedule(-RATE, 0.0, 5))),
    "scale_by_zoom_linesearch": lambda make: Case(lambda: optax.chain(optax.sgd(1.0), make(5)), SEARCH),
    "schedule_free": lambda make: Case(
        lambda: make(optax.sgd(RATE), RATE), evaluated=contrib.schedule_free_eval_params
    ),
    "schedule_free_adamw": lambda make: Case(lambda: make(RATE), evaluated=contrib.schedule_free_eval_params),
    "schedule_free_sgd": lambda make: Case(
        lambda: make(RATE, warmup_steps=3), evaluated=contrib.schedule_free_eval_params
    ),
    "selective_transform": lambda make: Case(lambda: make(optax.adam(RATE), freeze_mask=vectors)),
    "set_to_zero": lambda make: Case(
        lambda: optax.partition({"bias": make(), "kernel": optax.sgd(RATE)}, kinds)
    ),
    "snapshot": lambda make: Case(lambda: optax.chain(make("norm", optax.tree.norm), optax.sgd(RATE))),
    "sophia": lambda make: Case(lambda: make(RATE, update_interval=2), ("obj_fn",)),
    "split_real_and_imaginary": around(),
    "stateless": changing(lambda updates, params: jax.tree.map(lambda u, p: u + 0.1 * p, updates, params)),
    "stateless_with_tree_map": changing(lambda u, p: u + 0.1 * p),
    "trace": changing(0.9),
    "with_extra_args_support": around(),
    "zero_nans": changing(),
}  # fmt: skip

# What is refused: how it is made, and what the error says.
REFUSED = {
    "differentially_private_aggregate": (lambda make: optax.chain(make(1.0, 0.1, 0), optax.sgd(RATE)), "each example"),
    "dpsgd": (lambda make: make(RATE, 1.0, 0.1, 0), "needs the gradient of each example"),
    "monitor": (lambda make: optax.chain(make({"norm": optax.tree.norm}), optax.sgd(RATE)), "Write optax.snapshot"),
}  # fmt: skip

# Functions without an annotation that give no transformation, and one that gives measurements for ``optax.monitor``.
OTHERS = {
    "bias_correction",
    "matrix_inverse_pth_root",
    "measure_with_ema",
    "schedule_free_eval_params",
    "sigmoid_binary_cross_entropy",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
}


def transformations():
    """Of the functions of Optax those that give a transformation, or do not say what they give."""
    found = {}
    for module in (optax, contrib):
        for name, thing in vars(module).items():
            if name.startswith("_") or inspect.isclass(thing) or not name.islower() or not callable(thing):
                continue
            gives = getattr(thing, "__annotations__", {}).get("return")
            if gives is None or "GradientTransformation" in str(gives):
                found[name] = thing
    return found


FOUND = transformations()


def case_of(name):
    if name in LISTED:
        return LISTED[name](FOUND[name])
    required = [p.name for p in inspect.signature(FOUND[name]).parameters.values() if p.default is p.empty]
    if required == ["learning_rate"]:
        return Case(lambda: FOUND[name](RATE))
    if name.startswith("scale_by_") and not required:
        return changing()(FOUND[name])
    raise KeyError(name)


def test_every_transformation_is_known():
    unknown = []
    for name in FOUND:
        if name not in REFUSED and name not in OTHERS:
            try:
                case_of(name)
            except KeyError:
                unknown.append(name)
    assert unknown == [], "list them in LISTED or in REFUSED"
    assert len(FOUND) > 100


def masked_average(state, params):
    """What the documentation says, of the kernels only."""
    own = state.inner_states["kernel"].inner_state
    kernels = jax.tree.map(lambda p: p if p.ndim == 2 else optax.MaskedNode(), params)
    at = contrib.schedule_free_eval_params(own, kernels)
    return jax.tree.map(lambda p, e: p if isinstance(e, optax.MaskedNode) else e, params, at)


# Wrappers in wrappers, objects, and other ways to call one.
COMPOSED = {
    "MultiSteps": Case(lambda: optax.MultiSteps(optax.adam(RATE), 2)),
    "MultiSteps of a line search": Case(lambda: optax.MultiSteps(optax.lbfgs(), 1), SEARCH),
    "MultiSteps of a line search as a transformation": Case(
        lambda: optax.MultiSteps(optax.lbfgs(), 2).gradient_transformation(), SEARCH
    ),
    "MultiSteps in a chain": Case(
        lambda: optax.chain(optax.clip(0.1), optax.MultiSteps(optax.adam(RATE), 2).gradient_transformation())
    ),
    "opaque SAM": Case(
        lambda: contrib.sam(optax.adam(RATE), optax.sgd(0.1), opaque_mode=True), ("grad_fn",)
    ),
    "SAM in a chain": Case(
        lambda: optax.chain(optax.clip(0.1), contrib.sam(optax.sgd(RATE), optax.sgd(0.1), 3)),
        evaluated=lambda state, params: params if int(state[1].steps_since_sync) == 0 else state[1].cache,
    ),
    "SAM with hyperparameters": Case(
        lambda: optax.inject_hyperparams(
            lambda learning_rate: contrib.sam(optax.sgd(learning_rate), optax.sgd(0.1), sync_period=2)
        )(learning_rate=RATE),
        evaluated=lambda state, params: (
            params if int(state.inner_state.steps_since_sync) == 0 else state.inner_state.cache
        ),
    ),
    "SAM of schedule-free": Case(
        lambda: contrib.sam(contrib.schedule_free_sgd(RATE), optax.sgd(0.1)),
        evaluated=lambda state, params: contrib.schedule_free_eval_params(
            state.opt_state, params if int(state.steps_since_sync) == 0 else state.cache
        ),
    ),
    "schedule-free in a chain": Case(
        lambda: optax.chain(optax.clip(0.1), contrib.schedule_free_adamw(RATE)),
        evaluated=lambda state, params: contrib.schedule_free_eval_params(state[1], params),
    ),
    "schedule-free of some parameters": Case(
        lambda: optax.partition({"bias": optax.sgd(RATE), "kernel": contrib.schedule_free_sgd(RATE)}, kinds),
        evaluated=masked_average,
    ),
    "schedule-free with hyperparameters": Case(
        lambda: optax.inject_hyperparams(contrib.schedule_free_sgd)(learning_rate=RATE),
        evaluated=lambda state, params: contrib.schedule_free_eval_params(state.inner_state, params),
    ),
    "lookahead in a chain": Case(
        lambda: optax.chain(optax.clip(0.1), optax.lookahead(optax.sgd(RATE, 0.9), 3, 0.5, reset_state=True)),
        evaluated=lambda state, pair: pair.slow,
        pair=True,
    ),
    "lbfgs behind a clip of weights": Case(lambda: optax.chain(optax.add_decayed_weights(0.1), optax.lbfgs()), SEARCH),
    "polyak in apply_if_finite": Case(lambda: optax.apply_if_finite(optax.polyak_sgd(), 2), ("value",)),
}  # fmt: skip


def train_alone(data, case, replicate, model, steps=STEPS):
    """The last parameters that evaluations use, the trained ones, and the validation losses of a plain loop."""
    x, y = jnp.asarray(data.train.x), jnp.asarray(data.train.y)
    params = model.init(purpose_key(lane_key(SEED, replicate), "init"), jnp.zeros((1, *x.shape[1:]), REAL))["params"]
    optimizer = case.build()
    if case.pair:
        params = optax.LookaheadParams.init_synced(params)
    state = optimizer.init(params)

    def loss_of(params, x, y):
        return cross_entropy(model.apply({"params": params}, x), y).mean() + 0.01 * sum_of_squares(params)

    @jax.jit
    def step(params, state, index):
        def objective(params):
            return loss_of(params, x[index], y[index])

        value, grads = jax.value_and_grad(objective)(params.fast if case.pair else params)
        offered = {"value": value, "grad": grads, "value_fn": objective, "obj_fn": objective}
        offered["grad_fn"] = jax.grad(lambda params, _: objective(params))
        updates, state = optimizer.update(grads, state, params, **{name: offered[name] for name in case.extra})
        return optax.apply_updates(params, updates), state

    indices, losses = drawn(replicate, len(y), BATCH, steps)[0], []
    for t in range(steps):
        params, state = step(params, state, indices[t])
        at = case.evaluated(state, params)
        if (t + 1) % EVERY == 0 or t + 1 == steps:
            logits = model.apply({"params": at}, jnp.asarray(data.valid.x))
            losses.append(float(cross_entropy(logits, data.valid.y).mean()))
    return at, params.fast if case.pair else params, losses


def program_of(optimizer, **more):
    return hpx.supervised(
        **{
            "model": MLP(),
            "optimizer": optimizer,
            "loss": cross_entropy,
            "data": make_data("blobs"),
            "batch_size": BATCH,
            "steps": STEPS,
            "eval_every": EVERY,
            "penalty": lambda params, h: h.penalty * sum_of_squares(params),
        }
        | more
    )


def check(case, model=None, ours=None):
    """Raises unless two replicates give what two plain loops give."""
    # Some functions of Optax rely on NumPy's promotion of ranks.
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        program = program_of(case.build(), model=ours or MLP())
        sweep = hpx.Sweep(program, SPACE, trials=1, replicates=2, seed=SEED, width=2, devices=1)
        result = sweep.run(progress=False)
        for replicate in range(2):
            at, params, losses = train_alone(make_data("blobs"), case, replicate, model or MLP())
            state = result[0].restore(replicate)
            assert difference(state["params"], params) < 1e-9
            assert difference(state.get("average", state["params"]), at) < 1e-9
            np.testing.assert_allclose(result.curves("valid/loss")[0, replicate], losses, rtol=1e-9)


FEW = {"lbfgs", "lookahead", "sam"}
KNOWN = sorted(name for name in FOUND if name not in REFUSED and name not in OTHERS)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", few_of(KNOWN, FEW))
def test_it_equals_a_plain_loop(name):
    check(case_of(name))


@pytest.mark.parametrize("name", few_of(COMPOSED, {"schedule-free of some parameters"}))
def test_composed_ones_equal_a_plain_loop(name):
    check(COMPOSED[name])


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(5, 6, param_dtype=REAL, rngs=rngs)
        self.last = nnx.Linear(6, 3, param_dtype=REAL, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.first(x)))


OF_NNX = ["adam", "inject_hyperparams", "lbfgs", "lookahead", "masked", "muon", "partition", "sam", "schedule_free_sgd"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_NNX)
def test_it_equals_a_plain_loop_on_a_tree_of_nnx(name):
    check(case_of(name), model=FromNnx(lambda rngs: Nnx(rngs)), ours=lambda h, rngs: Nnx(rngs))


@pytest.mark.filterwarnings("ignore:.*seed")  # Optax warns of its own call
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_by_name(name):
    make, message = REFUSED[name]
    with pytest.raises(hpx.InputError, match=message):
        hpx.Sweep(program_of(make(FOUND[name])), SPACE, trials=1).plan()


LOOKAHEAD = optax.lookahead(optax.sgd(RATE), 2, 0.5)
SCHEDULE_FREE = contrib.schedule_free_sgd(RATE)
AVERAGE, PARTS = {"average": 0.9}, {"microbatch": 4, "eval_every": None}
MISUSED = {
    "lookahead inside": (optax.apply_if_finite(LOOKAHEAD, 2), {}, "optax.lookahead' ?: must be the outermost"),
    "lookahead with hyperparameters": (
        optax.inject_hyperparams(lambda rate: optax.lookahead(optax.sgd(rate), 2, 0.5))(rate=RATE),
        {},
        "optax.lookahead' ?: must be the outermost",
    ),
    "lookahead and an average": (LOOKAHEAD, AVERAGE, "average = 0.9: cannot be combined"),
    "schedule-free and an average": (SCHEDULE_FREE, AVERAGE, "average = 0.9: cannot be combined"),
    "a hidden schedule-free": (optax.flatten(SCHEDULE_FREE), {}, "optax.flatten' ?: hides"),
    "a line search": (optax.lbfgs(), PARTS, "microbatch = 4: cannot be combined .* Remove microbatch=4"),
    "Sophia": (contrib.sophia(RATE), PARTS, "microbatch = 4: cannot be combined"),
    "opaque SAM": (contrib.sam(SCHEDULE_FREE, optax.sgd(1.0), opaque_mode=True), PARTS, "microbatch = 4: cannot"),
}


@pytest.mark.parametrize("name", MISUSED)
def test_what_cannot_be_combined_is_refused(name):
    optimizer, more, message = MISUSED[name]
    with pytest.raises(hpx.InputError, match=message):
        hpx.Sweep(program_of(optimizer, **more), SPACE, trials=1).plan()


@pytest.mark.slow
def test_what_evaluations_use_is_kept_predicted_with_and_exported(tmp_path):
    """With early stopping, where the best evaluation is not the last."""
    with jax.enable_x64(True):
        case, data = LISTED["lookahead"](optax.lookahead), make_data("blobs")
        stopping = hpx.EarlyStopping(patience=2, min_delta=1.0)  # the first evaluation is the best
        program = program_of(case.build(), early_stopping=stopping, steps=20)
        result = hpx.Sweep(program, SPACE, trials=1, seed=SEED, width=2, devices=1).run(progress=False)
        at, _, losses = train_alone(data, case, 0, MLP(), steps=EVERY)
        assert result[0].step == 3 * EVERY
        state = result[0].restore()
        assert difference(state["average"], at) < 1e-9
        assert result[0].metrics["valid/best_loss"] == pytest.approx(losses[-1], rel=1e-9)
        logits = MLP().apply({"params": at}, data.valid.x)
        np.testing.assert_allclose(result[0].predict(data.valid.x)[0], logits, rtol=1e-9)
        result[0].export(tmp_path / "best.safetensors")
        written = load_file(tmp_path / "best.safetensors")["params.Dense_0.kernel"]
        np.testing.assert_array_equal(written, state["average"]["Dense_0"]["kernel"])
