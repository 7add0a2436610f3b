"""Flax's MNIST tutorial, a convolutional network in NNX, on scikit-learn's digits: [--smoke] [--out FOLDER]."""

import agreement
import optax
from flax import nnx

import hpjax as hpx


class CNN(nnx.Module):
    def __init__(self, *, rngs):
        self.conv1, self.conv2 = nnx.Conv(1, 32, (3, 3), rngs=rngs), nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.linear1, self.linear2 = nnx.Linear(256, 256, rngs=rngs), nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.relu(self.conv1(x.reshape(-1, 8, 8, 1))), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        return self.linear2(nnx.relu(self.linear1(x.reshape(x.shape[0], -1))))


program = hpx.supervised(model=lambda h, rngs: CNN(rngs=rngs), optimizer=lambda h: optax.adamw(h.learning_rate, h.b1),
    loss=optax.softmax_cross_entropy_with_integer_labels, metrics={"accuracy": hpx.metrics.accuracy},
    data=hpx.data.digits(), batch_size=32, steps=200, eval_every=50)  # fmt: skip
sweep = hpx.Sweep(program, hpx.Space(learning_rate=hpx.LogUniform(5e-4, 5e-2), b1=hpx.Uniform(0.5, 0.99)), trials=8)


def alone(h, lane):
    model = CNN(rngs=nnx.Rngs(lane.key("init")))
    optimizer = nnx.Optimizer(model, optax.adamw(h.learning_rate, h.b1), wrt=nnx.Param)
    loss = nnx.jit(lambda model, x, y: optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean())
    train_step = nnx.jit(lambda model, optimizer, x, y: optimizer.update(model, nnx.grad(loss)(model, x, y)))
    for t in range(lane.steps):
        train_step(model, optimizer, *lane.batch(t, 32))
        if lane.evaluates(t):
            yield loss(model, *program.data.valid)


if __name__ == "__main__":
    agreement.main(sweep, alone)
