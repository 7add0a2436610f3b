"""jaxpi's network for Burgers' equation, which stands in the loss: [--smoke] [--out FOLDER]."""

import agreement
import burgers
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import hpjax as hpx


class MLP(nn.Module):
    @nn.compact
    def __call__(self, z):
        for _ in range(3):
            z = nn.tanh(nn.Dense(32, kernel_init=nn.initializers.glorot_normal())(z))
        return nn.Dense(1)(z)[..., 0]


def loss(u, y, x, params, h):
    u_t, u_x = jax.vmap(jax.grad(MLP().apply, 1), (None, 0))({"params": params}, x).T
    u_xx = jax.vmap(jax.hessian(MLP().apply, 1), (None, 0))({"params": params}, x)[:, 1, 1]
    return jnp.where(y["known"], h.weight * (u - y["u"]) ** 2, (u_t + u * u_x - burgers.NU * u_xx) ** 2)


program = hpx.supervised(model=MLP(), optimizer=lambda h: optax.adam(optax.exponential_decay(h.lr, 500, 0.9)),
    loss=loss, metrics={"error": lambda u, y: (u - y["u"]) ** 2}, batch_size=256, steps=1_000, eval_every=200,
    data=hpx.data.from_arrays(*burgers.collocation(), valid=burgers.grid(), test=None))  # fmt: skip
sweep = hpx.Sweep(program, hpx.Space(lr=hpx.LogUniform(1e-3, 1e-2), weight=hpx.LogUniform(1, 100)), trials=8)


def alone(h, lane):
    params = MLP().init(lane.key("init"), lane.data.valid.x)["params"]
    tx = optax.adam(optax.exponential_decay(h.lr, 500, 0.9))
    return lane.losses(lambda p, b, key: loss(MLP().apply({"params": p}, b.x), b.y, b.x, p, h).mean(), params, tx, 256)


if __name__ == "__main__":
    agreement.main(sweep, alone)
