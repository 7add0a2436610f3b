"""Adam's epsilon by CompleteP's Table 1, against plain loops of Optax with an epsilon for each layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.core.hparams import Hparams
from tests.training.test_mup import BASE, MUP, H, M, batches, program, trained

RATE, EPS, DECAY = 0.02, 0.01, 0.1  # an epsilon of the size of gradients, so that it matters


def loss_of(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean()


def loop(loss, optimizer, params, own, h):
    """The parameters after the steps of a lane of ``own``."""
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    for batch in batches(own, h):
        params, state = step(params, state, batch)
    return params


def by_label(optimizers, label_of, params):
    labels = jax.tree_util.tree_map_with_path(lambda path, _: label_of("/".join(key.key for key in path)), params)
    return optax.multi_transform(optimizers, labels)


def close(found, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-7), found, wanted)


def furthest(found, other):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found, other)))


def test_with_the_width_it_is_that_of_table_1_with_the_multiplier_in_the_forward_pass():
    """Every weight of the table has ε/m; the last layer's is used times 1/m there, and its bias does not grow."""
    own = program(MUP, lambda h: hpx.mup.adamw(h.learning_rate, eps=EPS, weight_decay=DECAY))
    start, end = trained(own, H)

    def loss(params, batch):
        x = batch.x
        for name in ("layers_0", "layers_2"):
            x = nn.relu(x @ params[name]["kernel"] + params[name]["bias"][None])
        return loss_of(x @ params["layers_4"]["kernel"] / M + params["layers_4"]["bias"][None], batch)

    def times(params, factor):
        last = {**params["layers_4"], "kernel": params["layers_4"]["kernel"] * factor}
        return {**params, "layers_4": last}

    optimizer = by_label(
        {
            "hidden": optax.adamw(RATE / M, eps=EPS / M, weight_decay=DECAY * M),
            "finite": optax.adamw(RATE, eps=EPS, weight_decay=DECAY),
            "other": optax.adamw(RATE, eps=EPS / M, weight_decay=DECAY),
        },
        lambda name: {"layers_2/kernel": "hidden", "layers_4/bias": "finite"}.get(name, "other"),
        start.params,
    )
    close(end.params, times(loop(loss, optimizer, times(start.params, M), own, H), 1 / M))
    plain = trained(program(MUP, lambda h: optax.adamw(h.learning_rate, eps=EPS, weight_decay=DECAY)), H)[1]
    assert furthest(end.params, plain.params) > 1e-3, "it matters"


class Deep(nn.Module):
    """Residual blocks."""

    width: int
    branch: float

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width, name="first")(x)
        for i in range(4):
            x = x + self.branch * nn.Dense(self.width, name=f"block_{i}")(nn.relu(x))
        return nn.Dense(10, name="last")(x)


def test_with_the_depth_too_in_blocks_and_others_of_a_chain_see_true_gradients():
    branch = hpx.mup.residual(4, base_depth=2)
    clip = optax.clip_by_global_norm(0.5)
    own = program(
        MUP,
        lambda h: optax.chain(
            clip, hpx.mup.adamw(h.learning_rate, eps=EPS, weight_decay=0.0, blocks="block_*", branch=branch)
        ),
        model=lambda h: Deep(h.width, branch),
    )
    start, end = trained(own, H)
    kinds = {
        "block": optax.adam(RATE / M, eps=EPS / M / 2),
        "block bias": optax.adam(RATE, eps=EPS / M / 2),
        "first": optax.adam(RATE, eps=EPS / M),
        "last": optax.adam(RATE / M, eps=EPS),  # its weights hold 1/m, and so its gradients do not
        "finite": optax.adam(RATE, eps=EPS),
    }

    def kind(name):
        if name.startswith("block"):
            return "block bias" if name.endswith("bias") else "block"
        return "finite" if name == "last/bias" else name.split("/")[0]

    optimizer = optax.chain(clip, by_label(kinds, kind, start.params))
    model = Deep(H["width"], branch)
    close(
        end.params,
        loop(lambda p, batch: loss_of(model.apply({"params": p}, batch.x), batch), optimizer, start.params, own, H),
    )


@pytest.mark.parametrize(("mup", "width"), [(MUP, BASE), (None, 64)], ids=["base width", "no μP"])
def test_it_is_that_of_optax_to_the_bit(mup, width):
    h = Hparams({"learning_rate": RATE, "width": width})
    own, plain = (
        trained(program(mup, lambda h, make=make: make(h.learning_rate)), h, 2)[1].params
        for make in (hpx.mup.adamw, optax.adamw)
    )
    jax.tree.map(np.testing.assert_array_equal, own, plain)


def test_lanes_with_and_without_mup_share_a_program():
    own = program(
        lambda h: hpx.mup.MuP({"width": BASE}, enabled=h.mup), lambda h: hpx.mup.adamw(h.learning_rate, eps=EPS)
    )
    space = hpx.Space(learning_rate=RATE, width=64, mup=hpx.Choice(True, False))
    sweep = hpx.Sweep(own, space, sampler=hpx.Grid())
    assert len(sweep.plan().groups) == 1
    result = sweep.run(progress=False)
    losses = dict(zip([h["mup"] for h in result.hparams], result.last("valid/loss")[:, 0], strict=True))
    for enabled, mup in ((True, MUP), (False, None)):
        fixed = program(mup, lambda h: hpx.mup.adamw(h.learning_rate, eps=EPS))
        alone = hpx.Sweep(fixed, hpx.Space(learning_rate=RATE, width=64), trials=1, seed=0).run(progress=False)
        assert losses[enabled] == pytest.approx(alone.last("valid/loss")[0, 0], rel=1e-4)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: hpx.mup.adamw(0.1, blocks="block_*", branch=0), "mup.adamw.branch = 0: must be above 0"),
        (lambda: hpx.mup.adamw(0.1, branch=0.5), "mup.adamw.branch = 0.5: needs blocks"),
        (lambda: trained(program(MUP, lambda h: hpx.mup.adamw(0.1, blocks="block_*")), H, 0), "must match parameters"),
        (
            lambda: trained(program(MUP, lambda h: optax.contrib.sam(hpx.mup.adamw(0.1), optax.sgd(0.1))), H, 1),
            "supervised.optimizer = 'hpx.mup.adamw': cannot be inside",
        ),
    ],
)
def test_what_cannot_be_is_told(make, told):
    with pytest.raises(hpx.InputError, match=told):
        make()
