"""How much the compiler gets to see of a group, beside what jit(vmap(scan)) of the same training has."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn

from hpjax.engine.compile import FUNCTIONS
from tests.support.lanes import lanes_of
from tests.support.plain import cross_entropy
from tests.support.programs import SPACE, blobs, classifier

LANES, BATCH, STEPS = 8, 16, 20


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(32)(x))
        return nn.Dense(3)(x)


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


@pytest.fixture(scope="module")
def plain():
    """Instructions of the same training as an expert writes it: batches drawn with replacement, nothing recorded."""
    model, data, h = MLP(), blobs(), {"learning_rate": jnp.ones(LANES), "momentum": jnp.ones(LANES)}
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


@pytest.fixture(scope="module")
def ours():
    program = classifier(model=MLP(), optimizer=optimizer, metrics={}, batch_size=BATCH, steps=STEPS, eval_every=STEPS)
    _, compiled = lanes_of(program, LANES, width=LANES, space=SPACE)
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
        _, compiled = lanes_of(program, LANES, width=LANES, space=SPACE)
        sizes.append({name: instructions(compiled.lower(name).traced) for name in FUNCTIONS})
    assert sizes[0] == sizes[1]


# What is more than plain: in all three the chunks that are cut out and put back, some ten instructions for each array
# that changes; in advance the shuffle of each epoch and keys by folding, metrics and divergence; in evaluate means,
# parts and whether parameters are finite.
MORE = {"start": 120, "advance": 1780, "evaluate": 1010}


@pytest.mark.parametrize("name", MORE)
def test_the_compiler_sees_a_bounded_number_of_instructions_more_than_of_a_plain_program(ours, plain, name):
    assert ours[name] - plain[name] <= MORE[name]
