"""How rough is the boundary between learning rates that train a network and those at which it diverges?

python experiments/trainability_fractal/sweep.py [--size 512] [--out FOLDER] [--smoke]

A network each pixel: tanh, one hidden layer, full batches, one learning rate for the input layer and one for the output
layer. J. Sohl-Dickstein, "The boundary of neural network trainability is fractal", arXiv:2402.06184, 2024.
"""

import argparse
import resource
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import hpjax as hpx

WIDTH = 8
STEPS, LAST = 100, 20
MOST = 1e6  # of the initial loss; what is more, or no number, counts as this

# As many random examples as the network has parameters.
_numbers = np.random.default_rng(0)
EXAMPLES = WIDTH * WIDTH + WIDTH
X, Y = (_numbers.normal(size=shape).astype(np.float32) for shape in ((WIDTH, EXAMPLES), (EXAMPLES,)))


def loss(weights):
    """The mean squared error of a network in mean-field parameterization."""
    hidden = jnp.tanh((2 / WIDTH) ** 0.5 * weights["input"] @ X)
    return jnp.mean((weights["output"] @ hidden / WIDTH - Y) ** 2)


def relative(value, first):
    """A loss as a share of the initial one, always a number, so that trials that diverge are complete, too."""
    return jnp.nan_to_num(jnp.clip(value / first, 1 / MOST, MOST), nan=MOST)


def init(key, h):
    first, second = jax.random.split(key)
    weights = {"input": jax.random.normal(first, (WIDTH, WIDTH)), "output": jax.random.normal(second, (WIDTH,))}
    return {"weights": weights, "first": loss(weights)}


def step(key, state, batch, h):
    value, slopes = jax.value_and_grad(loss)(state["weights"])
    rates = {"input": h.input_rate, "output": h.output_rate}
    weights = jax.tree.map(lambda w, slope, rate: w - rate * slope, state["weights"], slopes, rates)
    share = relative(value, state["first"])
    return {"weights": weights, "first": state["first"]}, {"loss": share, "inverse": 1 / share}


def evaluate(key, state, split, h):
    return {"loss": relative(loss(state["weights"]), state["first"])}


# Metrics of steps are means since the last evaluation: the last one is of the last 20 steps.
program = hpx.Program(init, step, evaluate, steps=STEPS, eval_every=LAST)


def sweep_of(size, window):
    """A sweep over ``size`` times ``size`` learning rates between the ends that ``window`` names."""
    axes = {name: hpx.LogUniform(*ends, num=size) for name, ends in window.items()}
    # At the boundary the last bits decide, which belong to a width.
    return hpx.Sweep(program, hpx.Space(**axes), sampler=hpx.Grid(), width=64)


WINDOWS = {
    "overview": {"output_rate": (1.0, 1e3), "input_rate": (1.0, 1e5)},
    "zoom": {"output_rate": (38.0, 41.7), "input_rate": (39.8, 43.7)},
}


def boundary(converged):
    """Where four neighbours do not agree, as bool (size, size)."""
    corners = converged[:-1, :-1], converged[:-1, 1:], converged[1:, :-1], converged[1:, 1:]
    return np.pad(np.any(corners, axis=0) & ~np.all(corners, axis=0), (0, 1))


def boxes(edge):
    """Sides of boxes, 1, 2, 4, … pixels up to an eighth of the picture, and how many hold some of the boundary."""
    sides = 2 ** np.arange(np.log2(len(edge) / 8) + 1, dtype=int)
    cut = (edge.reshape(len(edge) // side, side, len(edge) // side, side) for side in sides)
    return sides, np.array([part.any(axis=(1, 3)).sum() for part in cut])


def dimension(sides, counts):
    """The box-counting dimension: minus the slope, by least squares, of log counts against log sides."""
    return -np.polyfit(np.log(sides), np.log(counts), 1)[0]


def read(result):
    """Which networks converged; and how fast, as ranks from 0, fast, to 1 among these, and among those that did not."""
    trials = result.grid("output_rate", "input_rate")[1]
    loss, inverse = (result.curves(f"train/{name}")[trials, 0] for name in ("loss", "inverse"))
    converged = loss[..., -1] < 1
    speed = np.where(converged, loss.sum(-1), inverse.sum(-1))
    for side in (converged, ~converged):
        speed[side] = speed[side].argsort().argsort() / max(side.sum(), 1)
    return converged, speed


def draw(found, path):
    """A picture a window, and how many boxes the boundaries need."""
    import matplotlib.pyplot as plt

    from hpjax import plot

    with plt.rc_context(plot.STYLE | {"axes.grid": False}):
        figure, panels = plt.subplots(1, len(found) + 1, figsize=(3.4 * (len(found) + 1), 3.4), layout="constrained")
        for (name, (converged, speed, _)), panel in zip(found.items(), panels, strict=False):
            (bottom, top), (left, right) = (np.log10(WINDOWS[name][axis]) for axis in ("output_rate", "input_rate"))
            shade = (1 - 0.75 * speed) * np.where(converged, 1, -1)
            where = {"extent": (left, right, bottom, top), "origin": "lower", "aspect": "auto"}
            panel.imshow(shade, cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest", **where)
            panel.locator_params(nbins=5)
            panel.set(xlabel="log₁₀ rate of the input layer", ylabel="log₁₀ rate of the output layer", title=name)
        for (name, (*_, (sides, counts))), color in zip(found.items(), (plot.BLUE, plot.ORANGE), strict=True):
            label = f"{name}: {dimension(sides, counts):.2f}"
            panels[-1].loglog(sides, counts, "o-", color=color, markersize=4, label=label)
        panels[-1].set(xlabel="side of a box, pixels", ylabel="boxes with boundary", title="box-counting dimension")
        panels[-1].set_xticks(sides, sides)
        panels[-1].minorticks_off()
        panels[-1].legend(frameon=False)
        middle = [np.log10(WINDOWS["zoom"][axis]).mean() for axis in ("input_rate", "output_rate")]
        panels[0].plot(*middle, "s", markersize=9, markerfacecolor="none", markeredgecolor="black")
        figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="pixels a side, a power of two")
    parser.add_argument("--out", type=Path, default=Path("runs/trainability_fractal"), help="where runs and figure go")
    parser.add_argument("--smoke", action="store_true", help="32 pixels a side")
    given = parser.parse_args()
    hpx.setup()
    size = 32 if given.smoke else given.size
    found = {}
    for name, window in WINDOWS.items():
        result = sweep_of(size, window).run(given.out / f"{name}-{size}")
        converged, speed = read(result)
        found[name] = converged, speed, boxes(boundary(converged))
        sides, counts = found[name][-1]
        print(f"\n{name}: {len(result):,} networks, of which {converged.mean():.1%} converged")
        print("  side of a box  " + "".join(f"{side:>8}" for side in sides))
        print("  boxes          " + "".join(f"{count:>8,}" for count in counts))
        print(f"  box-counting dimension {dimension(sides, counts):.2f}\n")
    across, down = np.indices((size, size)) / size - 0.5
    print(f"a circle on such a grid: dimension {dimension(*boxes(boundary(np.hypot(across, down) < 0.4))):.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"peak memory {peak / 2**30:.2f} GiB")
    draw(found, given.out / "trainability_fractal.png")
    print(given.out / "trainability_fractal.png")


if __name__ == "__main__":
    main()
