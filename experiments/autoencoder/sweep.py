"""How does an autoencoder's error depend on its latent size and on noise in its inputs, and does it beat PCA?

python experiments/autoencoder/sweep.py [--out FOLDER] [--smoke]

Digits, encoded with and without an activation from inputs with and without noise, against the principal components:
without an activation these are the optimum on the training images (P. Baldi and K. Hornik, 1989), with noise shrunk.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import optax
from flax import linen as nn

import hpjax as hpx

MOST, HIDDEN = 32, 64


def identity(x):
    return x


class Autoencoder(nn.Module):
    latent: int
    activation: object

    @nn.compact
    def __call__(self, x):
        code = hpx.nn.Dense(MOST, self.latent)(self.activation(nn.Dense(HIDDEN)(x)))
        return nn.Dense(64)(self.activation(hpx.nn.Dense(HIDDEN, inputs=self.latent)(code)))


def noisy(key, batch, h):
    """The target stays clean."""
    return batch._replace(x=batch.x + h.noise * jax.random.normal(key, batch.x.shape))


digits = hpx.data.digits()
data = hpx.Data(*(split._replace(y=split.x) for split in (digits.train, digits.valid, digits.test)), name="digits")


def make(steps=2_000, latents=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32)):
    program = hpx.supervised(
        model=lambda h: Autoencoder(h.latent, h.activation),
        optimizer=lambda h: optax.adam(hpx.optim.cosine_decay_schedule(h.learning_rate, steps)),
        loss=hpx.metrics.squared_error,
        augment=noisy,
        data=data,
        batch_size=64,
        steps=steps,
        eval_every=steps // 4,
    )
    space = hpx.Space(
        latent=hpx.Choice(*latents),
        noise=hpx.Choice(0.0, 0.1, 0.2, 0.4),
        activation=hpx.Choice(identity, nn.gelu, select=True),
        learning_rate=hpx.Choice(1e-3, 4e-3),
    )
    return hpx.Sweep(program, space, sampler=hpx.Grid(), replicates=2)


sweep = make()


def linear_optimum(x, latent, noise):
    """The error on clean ``x`` of the linear autoencoder that is best on the training images with such noise.

    It keeps the largest principal components, each shrunk as by a Wiener filter; without noise it is PCA.
    """
    mean = data.train.x.mean(axis=0)
    _, singular, components = np.linalg.svd(data.train.x - mean, full_matrices=False)
    variance = singular[:latent] ** 2 / len(data.train.x)
    shrink = variance / (variance + noise**2)
    kept = components[:latent]
    return float(np.square(x - mean - (x - mean) @ kept.T * shrink @ kept).mean())


def best(result, noise, activation):
    """Of each latent size the trial with the lowest validation error."""
    found = {}
    for trial in result.top(len(result)):
        if (trial.hparams["noise"], trial.hparams["activation"]) == (noise, activation):
            found.setdefault(trial.hparams["latent"], trial)
    return [found[latent] for latent in sorted(found)]


def draw(latents, curves, optima, path):
    """The error on clean validation images against the latent size; a panel an activation, a line a level of noise."""
    import matplotlib.pyplot as plt

    from hpjax import plot

    with plt.rc_context(plot.STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(7.2, 3.4), layout="constrained", sharey=True)
        for panel, (title, lines) in zip(panels, curves.items(), strict=True):
            colors = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(lines)))
            for (noise, errors), color in zip(lines.items(), colors, strict=True):
                panel.plot(latents, errors, "o", color=color, markersize=3.5, label=f"noise {noise:g}")
                if title == "linear":
                    panel.plot(latents, optima[noise], "-", color=color, linewidth=1)
                else:
                    panel.plot(latents, errors, "-", color=color, linewidth=1)
            panel.plot(latents, optima[0.0], "--", color=plot.RED, linewidth=1.2, label="PCA")
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
            panel.set(xlabel="latent size", title=title)
        panels[0].set_title("linear (lines: theory)")
        panels[0].minorticks_off()
        panels[0].set_yticks([0.003, 0.01, 0.03], ["0.003", "0.01", "0.03"])
        panels[0].set_ylabel("error on clean validation images")
        panels[0].legend(frameon=False, fontsize=8)
        figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/autoencoder"), help="where run and figure go")
    parser.add_argument("--smoke", action="store_true", help="few steps, few latent sizes")
    given = parser.parse_args()
    hpx.setup()
    chosen = make(steps=200, latents=(1, 8, 32)) if given.smoke else sweep
    result = chosen.run(given.out / "run")
    columns = result.table()
    latents, noises = (sorted(set(columns[name].tolist())) for name in ("latent", "noise"))
    optima = {noise: [linear_optimum(data.valid.x, latent, noise) for latent in latents] for noise in noises}
    pca_on_train = [linear_optimum(data.train.x, latent, 0.0) for latent in latents]
    kinds = {"linear": "identity", "with GELU": "gelu"}
    trials = {kind: {noise: best(result, noise, name) for noise in noises} for kind, name in kinds.items()}
    curves = {
        kind: {noise: [trial.metrics["valid/loss"] for trial in line] for noise, line in lines.items()}
        for kind, lines in trials.items()
    }
    print("mean squared error on clean validation images, by latent size")
    print("                   ", *(f"{latent:8}" for latent in latents))
    for kind, lines in {"in theory": optima, **curves}.items():
        for noise, errors in lines.items():
            print(f"{kind:9}, noise {noise:3g}", *(f"{error:8.5f}" for error in errors))
    # The largest network takes the parameters of a smaller one, which have zeros around.
    plain = [{"params": trial.restore()["params"]} for trial in trials["linear"][0.0]]
    outputs = [Autoencoder(MOST, identity).apply(params, data.train.x) for params in plain]
    above = [np.square(x - data.train.x).mean() / error - 1 for x, error in zip(outputs, pca_on_train, strict=True)]
    print("linear without noise above PCA on the training images", *(f"{100 * share:+.2f}%" for share in above))
    draw(latents, curves, optima, given.out / "autoencoder.png")
    print(given.out / "autoencoder.png")


if __name__ == "__main__":
    main()
