"""Which learning rate does a small transformer want that reads the manual of Python, and is it the same twice as wide?

hpjax run experiments/characters/sweep.py --dir runs/characters
"""

import optax
from model import Transformer
from text import tokens

import hpjax as hpx

STEPS = 300

text, known = tokens()

space = hpx.Space(
    learning_rate=hpx.LogUniform(3e-4, 3e-2, default=3e-3),
    width=hpx.Choice(32, 64),
)

program = hpx.supervised(
    model=lambda h: Transformer(len(known), h.width),
    optimizer=lambda h: optax.adamw(
        hpx.optim.warmup_cosine_decay_schedule(0.0, h.learning_rate, 20, STEPS), weight_decay=1e-2
    ),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics={"accuracy": hpx.metrics.accuracy},
    data=hpx.data.tokens(text, length=64, name="Python's manual"),
    batch_size=16,
    steps=STEPS,
    eval_every=50,
)

sweep = hpx.Sweep(program, space, trials=12)
