"""Does clipping gradients widen the range of learning rates that train a recurrent net, and more for long sequences?

python experiments/rnn_clipping/sweep.py [--out FOLDER] [--smoke]

The temporal order problem of R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural
networks", ICML 2013: two symbols, far apart among distractors, decide the class at the end. Plain tanh network, SGD.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx

SYMBOLS, CLASSES, UNITS, BATCH, EXAMPLES = 6, 4, 32, 20, 500
SOLVED = 0.05  # the error of one that is trained; guessing has 0.75
BLOWN_UP = 1.1 * np.log(CLASSES)  # a loss clearly above that of guessing


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        # Small inputs, as in the paper: tanh stays nearly linear, and the orthogonal matrix remembers.
        cell = nn.SimpleCell(UNITS, kernel_init=nn.initializers.normal(0.1), recurrent_kernel_init=hpx.nn.orthogonal)
        return nn.Dense(CLASSES)(nn.RNN(cell)(x)[:, -1])


MODEL = Recurrent()


def sequences(key, count, length):
    """Distractors 2 … 5, but a symbol of 0 and 1 in the second tenth, and another in the fifth: which are they?"""
    keys = jax.random.split(key, 4)
    text = jax.random.randint(keys[0], (count, length), 2, SYMBOLS)
    symbols = jax.random.randint(keys[1], (2, count), 0, 2)
    tenth = length // 10
    for key, start, symbol in zip(keys[2:], (tenth, 4 * tenth), symbols, strict=True):
        text = text.at[jnp.arange(count), jax.random.randint(key, (count,), start, start + tenth)].set(symbol)
    return jax.nn.one_hot(text, SYMBOLS), 2 * symbols[0] + symbols[1]


def optimizer(h):
    return optax.chain(optax.clip_by_global_norm(h.clip), optax.sgd(h.learning_rate))


def init(key, h):
    params = MODEL.init(key, jnp.zeros((1, 1, SYMBOLS)))
    return params, optimizer(h).init(params)


def batch(key, step, train, h):
    return sequences(jax.random.fold_in(key, step), BATCH, h.length)


def loss_of(params, x, y):
    logits = MODEL.apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), (logits.argmax(-1) != y).mean()


def step(key, state, batch, h):
    params, memory = state
    (loss, _), slope = jax.value_and_grad(loss_of, has_aux=True)(params, *batch)
    updates, memory = optimizer(h).update(slope, memory, params)
    return (optax.apply_updates(params, updates), memory), {"loss": loss}


def evaluate(key, state, split, h):
    loss, error = loss_of(state[0], *sequences(key, EXAMPLES, h.length))
    return {"loss": loss, "error": error}


def make(steps=2_000, lengths=(10, 20, 40), replicates=2):
    program = hpx.Program(init, step, evaluate, batch=batch, steps=steps, eval_every=steps // 5)
    space = hpx.Space(
        length=hpx.Choice(*lengths),
        clip=hpx.Choice(0.1, 1.0, 10.0, float("inf")),
        learning_rate=hpx.LogUniform(1e-4, 10, num=11),
    )
    return hpx.Sweep(program, space, sampler=hpx.Grid(), replicates=replicates, objective=hpx.minimize("valid/error"))


sweep = make()


def grids(result):
    """Of each length the error and the loss at the end: (clip norms, rates, replicates), both rising."""
    axes, trials = result.grid("length", "clip", "learning_rate")
    # NaN where a lane diverged counts as infinite.
    return *axes, *(np.nan_to_num(result.last(f"valid/{name}")[trials], nan=np.inf) for name in ("error", "loss"))


def draw(found, path):
    """A map of the error for each length, crosses where the loss blew up; and the range of rates that train."""
    import matplotlib.pyplot as plt

    from hpjax import plot

    lengths, clips, rates, errors, losses = found
    names = [f"{clip:g}" if np.isfinite(clip) else "none" for clip in clips]
    trained, blown = (errors < SOLVED).mean(axis=(2, 3)), (losses > BLOWN_UP).mean(axis=(2, 3))
    with plt.rc_context(plot.STYLE):
        figure, panels = plt.subplots(2, 2, figsize=(7.4, 5.4), layout="constrained")
        maps = list(panels.flat)[: len(lengths)]
        for panel, length, error, loss in zip(maps, lengths, errors, losses, strict=True):
            shown = panel.imshow(
                error.mean(axis=-1), origin="lower", aspect="auto", cmap="cividis_r", vmin=0, vmax=1 - 1 / CLASSES
            )
            rows, columns = np.nonzero((loss > BLOWN_UP).all(axis=-1))
            panel.plot(columns, rows, "x", color=plot.ORANGE, markersize=5)
            decades = [at for at, rate in enumerate(rates) if np.isclose(np.log10(rate) % 1, 0, atol=1e-3)]
            panel.set_xticks(decades, [f"{rates[at]:g}" for at in decades], fontsize=8)
            panel.set_yticks(range(len(clips)), names)
            panel.grid(False)
            panel.set(title=f"sequences of {length}", xlabel="learning rate", ylabel="clip norm")
        figure.colorbar(shown, ax=panels, label="error at the end (×: loss blown up)", shrink=0.7)
        last, *unused = list(panels.flat)[len(lengths) :]
        for panel in unused:
            panel.set_visible(False)
        for length, share, lost, color in zip(
            lengths, trained, blown, (plot.BLUE, plot.ORANGE, plot.RED), strict=False
        ):
            last.plot(share, "o-", color=color, markersize=4, label=f"length {length}")
            last.plot(lost, "x:", color=color, markersize=4, linewidth=1)
        last.plot([], [], "o-", color=plot.GREY, markersize=4, label="trained")
        last.plot([], [], "x:", color=plot.GREY, markersize=4, label="blown up")
        last.set_xticks(range(len(clips)), names)
        last.set(xlabel="clip norm", ylabel="share of all learning rates", ylim=(0, 1))
        last.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
        figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/rnn_clipping"), help="where run and figure go")
    parser.add_argument("--smoke", action="store_true", help="few steps, short sequences only")
    given = parser.parse_args()
    hpx.setup()
    chosen = make(steps=100, lengths=(10, 20), replicates=1) if given.smoke else sweep
    found = grids(chosen.run(given.out / "run"))
    print("length  clip  trained  stuck  blown up   rates that train all replicates")
    lengths, clips, rates, errors, losses = found
    for length, *rows in zip(lengths, errors, losses, strict=True):
        for clip, error, loss in zip(clips, *rows, strict=True):
            trained, blown = error < SOLVED, loss > BLOWN_UP
            stuck = ~trained & ~blown
            good = ", ".join(f"{rate:.2g}" for rate, all_of in zip(rates, trained.all(axis=-1), strict=True) if all_of)
            print(f"{length:6}  {clip:4g}  {trained.mean():7.0%}  {stuck.mean():5.0%}  {blown.mean():8.0%}   {good}")
    draw(found, given.out / "rnn_clipping.png")
    print(given.out / "rnn_clipping.png")


if __name__ == "__main__":
    main()
