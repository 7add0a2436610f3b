"""How much the compiler gets to see of a group, beside what jit(vmap(scan)) of the same training has."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn

from hpjax.engine.compile import FUNCTIONS
from tests.support.lanes import prepared
from tests.support.plain import cross_entropy
from tests.support.programs import SPACE, blobs, classifier, quadratic

LANES, BATCH, STEPS = 8, 16, 20
DATA = blobs(features=16)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(32)(x))
        return nn.Dense(3)(x)


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3))(x.reshape(-1, 4, 4, 1)))
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(3)(x.reshape(len(x), -1))


class LSTM(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.RNN(nn.OptimizedLSTMCell(8))(x.reshape(-1, 4, 4))[:, -1])


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8)(x.reshape(-1, 4, 4))
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
            x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.Dense(3)(x.mean(axis=1))


def optimizer(h):
    return optax.sgd(h["learning_rate"], h["momentum"])


def instructions(lowered):
    """How many instructions a program has before XLA optimizes it, those of a function once for each of its calls."""
    counts, name = {}, None
    for line in lowered.as_text(dialect="hlo").splitlines():
        if line.endswith("{"):  # a computation; those that it uses stand before it
            name = line.removeprefix("ENTRY ").split()[0]
            counts[name] = 0
        elif name is not None and " = " in line:
            used = re.findall(r"(?:to_apply|condition|body|computations?)=({.*?}|[\w.-]+)", line)
            counts[name] += 1 + sum(counts[each] for each in re.findall(r"[\w.-]+", " ".join(used)))
    return counts[name]


def plain(model):
    """Instructions of the same training as an expert writes it: batches drawn with replacement, nothing recorded."""
    data, h = DATA, {"learning_rate": jnp.ones(LANES), "momentum": jnp.ones(LANES)}
    x, y = (jnp.asarray(part) for part in (data.train.x, data.train.y))

    def start(h, key):
        params = model.init(key, x[:1])
        return params, optimizer(h).init(params)

    def advance(h, key, carry):
        def step(carry, key):
            params, state = carry
            batch = jax.random.randint(key, (BATCH,), 0, len(x))
            value, grads = jax.value_and_grad(lambda p: cross_entropy(model.apply(p, x[batch]), y[batch]).mean())(
                params
            )
            updates, state = optimizer(h).update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, carry, jax.random.split(key, STEPS))

    def evaluate(h, carry):
        return cross_entropy(model.apply(carry[0], data.valid.x), data.valid.y).mean()

    key = jax.random.key(0)
    carry = jax.eval_shape(jax.vmap(start, (0, None)), h, key)
    return {
        "start": instructions(jax.jit(jax.vmap(start, (0, None))).lower(h, key)),
        "advance": instructions(jax.jit(jax.vmap(advance, (0, None, 0))).lower(h, key, carry)),
        "evaluate": instructions(jax.jit(jax.vmap(evaluate)).lower(h, carry)),
    }


def ours(model):
    program = classifier(
        model=model, optimizer=optimizer, metrics={}, data=DATA, batch_size=BATCH, steps=STEPS, eval_every=STEPS
    )
    *_, compiled = prepared(program, LANES, width=LANES, space=SPACE)
    return {name: instructions(compiled.lower(name).traced) for name in FUNCTIONS}


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.tanh(nn.Dense(8)(x)), None


class Stack(nn.Module):
    """Equal layers that the user scans."""

    layers: int

    @nn.compact
    def __call__(self, x):
        scanned = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.layers)
        return nn.Dense(3)(scanned()(nn.Dense(8)(x), None)[0])


def test_layers_that_are_scanned_are_compiled_once():
    sizes = []
    for layers in (2, 6):
        program = classifier(model=Stack(layers), optimizer=optimizer, batch_size=BATCH, steps=STEPS)
        *_, compiled = prepared(program, LANES, width=LANES, space=SPACE)
        sizes.append({name: instructions(compiled.lower(name).traced) for name in FUNCTIONS})
    assert sizes[0] == sizes[1]


# What is more than plain: in all three the chunks that are cut out and put back, some ten instructions for each array
# that changes; in advance the shuffle of each epoch and keys by folding, metrics and divergence; in evaluate means,
# parts and whether parameters are finite. In start there are fewer where many arrays are drawn, as one.
MORE = {
    MLP: {"start": 120, "advance": 1780, "evaluate": 1010},
    CNN: {"start": 340, "advance": 1650, "evaluate": 945},
    LSTM: {"start": -1280, "advance": 2540, "evaluate": 1560},
    Transformer: {"start": -2450, "advance": 3770, "evaluate": 2170},
}


@pytest.mark.parametrize("model", MORE)
def test_the_compiler_sees_a_bounded_number_of_instructions_more_than_of_a_plain_program(model):
    expert, found = plain(model()), ours(model())
    more = {name: found[name] - expert[name] for name in found}
    assert all(more[name] <= most for name, most in MORE[model].items()), more


def test_training_keeps_dead_lanes_without_a_copy_of_their_chunk():
    size, width = 10_000, 2
    *_, compiled = prepared(quadratic(size=size), 4 * width, width=width)
    chunk = 4 * width * size
    # Two in turn and the values of a step; with a copy from which dead lanes get back theirs it would be four chunks.
    assert compiled.advance.compiled.memory_analysis().temp_size_in_bytes < 3.2 * chunk
