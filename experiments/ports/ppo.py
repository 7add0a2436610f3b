"""purejaxrl's PPO, all of whose training is one function, on CartPole: [--smoke] [--out FOLDER]."""

import agreement
import cartpole
import jax
import optax
from flax.training.train_state import TrainState
from ppo_parts import ActorCritic, advantages, learn, play

import hpjax as hpx

CONFIG = {"UPDATES": 100, "STEPS": 128, "ENVS": 4, "EPOCHS": 4, "PARTS": 4, "GAMMA": 0.99, "LAMBDA": 0.95, "VALUE": 0.5}


def train(rng, h):
    c = CONFIG | dict(h)
    rng, init, first, shuffle = jax.random.split(rng, 4)
    env, parts = jax.vmap(cartpole.reset)(jax.random.split(first, c["ENVS"])), c["EPOCHS"] * c["PARTS"]
    adam = optax.adam(lambda count: c["LR"] * (1 - count // parts / c["UPDATES"]), eps=1e-5)
    net, tx = ActorCritic(), optax.chain(optax.clip_by_global_norm(0.5), adam)
    state = TrainState.create(apply_fn=net.apply, params=net.init(init, env.obs), tx=tx)

    def update(carry, key):
        (state, env, rng), traj = jax.lax.scan(play, carry, None, c["STEPS"])
        gae = advantages(traj, net.apply(state.params, env.obs)[1], c)
        orders = [jax.random.permutation(k, gae.size) for k in jax.random.split(key, c["EPOCHS"])]
        index = jax.numpy.stack(orders).reshape(parts, -1)
        batches = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[index], (traj, gae))
        state, _ = jax.lax.scan(lambda state, batch: (learn(state, *batch, c), None), state, batches)
        return (state, env, rng), traj.returned.mean()

    (state, _, _), returns = jax.lax.scan(update, (state, env, rng), jax.random.split(shuffle, c["UPDATES"]))
    return {"early": returns[:10].mean(), "return": returns[-1]}, {"params": state.params, "returns": returns}


space = hpx.Space(LR=hpx.LogUniform(1e-4, 1e-2), CLIP=hpx.Uniform(0.1, 0.3), ENTROPY=hpx.LogUniform(1e-3, 0.1))
sweep = hpx.Sweep(hpx.function(train), space, trials=16, objective=hpx.maximize("valid/return"))

if __name__ == "__main__":
    agreement.main(sweep, lambda h, lane: [jax.jit(train)(lane.key("step", 0), h)[0]["early"]], "valid/early")
