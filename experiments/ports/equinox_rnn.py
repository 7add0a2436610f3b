"""Equinox's "Train an RNN": a GRU tells spirals that turn left from those that turn right: [--smoke] [--out FOLDER]."""

import agreement
import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import hpjax as hpx


class RNN(eqx.Module):
    cell: eqx.nn.GRUCell
    linear: eqx.nn.Linear

    def __init__(self, in_size, out_size, hidden, *, key):
        ckey, lkey = jax.random.split(key)
        self.cell, self.linear = eqx.nn.GRUCell(in_size, hidden, key=ckey), eqx.nn.Linear(hidden, out_size, key=lkey)

    def __call__(self, xs):
        start = jnp.zeros(self.cell.hidden_size)
        return self.linear(jax.lax.scan(lambda state, x: (self.cell(x, state), None), start, xs)[0])


left, t, loss = jnp.arange(2_000) % 2 == 0, jnp.linspace(0, 2 * jnp.pi, 16), optax.sigmoid_binary_cross_entropy
angle = t + jax.random.uniform(jax.random.key(0), (2_000, 1), maxval=2 * jnp.pi)
spirals = jnp.stack([jnp.sin(angle) * jnp.where(left, -1, 1)[:, None], jnp.cos(angle)], axis=-1) / (1 + t)[:, None]
program = hpx.supervised(model=lambda h, key: RNN(2, 1, 16, key=key), optimizer=lambda h: optax.adam(h.learning_rate),
    loss=loss, data=hpx.data.from_arrays(spirals, left[:, None]), batch_size=32, steps=200, eval_every=50)  # fmt: skip
sweep = hpx.Sweep(program, hpx.Space(learning_rate=hpx.LogUniform(1e-3, 1e-2)), trials=8)


def alone(h, lane):
    params, rest = eqx.partition(RNN(2, 1, 16, key=lane.key("init")), eqx.is_array)
    params, tx = {"rnn": params}, optax.adam(h.learning_rate)
    return lane.losses(lambda p, b, _: loss(jax.vmap(eqx.combine(p["rnn"], rest))(b.x), b.y).mean(), params, tx, 32)


if __name__ == "__main__":
    agreement.main(sweep, alone)
