"""Gaussian process regression with a Matérn 5/2 kernel and noise, and batches of points by expected improvement.

C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2 and 5; equations are
numbered as there. All arrays are float64 on the CPU. They are padded to powers of two, so that a growing history
compiles few programs.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.scipy.linalg import cho_solve, cholesky, solve_triangular
from jax.scipy.special import ndtr

from hpjax.core.arrays import Floats

# The smallest padded number of observations.
SMALLEST = 64
# C. Hvarfner, E. O. Hellsten and L. Nardi, "Vanilla Bayesian Optimization Performs Great in High Dimensions", ICML
# 2024: a priori, lengths grow with the square root of the dimension, and the noise is small.
LENGTH_CENTER, LENGTH_SPREAD = math.sqrt(2), math.sqrt(3)
NOISE_CENTER, NOISE_SPREAD = -8.0, 3.0
JITTER = 1e-8
# No two points of a batch are nearer to each other than this.
APART = 0.01


class Seen(NamedTuple):
    """The observations.

    Attributes:
      x: the points, (n, columns).
      y: their scores, (n,), with mean about 0 and variance about 1.
      share: the factor of the noise variance for each, (n,): 1 / replicates.
      there: bool (n,), False for padding.
    """

    x: Any
    y: Any
    share: Any
    there: Any


class Hyper(NamedTuple):
    """The hyperparameters of the process, as natural logarithms.

    Attributes:
      lengths: the length of each group of columns, (groups,).
      noise: the noise variance of one replicate, ().
    """

    lengths: Any
    noise: Any


def padded(x: Floats, y: Floats, share: Floats) -> Seen:
    """Returns observations, padded to a power of two: see ``Seen`` for the arguments."""
    n = len(y)
    more = max(SMALLEST, 1 << (n - 1).bit_length()) - n
    arrays = (np.pad(x, ((0, more), (0, 0))), np.pad(y, (0, more)), np.pad(share, (0, more), constant_values=1.0))
    return Seen(*arrays, np.arange(n + more) < n)


def kernel(a: Any, b: Any) -> Any:
    """Returns the Matérn 5/2 covariances of two sets of points, equation 4.17.

    Args:
      a, b: points divided by their lengths, (n, columns) and (m, columns).

    Returns:
      (n, m).
    """
    squares = jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1)[None] - 2 * a @ b.T
    r = jnp.sqrt(5 * jnp.maximum(squares, 0) + 1e-20)  # never 0, where the derivative of the root is infinite
    return (1 + r + r**2 / 3) * jnp.exp(-r)


def _covariance(hyper: Hyper, seen: Seen, groups: Any) -> Any:
    """Returns the covariance of the observations, (n, n); padding has variance 1 and is independent of all others."""
    scaled = seen.x / jnp.exp(hyper.lengths)[groups][None]
    both = seen.there[:, None] & seen.there[None]
    diagonal = jnp.where(seen.there, 1 + jnp.exp(hyper.noise) * seen.share + JITTER, 1)
    at = jnp.arange(len(seen.y))
    return jnp.where(both, kernel(scaled, scaled), 0).at[at, at].set(diagonal)


def log_likelihood(hyper: Hyper, seen: Seen, groups: Any) -> Any:
    """Returns the log marginal likelihood, equation 5.8, ().

    Args:
      hyper: the hyperparameters.
      seen: the observations.
      groups: int (columns,), the index of each column's length.
    """
    return _log_density(_covariance(hyper, seen, groups), seen.y) - 0.5 * jnp.sum(seen.there) * math.log(2 * math.pi)


@jax.custom_vjp
def _log_density(covariance: Any, y: Any) -> Any:
    """Returns the log density of ``y`` under a normal distribution with mean 0, without the constant term."""
    return _log_density_forward(covariance, y)[0]


def _log_density_forward(covariance: Any, y: Any) -> Any:
    factor = cholesky(covariance, lower=True)
    weights = cho_solve((factor, True), y)
    return -0.5 * y @ weights - jnp.log(jnp.diagonal(factor)).sum(), (factor, weights)


def _log_density_backward(kept: Any, slope: Any) -> Any:
    """Returns the derivatives, equation 5.9. One inverse is cheaper than JAX's derivative of the Cholesky factor."""
    factor, weights = kept
    inverse = cho_solve((factor, True), jnp.eye(len(weights)))
    return slope * 0.5 * (weights[:, None] * weights[None] - inverse), -slope * weights


_log_density.defvjp(_log_density_forward, _log_density_backward)


def log_prior(hyper: Hyper) -> Any:
    """Returns the log prior density of the hyperparameters, up to a constant, ()."""
    center = LENGTH_CENTER + 0.5 * math.log(hyper.lengths.shape[-1])
    lengths = jnp.sum(((hyper.lengths - center) / LENGTH_SPREAD) ** 2)
    return -0.5 * (lengths + ((hyper.noise - NOISE_CENTER) / NOISE_SPREAD) ** 2)


