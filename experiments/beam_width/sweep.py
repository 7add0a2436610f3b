"""How wide must a beam be to find the likeliest sentence, and does a likelier sentence have more letters right?

python experiments/beam_width/sweep.py [--out FOLDER] [--smoke]

Sentences of a random language come through a noisy channel; a model of both, learned from examples, reads them. Its
decoder searches with a beam, whose width is a hyperparameter of ``evaluate`` only; Viterbi's algorithm gives the
optimum.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hpjax as hpx

LETTERS, LENGTH, BATCH = 12, 24, 64
WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
WIDEST = max(WIDTHS)
OPTIMIZER = optax.adam(0.05)


def sentences(count, seed):
    """(count, LENGTH) letters; each depends on the one before, the first comes as if after letter 0."""
    odds = np.random.default_rng(0).dirichlet(np.full(LETTERS, 0.15), LETTERS)
    rng = np.random.default_rng(seed)
    written = np.zeros((count, LENGTH + 1), np.int32)
    for place in range(LENGTH):
        drawn = rng.random((count, 1)) > np.cumsum(odds, axis=1)[written[:, place]]
        written[:, place + 1] = np.minimum(drawn.sum(axis=1), LETTERS - 1)
    return written[:, 1:]


def channel(key, written, noise):
    """What is read of what was written: with probability ``noise`` any letter instead of the right one."""
    lost, other = jax.random.split(key)
    any_letter = jax.random.randint(other, written.shape, 0, LETTERS)
    return jnp.where(jax.random.bernoulli(lost, noise, written.shape), any_letter, written)


def init(key, h):
    # Logits of the next letter given the last one, and of the letter that is read given the one that was written.
    tables = {"next": jnp.zeros((LETTERS, LETTERS)), "read": jnp.zeros((LETTERS, LETTERS))}
    return tables, OPTIMIZER.init(tables)


def logs(tables):
    return jax.nn.log_softmax(tables["next"]), jax.nn.log_softmax(tables["read"])


def loss_of(tables, written, read):
    """−log p(written, read), a letter."""
    log_next, log_read = logs(tables)
    before = jnp.pad(written, ((0, 0), (1, 0)))[:, :-1]
    return -(log_next[before, written] + log_read[written, read]).mean()


def batch(key, step, train, h):
    return train[jax.random.randint(jax.random.fold_in(key, step), (BATCH,), 0, len(train))]


def step(key, state, written, h):
    tables, memory = state
    loss, slope = jax.value_and_grad(loss_of)(tables, written, channel(key, written, h.noise))
    updates, memory = OPTIMIZER.update(slope, memory)
    return (optax.apply_updates(tables, updates), memory), {"loss": loss}


def beam_search(log_next, evidence, width, merge):
    """The best sentence that a beam finds, and its log-probability.

    Args:
      log_next: (LETTERS, LETTERS), log p(next | last).
      evidence: (LENGTH, LETTERS), log p(read | written) of the letters that were read.
      width: how many beginnings are kept, at most WIDEST; may be traced.
      merge: whether of those that end in the same letter only the best one is.
    """
    places = jnp.arange(WIDEST)

    def grow(beams, at):
        scores, words = beams
        place, seen = at
        last = jnp.where(place == 0, 0, words[:, place - 1])
        grown = scores[:, None] + log_next[last] + seen
        second = places[:, None] != jnp.argmax(grown, axis=0)
        grown = jnp.where(merge & second, -jnp.inf, grown)
        scores, best = jax.lax.top_k(grown.reshape(-1), WIDEST)
        words = words[best // LETTERS].at[:, place].set(best % LETTERS)
        # Beams beyond the width are dropped, so that a wide program searches as a narrow one would.
        return (jnp.where(places < width, scores, -jnp.inf), words), None

    start = jnp.where(places == 0, 0.0, -jnp.inf), jnp.zeros((WIDEST, LENGTH), jnp.int32)
    (scores, words), _ = jax.lax.scan(grow, start, (jnp.arange(LENGTH), evidence))
    return scores[0], words[0]


def viterbi(log_next, evidence):
    """The best sentence of all, and its log-probability."""

    def forward(scores, seen):
        grown = scores[:, None] + log_next + seen
        return grown.max(axis=0), jnp.argmax(grown, axis=0)

    def backward(letter, came_from):
        return came_from[letter], letter

    first = log_next[0] + evidence[0]
    scores, came_from = jax.lax.scan(forward, first, evidence[1:])
    begin, rest = jax.lax.scan(backward, jnp.argmax(scores), came_from, reverse=True)
    return scores.max(), jnp.concatenate([begin[None], rest])


def evaluate(key, state, written, h):
    read = channel(key, written, h.noise)
    log_next, log_read = logs(state[0])
    evidence = log_read.T[read]
    found, words = jax.vmap(lambda seen: beam_search(log_next, seen, h.width, h.merge))(evidence)
    most, optimal = jax.vmap(lambda seen: viterbi(log_next, seen))(evidence)
    return {
        "loss": loss_of(state[0], written, read),
        "short": (most - found).mean(),
        "exact": (found > most - 1e-3).mean(),
        "accuracy": (words == written).mean(),
        "accuracy_of_optimum": (optimal == written).mean(),
        "read_right": (read == written).mean(),
    }


def make(steps=500, examples=1_000):
    data = hpx.Data(sentences(8_000, seed=1), sentences(examples, seed=2), name="sentences")
    program = hpx.Program(init, step, evaluate, data, batch, steps=steps)
    space = hpx.Space(noise=hpx.Choice(0.2, 0.4, 0.6), merge=hpx.Choice(False, True), width=hpx.Choice(*WIDTHS))
    return hpx.Sweep(program, space, sampler=hpx.Grid(), objective=hpx.minimize("valid/short"))


sweep = make()


def curves(columns, name):
    """(noise, merge, the metric of all widths), for each pair of these two."""
    for noise in np.unique(columns["noise"]):
        for merge in (False, True):
            yield noise, merge, columns[name][(columns["noise"] == noise) & (columns["merge"] == merge)]


def draw(columns, path):
    """How much likelier the optimum is, and the share of right letters, against the width."""
    import matplotlib.pyplot as plt

    from hpjax import plot

    colors = dict(zip(np.unique(columns["noise"]), (plot.BLUE, plot.ORANGE, plot.RED), strict=True))
    with plt.rc_context(plot.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
        for panel, name in ((left, "short"), (right, "accuracy")):
            for noise, merge, values in curves(columns, f"valid/{name}"):
                style = "s:" if merge else "o-"
                panel.plot(WIDTHS, values, style, color=colors[noise], markersize=3.5, linewidth=1.2)
        for noise, color in colors.items():
            optimum = columns["valid/accuracy_of_optimum"][columns["noise"] == noise][0]
            right.axhline(optimum, color=color, linestyle="--", linewidth=0.8)
            left.plot([], [], "-", color=color, label=f"noise {noise:g}")
        left.plot([], [], "o-", color=plot.GREY, markersize=3.5, label="plain beam")
        left.plot([], [], "s:", color=plot.GREY, markersize=3.5, label="merging")
        left.legend(frameon=False, fontsize=8)
        right.plot([], [], "--", color=plot.GREY, linewidth=0.8, label="optimum, by Viterbi")
        right.legend(frameon=False, fontsize=8)
        left.set(ylabel="short of the optimum, nats a sentence")
        right.set(ylabel="share of letters that are right")
        for panel in (left, right):
            panel.set_xscale("log", base=2)
            panel.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
            panel.set_xlabel("beam width")
        figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/beam_width"), help="where run and figure go")
    parser.add_argument("--smoke", action="store_true", help="few steps, few sentences")
    given = parser.parse_args()
    hpx.setup()
    chosen = make(steps=50, examples=50) if given.smoke else sweep
    columns = chosen.run(given.out / "run").table()
    told = {"short": "nats short of the optimum", "exact": "optima found", "accuracy": "letters right"}
    for name, what in told.items():
        print(f"{what + ', by width':36}", *(f"{width:6}" for width in WIDTHS))
        for noise, merge, values in curves(columns, f"valid/{name}"):
            print(f"noise {noise:g}, {'merging' if merge else 'plain beam':25}", *(f"{value:6.3f}" for value in values))
    for noise in np.unique(columns["noise"]):
        first = np.flatnonzero(columns["noise"] == noise)[0]
        read, optimum = (columns[f"valid/{name}"][first] for name in ("read_right", "accuracy_of_optimum"))
        print(f"noise {noise:g}: right in what was read {read:.3f}, in the optimum {optimum:.3f}")
    draw(columns, given.out / "beam_width.png")
    print(given.out / "beam_width.png")


if __name__ == "__main__":
    main()
