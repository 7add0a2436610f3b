"""Which learning rate, warmup and weight decay does a small language model want, and does a lane of two devices agree?

hpjax run experiments/language_model/sweep.py --dir runs/lm [--devices-per-lane 2]
"""

from pydoc_data.topics import topics

import numpy as np
from lm import Transformer, program, space

import hpjax as hpx

TOKENS, STEPS = 64, 400


def characters():
    """The manual that comes with Python, in sequences of characters, and of each the one that follows."""
    text = "\n".join(topics[name] for name in sorted(topics))
    known = sorted(set(text))
    index = np.searchsorted(known, list(text)).astype(np.int32)
    count = (len(index) - 1) // TOKENS
    x, y = (index[at : at + count * TOKENS].reshape(count, TOKENS) for at in (0, 1))
    return x, y, len(known)


x, y, vocabulary = characters()
data = hpx.data.from_arrays(x[:-256], y[:-256], valid=(x[-256:], y[-256:]), name="Python's manual")
model = Transformer(layers=4, width=64, tokens=TOKENS, vocabulary=vocabulary)
sweep = hpx.Sweep(
    program(model, data, batch_size=16, steps=STEPS, eval_every=50), space(STEPS), trials=4, partition="fsdp"
)