@partial(jax.jit, static_argnames=("steps",))
def fit(starts: Hyper, seen: Seen, groups: Any, steps: int = 40) -> Hyper:
    """Returns the most probable hyperparameters that Adam finds from several starts.

    Args:
      starts: the starts, along a leading axis.
      seen, groups: as for ``log_likelihood``.
      steps: steps of Adam from each start.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(0.2, steps, 0.05))

    def loss(hyper: Hyper) -> Any:
        return -log_likelihood(hyper, seen, groups) - log_prior(hyper)

    def climb(start: Hyper) -> tuple[Hyper, Any]:
        def step(carry: Any, _: Any) -> Any:
            hyper, state = carry
            updates, state = optimizer.update(jax.grad(loss)(hyper), state, hyper)
            return (optax.apply_updates(hyper, updates), state), None

        (hyper, _), _ = lax.scan(step, (start, optimizer.init(start)), None, length=steps)
        return hyper, loss(hyper)

    found, losses = lax.map(climb, starts)
    best = jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))
    return Hyper(found.lengths[best], found.noise[best])


class Posterior(NamedTuple):
    """The posterior of the function at candidates, without noise.

    Attributes:
      mean: (m,).
      variance: (m,).
      solved: (n, m), the Cholesky factor's inverse times the covariances of observations and candidates, from which
        the posterior covariances of candidates follow.
    """

    mean: Any
    variance: Any
    solved: Any


def posterior(hyper: Hyper, seen: Seen, groups: Any, candidates: Any) -> Posterior:
    """Returns the posterior at ``candidates``, (m, columns): equations 2.25 and 2.26."""
    factor = cholesky(_covariance(hyper, seen, groups), lower=True)
    lengths = jnp.exp(hyper.lengths)[groups][None]
    across = jnp.where(seen.there[:, None], kernel(seen.x / lengths, candidates / lengths), 0)
    solved = solve_triangular(factor, across, lower=True)
    mean = solved.T @ solve_triangular(factor, seen.y, lower=True)
    return Posterior(mean, jnp.maximum(1 - jnp.sum(solved**2, 0), 1e-12), solved)


def _log_normal(z: Any) -> Any:
    """Returns the log density of the standard normal distribution. Importing ``jax.scipy.stats`` is slow."""
    return -(z**2) / 2 - math.log(2 * math.pi) / 2


def log_improvement(mean: Any, deviation: Any, best: Any) -> Any:
    """Returns the logarithm of the expected improvement below ``best``, accurate even where that is tiny.

    Args:
      mean, deviation: mean and standard deviation of the posterior, (m,).
      best: the lowest mean so far, ().

    S. Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization", NeurIPS 2023.
    """
    z = (best - mean) / deviation
    near = jnp.log(jnp.maximum(jnp.exp(_log_normal(z)) + z * ndtr(z), 1e-300))
    # Far below 0 the two terms of the sum cancel: there, the asymptotic series of the normal distribution.
    low = jnp.minimum(z, -5.0)
    far = _log_normal(low) - 2 * jnp.log(-low) + jnp.log1p(-3 / low**2 + 15 / low**4)
    return jnp.log(deviation) + jnp.where(z > -5, near, far)


@partial(jax.jit, static_argnames=("count",))
def propose(hyper: Hyper, seen: Seen, groups: Any, candidates: Any, count: int) -> Any:
    """Returns the indices of ``count`` candidates, best first, int64 (count,).

    Each has the highest expected improvement, given that those before it give their means: means stay as they are, and
    variances shrink around the chosen candidates, so that a batch spreads out (T. Desautels, A. Krause and J. W.
    Burdick, "Parallelizing Exploration-Exploitation Tradeoffs in Gaussian Process Bandit Optimization", JMLR 2014).

    Args:
      hyper, seen, groups: as for ``log_likelihood``.
      candidates: (m, columns).
      count: number of candidates to choose.
    """
    believed = posterior(hyper, seen, groups, jnp.concatenate([candidates, seen.x]))
    m = len(candidates)
    best = jnp.min(jnp.where(seen.there, believed.mean[m:], jnp.inf))
    mean, solved = believed.mean[:m], believed.solved[:, :m]
    scaled = candidates / jnp.exp(hyper.lengths)[groups][None]
    noise = jnp.exp(hyper.noise) + JITTER

    def choose(j: Any, carry: Any) -> Any:
        variance, rows, chosen, taken = carry
        gain = log_improvement(mean, jnp.sqrt(variance), best)
        i = jnp.argmax(jnp.where(taken, -jnp.inf, gain))
        # The posterior covariance of candidate i with all others, given what was chosen before: one row of a Cholesky
        # factor is added for each choice.
        covariance = kernel(scaled[i][None], scaled)[0] - solved[:, i] @ solved - rows[:, i] @ rows
        row = covariance / jnp.sqrt(jnp.maximum(variance[i], 0) + noise)
        variance = jnp.maximum(variance - row**2, 1e-12)
        near = jnp.sum((candidates - candidates[i][None]) ** 2, 1) < APART**2
        return variance, rows.at[j].set(row), chosen.at[j].set(i), taken | near

    start = (believed.variance[:m], jnp.zeros((count, m)), jnp.zeros(count, jnp.int64), jnp.zeros(m, bool))
    return lax.fori_loop(0, count, choose, start)[2]
