"""A DCGAN, two networks with a ``TrainState`` each, on scikit-learn's digits: [--smoke] [--out FOLDER]."""

import agreement
from gan_networks import begin, energy_distance, generate, train_step

import hpjax as hpx


def init(key, h):
    return begin(key, h.generator_rate, h.discriminator_rate)


def step(key, state, batch, h):
    return train_step(key, *state, batch)


def evaluate(key, state, valid, h):
    return {"energy": energy_distance(generate(state[0], key, len(valid)), valid)}


def batch(key, step, train, h):
    return train[hpx.data.batch_indices(key, step, len(train), batch_size=64)]


images = [2 * split.x.reshape(-1, 8, 8, 1) - 1 for split in (hpx.data.digits().train, hpx.data.digits().valid)]
program = hpx.Program(init, step, evaluate, hpx.Data(*images, name="digits"), batch, steps=300, eval_every=50)
space = hpx.Space(generator_rate=hpx.LogUniform(1e-4, 1e-2), discriminator_rate=hpx.LogUniform(1e-4, 1e-2))
sweep = hpx.Sweep(program, space, trials=8, objective=hpx.minimize("valid/energy"))


def alone(h, lane):
    g, d = begin(lane.key("init"), h.generator_rate, h.discriminator_rate)
    for t in range(lane.steps):
        (g, d), _ = train_step(lane.key("step", t), g, d, lane.batch(t, size=64))
        if lane.evaluates(t):
            yield energy_distance(generate(g, lane.key("evaluate", t + 1), len(images[1])), images[1])


if __name__ == "__main__":
    agreement.main(sweep, alone, "valid/energy")
