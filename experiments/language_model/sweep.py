"""Which learning rate, warmup and weight decay does a small language model want, and does a lane of two devices agree?

hpjax run experiments/language_model/sweep.py --dir runs/lm [--devices-per-lane 2]
"""

from pydoc_data.topics import topics

import numpy as np
from lm import Transformer, program, space

import hpjax as hpx

TOKENS, STEPS = 64, 400


def characters():
    """The manual that comes with Python as numbers, int32 (characters,), and of how many characters."""
    text = "\n".join(topics[name] for name in sorted(topics))
    known = sorted(set(text))
    return np.searchsorted(known, list(text)).astype(np.int32), len(known)


text, vocabulary = characters()
end = (len(text) - 1) // TOKENS * TOKENS - 256 * TOKENS  # the last 256 windows are the validation split
data = hpx.data.tokens(text[: end + 1], TOKENS, valid=text[end:], name="Python's manual")
model = Transformer(layers=4, width=64, tokens=TOKENS, vocabulary=vocabulary)
sweep = hpx.Sweep(
    program(model, data, batch_size=16, steps=STEPS, eval_every=50), space(STEPS), trials=4, partition="fsdp"
)
