"""nanodo, a decoder-only transformer, on the lines of Python's inspect module as bytes: [--smoke] [--out FOLDER]."""

import inspect

import agreement
import jax
import numpy as np
import optax
from nanodo_model import L, TransformerDo, get_optimizer

import hpjax as hpx

STEPS, PAD, EOS, BOS = 300, b"\0", b"\1", b"\2"
code = inspect.getsource(inspect).encode("ascii", "ignore").splitlines()
lines = [(BOS + line.strip() + EOS).ljust(L + 1, PAD)[: L + 1] for line in code if line.strip()]
tokens = np.frombuffer(b"".join(lines), np.uint8).reshape(-1, L + 1).astype(np.int32)
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def optimizer(h):
    return get_optimizer(h.peak_learning_rate, h.weight_decay, num_train_steps=STEPS, warmup_steps=30)


program = hpx.supervised(model=TransformerDo(), optimizer=optimizer, loss=cross_entropy, ignore_label=0,
    data=hpx.data.from_arrays(tokens[:, :-1], tokens[:, 1:]), batch_size=32, steps=STEPS, eval_every=100)  # fmt: skip
space = hpx.Space(peak_learning_rate=hpx.LogUniform(1e-4, 1e-2), weight_decay=hpx.LogUniform(1e-3, 1))
sweep = hpx.Sweep(program, space, trials=8)


def alone(h, lane):
    def loss(params, batch, key):
        losses = cross_entropy(TransformerDo().apply({"params": params}, batch.x), batch.y)
        return jax.numpy.average(losses, weights=batch.y != 0)

    params = jax.jit(TransformerDo().init)(lane.key("init"), lane.data.valid.x)["params"]
    return lane.losses(loss, params, optimizer(h), size=32)


if __name__ == "__main__":
    agreement.main(sweep, alone)
