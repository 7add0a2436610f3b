"""The noisy quadratic model: how steps to a loss depend on the batch size, in closed form and as a program."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hpjax.core.arrays import Floats
from hpjax.core.errors import InputError, check_float, check_int
from hpjax.core.hparams import Hparams
from hpjax.core.program import Program

# Steps beyond which a target counts as never reached.
MOST = 2**40
TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class NoisyQuadratic:
    """A quadratic loss ½ Σ hᵢ θᵢ² with curvatures hᵢ = 1/i, whose gradients have noise of variance hᵢ/B.

    Curvatures are rounded down to a geometric grid, so that few of them differ. The iterate starts with θᵢ² = 1 and
    moves by SGD, or heavy-ball momentum as ``optax.sgd`` has it, on the gradient times hᵢ to the power −p.

    Args:
      dimensions: how many curvatures, K.
      distinct: how many differ at most, of geomspace(1, 1/K).
      power: p of the preconditioner h^−p; 0 is plain SGD, 0.5 much like Adam.
      momentum: of the heavy ball, in [0, 1).

    Raises:
      InputError: an argument outside its range.

    G. Zhang et al., "Which Algorithmic Choices Matter at Which Batch Sizes? Insights From a Noisy Quadratic Model",
    2019, arXiv 1907.04164.

    Example:
      >>> NoisyQuadratic(power=0.5).steps_to([4, 1024]).tolist()
      [345591.0, 1366.0]
    """

    dimensions: int = 10_000
    distinct: int = 100
    power: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        check_int("NoisyQuadratic.dimensions", self.dimensions)
        check_int("NoisyQuadratic.distinct", self.distinct, least=2)
        check_float("NoisyQuadratic.power", self.power, -np.inf)
        check_float("NoisyQuadratic.momentum", self.momentum, 0, remedy="Give a number in [0, 1).")
        if self.momentum >= 1:
            raise InputError("NoisyQuadratic.momentum", self.momentum, "must be below 1", "Give a number in [0, 1).")

    @cached_property
    def _spectrum(self) -> tuple[Floats, Floats]:
        """The distinct curvatures, from 1 down, and how many times each is there."""
        exact = 1 / np.arange(1, self.dimensions + 1)
        # Upwards, with ends that no rounding moves.
        grid = np.geomspace(1 / self.dimensions, 1, self.distinct)
        grid[0], grid[-1] = exact[-1], 1
        place = np.searchsorted(grid, exact, side="right") - 1
        values, counts = np.unique(place, return_counts=True)
        return grid[values[::-1]], counts[::-1].astype(float)

    @property
    def curvatures(self) -> Floats:
        """All of them, (dimensions,), from 1 down."""
        values, counts = self._spectrum
        return np.repeat(values, counts.astype(int))

    def loss(self, learning_rate: ArrayLike, batch_size: ArrayLike, steps: ArrayLike) -> Floats:
        """The expected loss after so many steps; the arguments broadcast. Infinite where it grows without bound.

        Raises:
          InputError: a learning rate or steps below 0, or a batch size that is not positive.
        """
        _at_least("NoisyQuadratic.loss.learning_rate", learning_rate, 0)
        _at_least("NoisyQuadratic.loss.batch_size", batch_size, TINY)
        _at_least("NoisyQuadratic.loss.steps", steps, 0)
        rate, size, steps = np.broadcast_arrays(*(np.asarray(a, float) for a in (learning_rate, batch_size, steps)))
        return self._moments(rate, size).loss(steps)

    def steps_to(
        self, batch_sizes: Sequence[int], target: float = 0.01, learning_rates: ArrayLike | None = None
    ) -> Floats:
        """Steps until the expected loss stays below a target, for each batch size, at the best learning rate.

        Args:
          batch_sizes: of each.
          target: the loss.
          learning_rates: those to choose from; by default logspace(−5, 0.5, 100).

        Returns:
          Float (batch sizes,): the last step at which the loss is the target or more, 1 at least, infinite where no
          learning rate gets below it.

        Raises:
          InputError: a batch size that is no positive integer, a target that is not positive, or no learning rate.
        """
        for size in batch_sizes:
            check_int("NoisyQuadratic.steps_to.batch_sizes", size)
        _at_least("NoisyQuadratic.steps_to.target", target, TINY)
        rates = (
            np.logspace(-5, 0.5, 100) if learning_rates is None else np.atleast_1d(np.asarray(learning_rates, float))
        )
        if not rates.size:
            allowed = "must not be empty"
            raise InputError("NoisyQuadratic.steps_to.learning_rates", learning_rates, allowed, "Leave it out.")
        _at_least("NoisyQuadratic.steps_to.learning_rates", rates, 0)
        return np.array([self._last_above(rates, size, target).min() for size in batch_sizes])

    def _last_above(self, rates: Floats, size: float, target: float) -> Floats:
        """For each learning rate, the last step at which the loss is ``target`` or more."""
        last = np.full(rates.shape, np.inf)
        moments = self._moments(rates, np.full(rates.shape, float(size)))
        settles = moments.settled < target
        moments = moments.at(settles)
        low, high = np.zeros(len(moments.limit)), np.full(len(moments.limit), float(MOST))
        while (high - low > 1).any():
            middle = np.floor((low + high) / 2)
            above = moments.bound(middle) >= target
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        # From there on the bound, and so the loss, is below; before that an oscillation may have it below as well.
        low = np.array([_last(moments.at(i), step, target) for i, step in enumerate(low)])
        last[settles] = np.where(low >= MOST - 1, np.inf, np.maximum(low, 1))
        return last

    def _moments(self, rate: Floats, size: Floats) -> "_Moments":
        h, counts = self._spectrum
        rate, noise = rate[..., None] * h**-self.power, h / size[..., None]
        of = _of_sgd(rate, noise, h) if self.momentum == 0 else _of_heavy_ball(rate, noise, h, self.momentum)
        return _Moments(h * counts / 2, *of)

    def program(self, steps: int, eval_every: int | None = None) -> Program:
        """The model as a program, whose ``valid/loss`` is ½ Σ hᵢ θᵢ²; of ``h.learning_rate`` and ``h.batch_size``.

        Both are traced. Replicates differ in their noise; with ``randomness="independent"`` trials do too.
        """
        h = jnp.asarray(self.curvatures, jnp.result_type(float))
        scale = h**-self.power

        def init(key: jax.Array, hparams: Hparams) -> Any:
            return {"theta": jnp.ones_like(h), "velocity": jnp.zeros_like(h)}

        def step(key: jax.Array, state: Any, batch: Any, hparams: Hparams) -> Any:
            noise = jnp.sqrt(h / hparams.batch_size) * jax.random.normal(key, h.shape, h.dtype)
            velocity = self.momentum * state["velocity"] + h * state["theta"] + noise
            theta = state["theta"] - hparams.learning_rate * scale * velocity
            return {"theta": theta, "velocity": velocity}, {}

        def evaluate(key: jax.Array, state: Any, split: Any, hparams: Hparams) -> Any:
            return {"loss": jnp.sum(h * state["theta"] ** 2) / 2}

        describe = {"kind": "noisy quadratic", "dimensions": self.dimensions, "power": self.power}
        return Program(init, step, evaluate, steps=steps, eval_every=eval_every, describe=describe)


def _at_least(name: str, values: ArrayLike, least: float) -> None:
    """Raises where one of the values is below ``least``, 0 or a hair above."""
    found = np.asarray(values, float)
    if not (found >= least).all():
        allowed = f"must be numbers {'above 0' if least else 'of 0 or more'}"
        raise InputError(name, found[~(found >= least)].ravel()[0].item(), allowed, "Leave the others out.")


class _Moments(NamedTuple):
    """The expected squares E θ² of each curvature after k steps: ``limit`` + Re Σ ``share`` · ``root``^k.

    Attributes:
      weight: (curvatures,), what each adds to the loss.
      limit: (..., curvatures), the stationary value; infinite where there is none.
      share, root: (..., curvatures, terms), real or complex.
    """

    weight: Floats
    limit: Floats
    share: Any
    root: Any

    @property
    def settled(self) -> Floats:
        """The expected loss in the end."""
        settled: Floats = np.sum(self.weight * self.limit, axis=-1)
        return settled

    def at(self, i: Any) -> "_Moments":
        """Those of an index, or several, of the first axis."""
        return self._replace(limit=self.limit[i], share=self.share[i], root=self.root[i])

    def loss(self, steps: Floats) -> Floats:
        """The expected loss after ``steps``, of the shape of the leading axes."""
        moved = np.real(np.sum(self.share * self.root ** steps[..., None, None], axis=-1))
        loss: Floats = np.sum(self.weight * (self.limit + moved), axis=-1)
        return loss

    def bound(self, steps: Floats) -> Floats:
        """No loss after ``steps`` or more is above it."""
        moved = np.sum(np.abs(self.share) * np.abs(self.root) ** steps[..., None, None], axis=-1)
        bound: Floats = np.sum(self.weight * (self.limit + moved), axis=-1)
        return bound


def _last(moments: _Moments, step: float, target: float) -> float:
    """The last step up to ``step`` at which the loss is ``target`` or more, or 0."""
    block = 8  # most often the bound is tight
    while step > 0:
        steps = np.arange(max(step - block, 0), step) + 1
        above = np.flatnonzero(moments.loss(steps) >= target)
        if above.size:
            return float(steps[above[-1]])
        step, block = step - block, min(2 * block, 1024)
    return 0.0


def _of_sgd(rate: Floats, noise: Floats, h: Floats) -> tuple[Floats, Floats, Floats]:
    """Limit, share and root of plain SGD, whose iterate shrinks by 1 − rate · h a step."""
    root = (1 - rate * h) ** 2
    stable = root < 1
    # With 1e-8, as the paper's own code has it, where a mode hardly moves.
    limit = np.where(stable, rate**2 * noise / (1 - np.where(stable, root, 0) + 1e-8), np.inf)
    return limit, np.where(stable, 1 - limit, 0)[..., None], np.where(stable, root, 0)[..., None]


def _of_heavy_ball(rate: Floats, noise: Floats, h: Floats, momentum: float) -> tuple[Floats, Any, Any]:
    """Limit, shares and roots of v ← βv + hθ + ε, θ ← θ − rate · v, from θ² = 1 and v = 0."""
    # The roots of the mean's recursion; a double one is split a little, so that the three terms stay apart.
    half = (1 - rate * h + momentum) / 2
    apart = half**2 - momentum
    apart = np.sqrt(np.where(np.abs(apart) < 1e-8, 1e-8, apart).astype(complex))
    first, second = half + apart, half - apart
    stable = (np.abs(first) < 1) & (np.abs(second) < 1)
    # The second moments E θ², E θv, E v² of one step from those of the one before.
    kept, n = 1 - rate * h, noise
    transition = np.stack(
        [
            np.stack(row, axis=-1)
            for row in (
                (kept**2, -2 * kept * rate * momentum, (rate * momentum) ** 2),
                (kept * h, (kept - rate * h) * momentum, -rate * momentum**2),
                np.broadcast_arrays(h**2 + 0 * rate, 2 * h * momentum, momentum**2),
            )
        ],
        axis=-2,
    )
    drive = np.stack([rate**2 * n, -rate * n, n], axis=-1)[..., None]
    system = np.where(stable[..., None, None], np.eye(3) - transition, np.eye(3))
    limit = np.linalg.solve(system, drive)
    off = np.array([1.0, 0, 0])[:, None] - limit
    firsts = np.stack([(np.linalg.matrix_power(transition, k) @ off)[..., 0, 0] for k in range(3)], axis=-1)
    root = np.stack([first**2, first * second, second**2], axis=-1)
    root = np.where(stable[..., None], root, np.arange(3) / 3)
    share = np.linalg.solve(root[..., None, :] ** np.arange(3)[:, None], firsts[..., None].astype(complex))[..., 0]
    settled = np.where(stable, limit[..., 0, 0], np.inf)
    return settled, np.where(stable[..., None], share, 0), root
