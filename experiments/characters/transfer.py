"""Does the best learning rate of a wide transformer of one block stay that of a narrow one? With μP, and without.

python experiments/characters/transfer.py [--widths 32 64 128 256] [--out FOLDER] [--smoke]
"""

import argparse
from pathlib import Path

import jax
import optax
from model import Transformer
from text import tokens

import hpjax as hpx

BASE, WIDTHS, HEAD = 32, (32, 64, 128, 256), 8
# Tokens of a window, windows of a batch, and tokens of the text that is not trained on.
LENGTH, BATCH, HELD_OUT = 32, 16, 8192


def study_of(widths=WIDTHS, steps=100, rates=6):
    text, known = tokens()
    program = hpx.supervised(
        # More heads of the same width, so that attention is the same at each.
        model=lambda h: Transformer(len(known), h.width, depth=1, heads=h.width // HEAD),
        optimizer=lambda h: optax.adam(hpx.optim.warmup_constant_schedule(0.0, h.learning_rate, steps // 10)),
        mup=lambda h: hpx.mup.MuP({"width": BASE}, enabled=h.mup),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        data=hpx.data.tokens(text[:-HELD_OUT], LENGTH, valid=text[-HELD_OUT:], name="Python's manual"),
        batch_size=BATCH,
        steps=steps,
    )
    space = hpx.Space(learning_rate=hpx.LogUniform(2**-9.5, 2**-4.5, num=rates))
    return hpx.studies.Transfer(program, space, widths)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="multiples of 8")
    parser.add_argument("--out", type=Path, default=Path("runs/characters-transfer"))
    parser.add_argument("--smoke", action="store_true", help="two widths, few steps")
    given = parser.parse_args()
    study = study_of((16, 32), steps=10, rates=3) if given.smoke else study_of(given.widths)
    answer = study.run(given.out / "run")
    print(answer)
    answer.plot(given.out / "transfer.png")
    print(given.out / "transfer.png")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
