"""Diagnosis: sentences on what the curves of each trial say about its hyperparameters."""

from typing import NamedTuple

import numpy as np

from hpjax.core import html
from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError
from hpjax.results.store.rows import LOST, Status
from hpjax.results.table import TrialTable

# L. Prechelt, "Early Stopping — But When?", 1998: generalization loss above 5 %, the criterion GL₅.
OVERFIT = 1.05
# Thresholds of our own, for want of published ones. A trial is behind if its lowest training loss is twice that of the
# best trial. Its loss has not converged if it still falls by 10 % over the last quarter of the run. It oscillates if
# the training loss, a mean over the steps between two evaluations, rises at every third evaluation.
BEHIND, FALLING, RISING = 2.0, 0.9, 1 / 3
# Stanford CS231n, notes 3: updates should be about 1e-3 of the weights.
SMALL_UPDATE, LARGE_UPDATE = 1e-5, 1e-1
# R. Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013, define vanishing and
# exploding gradients. The thresholds are ours: a thousandth of the largest layer's norm, and a norm of a thousand.
VANISHING, EXPLODING = 1e-3, 1e3
# Stanford CS231n, notes 1: with too high a rate as much as 40 % of a network's ReLUs may be dead.
DEAD = 0.4
# What is not finite from the first evaluation on may never be.
UNDEFINED = (
    "It never was: the loss may be undefined for these data, as a mean is whose weights are all 0 or where one is "
    "below 0."
)
# How many layers a sentence names at most.
NAMED = 3


class Finding(NamedTuple):
    """One observation on the curves of a trial.

    Attributes:
      trial: the id of the trial.
      what: ``"failed"``, ``"diverged"``, ``"too slow"``, ``"oscillating"``, ``"overfitting"``, ``"underfitting"``,
        ``"vanishing gradients"``, ``"exploding gradients"`` or ``"dead units"``.
      sentence: what was seen, with its numbers, and what helps.
    """

    trial: int
    what: str
    sentence: str

    def __str__(self) -> str:
        return f"trial {self.trial}: {self.what}. {self.sentence}"

    def _repr_html_(self) -> str:
        return html.table(["trial", "finding", "what was seen"], [[str(self.trial), self.what, self.sentence]])


def diagnose(result: TrialTable) -> list[Finding]:
    """Returns what the curves of each trial show, by thresholds that this module names with their sources.

    Losses are averaged over replicates. Gradients, updates and dead units need ``supervised(monitor=...)``.

    Args:
      result: the result of a sweep whose program reports ``train/loss`` and ``valid/loss``, as ``supervised`` does.

    Returns:
      Findings in the order of the trials: any number per trial, none for a healthy one.

    Raises:
      InputError: ``result`` is no result.

    Example:
      >>> result = hpx.Sweep(program, space, trials=4).run(progress=False)
      >>> all(finding.trial < 4 for finding in diagnose(result))
      True
    """
    if not isinstance(result, TrialTable):
        remedy = "Write hpx.diagnose(sweep.run()) or hpx.diagnose(hpx.load(directory))."
        raise InputError("diagnose.result", result, "must be a result", remedy)
    return [Finding(trial, *found) for trial in range(len(result)) for found in _of(result, trial)]


def _of(result: TrialTable, trial: int) -> list[tuple[str, str]]:
    """Returns the findings of a trial, each as ``Finding.what`` and ``Finding.sentence``."""
    if trial in result.failures:
        return [("failed", result.failures[trial])]
    lost = result.lane_status[trial] == Status.DIVERGED
    if lost.any():
        step = int(result.lane_step[trial][lost].min())
        many = f"{int(lost.sum())} of {len(lost)} replicates were" if len(lost) > 1 else "A value was"
        sentence = f"{many} not finite at step {step}: lower the learning rate, or clip the gradients."
        never = all(np.isnan(result.curves(name)[trial][lost]).all() for name in result.metrics)
        return [("diverged", f"{sentence} {UNDEFINED}" if never else sentence)]
    found = [*_layers(result, trial)]
    if {"train/loss", "valid/loss"} <= set(result.metrics):
        train, valid = (_curve(result, name, trial) for name in ("train/loss", "valid/loss"))
        if len(train) > 0:
            found += _losses(train, valid, _best(result))
    return found


