"""The noisy quadratic model, in which steps to a target loss are known in closed form for every batch size."""

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

# A target that is not reached within so many steps counts as never reached.
MOST = 2**40
TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class NoisyQuadratic:
    """The quadratic loss ½ Σ hᵢ θᵢ² with curvatures hᵢ = 1/i and gradient noise of variance hᵢ/B at batch size B.

    Curvatures are rounded down to a geometric grid, so that only few values occur. The iterate starts at θᵢ = 1. It
    moves by SGD, or by heavy-ball momentum in the form of ``optax.sgd``, with the gradient multiplied by hᵢ^−p.

    Args:
      dimensions: the number K of curvatures.
      distinct: the size of the grid, geomspace(1, 1/K).
      power: p of the preconditioner h^−p; 0 is plain SGD, 0.5 is much like Adam.
      momentum: the momentum of the heavy ball, in [0, 1).

    Raises:
      InputError: an argument is outside of its range.

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
        for name, checked in (
            ("dimensions", check_int("NoisyQuadratic.dimensions", self.dimensions)),
            ("distinct", check_int("NoisyQuadratic.distinct", self.distinct, least=2)),
            ("power", check_float("NoisyQuadratic.power", self.power, -np.inf, remedy="Write power=0.5.")),
            ("momentum", check_float("NoisyQuadratic.momentum", self.momentum, 0, remedy="Write momentum=0.9.")),
        ):
            object.__setattr__(self, name, checked)
        if self.momentum >= 1:
            raise InputError("NoisyQuadratic.momentum", self.momentum, "must be below 1", "Write momentum=0.9.")

    @cached_property
    def _spectrum(self) -> tuple[Floats, Floats]:
        """The distinct curvatures, from 1 down, and how often each occurs."""
        exact = 1 / np.arange(1, self.dimensions + 1)
        # Ascending, with exact ends, so that searchsorted finds the curvatures at the ends.
        grid = np.geomspace(1 / self.dimensions, 1, self.distinct)
        grid[0], grid[-1] = exact[-1], 1
        place = np.searchsorted(grid, exact, side="right") - 1
        values, counts = np.unique(place, return_counts=True)
        return grid[values[::-1]], counts[::-1].astype(float)

    @property
    def curvatures(self) -> Floats:
        """All curvatures, (dimensions,), from 1 down."""
        values, counts = self._spectrum
        return np.repeat(values, counts.astype(int))

    def loss(self, learning_rate: ArrayLike, batch_size: ArrayLike, steps: ArrayLike) -> Floats:
        """Returns the expected loss after some steps, infinite at a learning rate at which it grows without bound.

        Args:
          learning_rate: 0 or more.
          batch_size: the batch size in examples, above 0.
          steps: 0 or more; the three arguments are broadcast.

        Returns:
          Float, of the broadcast shape.

        Raises:
          InputError: an argument is outside of its range.

        Example:
          >>> NoisyQuadratic(dimensions=100).loss(0.5, [8, 64], 1000).round(4).tolist()
          [0.0876, 0.011]
        """
        _at_least("NoisyQuadratic.loss.learning_rate", learning_rate, 0)
        _at_least("NoisyQuadratic.loss.batch_size", batch_size, TINY)
        _at_least("NoisyQuadratic.loss.steps", steps, 0)
        rate, size, steps = np.broadcast_arrays(*(np.asarray(a, float) for a in (learning_rate, batch_size, steps)))
        return self._moments(rate, size).loss(steps)

    def steps_to(
        self, batch_sizes: Sequence[int], target: float = 0.01, learning_rates: ArrayLike | None = None
    ) -> Floats:
        """Returns the steps until the expected loss stays below a target, for each batch size at its best rate.

        Args:
          batch_sizes: the batch sizes, in examples.
          target: a loss above 0.
          learning_rates: the learning rates to choose from; by default logspace(−5, 0.5, 100).

        Returns:
          Float (batch sizes,): the last step at which the loss is not below the target, at least 1; infinite if there
          is no such step at any learning rate.

        Raises:
          InputError: a batch size is no whole number above 0, the target is not positive, or no learning rate is given.

        Example:
          >>> NoisyQuadratic(power=0.5).steps_to([4, 1024], target=0.01).tolist()
          [345591.0, 1366.0]
        """
        for size in batch_sizes:
            check_int("NoisyQuadratic.steps_to.batch_sizes", size)
        _at_least("NoisyQuadratic.steps_to.target", target, TINY)
        rates = (
            np.logspace(-5, 0.5, 100) if learning_rates is None else np.atleast_1d(np.asarray(learning_rates, float))
        )
        if not rates.size:
            allowed = "must not be empty"
            raise InputError(
                "NoisyQuadratic.steps_to.learning_rates", learning_rates, allowed, "Write learning_rates=[0.1, 1.0]."
            )
        _at_least("NoisyQuadratic.steps_to.learning_rates", rates, 0)
        return np.array([self._last_above(rates, size, target).min() for size in batch_sizes])

    def _last_above(self, rates: Floats, size: float, target: float) -> Floats:
        """Returns for each learning rate the last step at which the loss is ``target`` or more; infinite if none is."""
        last = np.full(rates.shape, np.inf)
        moments = self._moments(rates, np.full(rates.shape, float(size)))
        settles = moments.settled < target
        moments = moments.at(settles)
        low, high = np.zeros(len(moments.limit)), np.full(len(moments.limit), float(MOST))
        while (high - low > 1).any():
            middle = np.floor((low + high) / 2)
            above = moments.bound(middle) >= target
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        # After ``low`` the bound, and so the loss, is below the target. Momentum makes the loss oscillate, so that it
        # may be below before ``low`` as well: the loss itself is searched backwards from there.
        low = np.array([_last(moments.at(i), step, target) for i, step in enumerate(low)])
        last[settles] = np.where(low >= MOST - 1, np.inf, np.maximum(low, 1))
        return last

    def _moments(self, rate: Floats, size: Floats) -> "_Moments":
        h, counts = self._spectrum
        rate, noise = rate[..., None] * h**-self.power, h / size[..., None]
        of = _of_sgd(rate, noise, h) if self.momentum == 0 else _of_heavy_ball(rate, noise, h, self.momentum)
        return _Moments(h * counts / 2, *of)

    def program(self, steps: int, eval_every: int | None = None) -> Program:
        """Returns the model as a program that reads ``h.learning_rate`` and ``h.batch_size``; both are traced.

        Its ``valid/loss`` is ½ Σ hᵢ θᵢ². Replicates differ in their noise, and with ``randomness="independent"`` trials
        do too.

        Args:
          steps: optimizer steps of a trial.
          eval_every: steps between evaluations; None evaluates at the end only.

        Example:
          >>> space = hpx.Space(learning_rate=0.5, batch_size=64)
          >>> sweep = hpx.Sweep(NoisyQuadratic(dimensions=100).program(steps=1000), space, trials=1, replicates=4)
          >>> sweep.run(progress=False).curves("valid/loss").shape
          (1, 4, 1)
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
    """Raises if a value is below ``least``, which is 0, or ``TINY`` for values that must be above 0."""
    found = np.asarray(values, float)
    below = found[~(found >= least)]  # with NaN among them
    if below.size:
        allowed = f"must be numbers {'above 0' if least else 'of 0 or more'}"
        raise InputError(name, below[0].item(), allowed, f"Write {name.split('.')[-1]}=1, or leave {below[0]:g} out.")


class _Moments(NamedTuple):
    """The expected squares E θ² after k steps, for each curvature: ``limit`` + Re Σ ``share`` · ``root``^k.

    Attributes:
      weight: (curvatures,), the factor of each E θ² in the loss.
      limit: (..., curvatures), the stationary value, infinite if there is none.
      share, root: (..., curvatures, terms), real or complex.
    """

    weight: Floats
    limit: Floats
    share: Any
    root: Any

    @property
    def settled(self) -> Floats:
        """The stationary expected loss, of the shape of the leading axes."""
        settled: Floats = np.sum(self.weight * self.limit, axis=-1)
        return settled

    def at(self, i: Any) -> "_Moments":
        """Returns the moments at an index of the first axis, or at several."""
        return self._replace(limit=self.limit[i], share=self.share[i], root=self.root[i])

    def loss(self, steps: Floats) -> Floats:
        """Returns the expected loss after ``steps``, of the shape of the leading axes."""
        moved = np.real(np.sum(self.share * self.root ** steps[..., None, None], axis=-1))
        loss: Floats = np.sum(self.weight * (self.limit + moved), axis=-1)
        return loss

    def bound(self, steps: Floats) -> Floats:
        """Returns an upper bound of the loss after ``steps`` and at all later steps."""
        moved = np.sum(np.abs(self.share) * np.abs(self.root) ** steps[..., None, None], axis=-1)
        bound: Floats = np.sum(self.weight * (self.limit + moved), axis=-1)
        return bound


def _last(moments: _Moments, step: float, target: float) -> float:
    """Returns the last step up to ``step`` at which the loss is ``target`` or more, or 0."""
    block = 8  # the bound is tight most often, so that few steps suffice
    while step > 0:
        steps = np.arange(max(step - block, 0), step) + 1
        above = np.flatnonzero(moments.loss(steps) >= target)
        if above.size:
            return float(steps[above[-1]])
        step, block = step - block, min(2 * block, 1024)
    return 0.0


def _of_sgd(rate: Floats, noise: Floats, h: Floats) -> tuple[Floats, Floats, Floats]:
    """Returns limit, share and root of plain SGD, whose expected iterate is multiplied by 1 − rate · h at each step."""
    root = (1 - rate * h) ** 2
    stable = root < 1
    # The paper's code adds this 1e-8, which matters for modes that hardly move; its published numbers depend on it.
    limit = np.where(stable, rate**2 * noise / (1 - np.where(stable, root, 0) + 1e-8), np.inf)
    return limit, np.where(stable, 1 - limit, 0)[..., None], np.where(stable, root, 0)[..., None]


def _of_heavy_ball(rate: Floats, noise: Floats, h: Floats, momentum: float) -> tuple[Floats, Any, Any]:
    """Returns limit, shares and roots of v ← βv + hθ + ε, θ ← θ − rate · v, from θ² = 1 and v = 0."""
    # The roots of the recursion of the mean. A double root is split a little, since the system for the shares would be
    # singular.
    half = (1 - rate * h + momentum) / 2
    apart = half**2 - momentum
    apart = np.sqrt(np.where(np.abs(apart) < 1e-8, 1e-8, apart).astype(complex))
    first, second = half + apart, half - apart
    stable = (np.abs(first) < 1) & (np.abs(second) < 1)
    # The matrix that gives the second moments E θ², E θv, E v² of a step from those of the step before.
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