def _losses(train: Floats, valid: Floats, best: float) -> list[tuple[str, str]]:
    """Returns what the losses of a trial show.

    Args:
      train, valid: (evaluations,), the losses of the trial.
      best: the lowest training loss of all trials.
    """
    found = []
    quarter = max(len(train) // 4, 1)
    rose = float(np.mean(np.diff(train) > 0)) if len(train) > 3 else 0.0
    behind = train.min() > BEHIND * best > 0
    before = train[-1 - quarter] if len(train) > quarter else train[0]
    if rose > RISING and behind:
        found.append(
            ("oscillating", f"The training loss rose at {rose:.0%} of the evaluations: lower the learning rate.")
        )
    elif behind and train[-1] < FALLING * before:
        found.append(
            (
                "too slow",
                f"The training loss still fell from {before:.3g} to {train[-1]:.3g} over the last quarter: raise the "
                "learning rate, or train longer.",
            )
        )
    elif behind:
        found.append(
            (
                "underfitting",
                f"The training loss stays at {train.min():.3g}, where the best trial reaches {best:.3g}: use a larger "
                "model, or less regularization.",
            )
        )
    lowest = int(np.argmin(valid))
    if valid[-1] > OVERFIT * valid[lowest] > 0 and train[-1] < train[lowest]:
        found.append(
            (
                "overfitting",
                f"The validation loss rose from {valid[lowest]:.3g} to {valid[-1]:.3g} while the training loss fell to "
                f"{train[-1]:.3g}: stop early, or regularize.",
            )
        )
    return found


def _layers(result: TrialTable, trial: int) -> list[tuple[str, str]]:
    """Returns what the monitors of the layers of a trial show."""
    found = []
    # A gradient of zero is no vanishing one: a mask over the depth skips the layer, or all its units are dead.
    norms = {layer: norm for layer, norm in _by_layer(result, "gradient_norm", trial).items() if norm > 0}
    if norms:
        largest, smallest = max(norms, key=norms.__getitem__), min(norms, key=norms.__getitem__)
        if norms[largest] > EXPLODING:
            found.append(("exploding gradients", f"Their norm is {norms[largest]:.3g} in {largest}: clip them."))
        elif norms[smallest] < VANISHING * norms[largest]:
            found.append(
                (
                    "vanishing gradients",
                    f"Their norm is {norms[smallest]:.2g} in {smallest} and {norms[largest]:.2g} in {largest}: "
                    "normalize, use residual connections, or another initialization.",
                )
            )
    for layer, ratio in _by_layer(result, "update_ratio", trial).items():
        if ratio > LARGE_UPDATE:
            found.append(
                (
                    "oscillating",
                    f"Updates are {ratio:.2g} of the weights in {layer}, where 1e-3 is usual: lower the rate.",
                )
            )
            break
        if 0 < ratio < SMALL_UPDATE:
            found.append(
                ("too slow", f"Updates are {ratio:.2g} of the weights in {layer}, where 1e-3 is usual: raise the rate.")
            )
            break
    # Layers without any live unit come last, since a mask over the depth may skip them.
    dead = [(share, layer) for layer, share in _by_layer(result, "dead_units", trial).items() if share > DEAD]
    dead.sort(key=lambda each: (each[0] == 1, -each[0]))
    if dead:
        named = ", ".join(f"{share:.0%} of {layer}" for share, layer in dead[:NAMED])
        others = f" and of {len(dead) - NAMED} more layers" if len(dead) > NAMED else ""
        skipped = " A layer of which it is 100% may be one that a mask skips." if dead[-1][0] == 1 else ""
        seen = f"{named}{others} get no gradient: lower the learning rate, or use leaky units.{skipped}"
        found.append(("dead units", seen))
    return found


def _by_layer(result: TrialTable, monitor: str, trial: int) -> dict[str, float]:
    """Returns the last value of a monitor in each layer, by the layer's name."""
    prefix = f"train/{monitor}/"
    curves = {
        name.removeprefix(prefix): _curve(result, name, trial) for name in result.metrics if name.startswith(prefix)
    }
    return {layer: float(curve[-1]) for layer, curve in curves.items() if len(curve)}


def _curve(result: TrialTable, name: str, trial: int) -> Floats:
    """Returns a metric of a trial over the evaluations that all its replicates have, averaged: (evaluations,)."""
    values = result.curves(name)[trial]
    curve: Floats = values[:, ~np.isnan(values).any(axis=0)].mean(axis=0)
    return curve


def _best(result: TrialTable) -> float:
    """Returns the lowest training loss of any trial that did not diverge or fail, 0 if there is none."""
    values = result.curves("train/loss").mean(axis=1)[~np.isin(result.statuses, LOST)]
    return float(np.nanmin(values)) if np.isfinite(values).any() else 0.0
