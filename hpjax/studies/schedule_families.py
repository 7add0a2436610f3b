"""Families of learning-rate schedules: a function of the step and of hyperparameters, and a space of these."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.arrays import Floats
from hpjax.core.domains import Domain
from hpjax.core.errors import InputError, check_int, did_you_mean
from hpjax.core.hparams import Hparams
from hpjax.core.intervals import LogUniform, Uniform
from hpjax.core.space import Space
from hpjax.optim import (
    piecewise_linear_schedule,
    smooth_nonmonotonic_schedule,
    spline_schedule,
    two_point_linear_schedule,
    two_point_spline_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_rex_decay_schedule,
    warmup_sqrt_decay_schedule,
    warmup_stable_decay_schedule,
)


# Compared by identity: a space is not hashable.
@dataclass(frozen=True, eq=False)
class ScheduleFamily:
    """Schedules of one form, whose shape is up to hyperparameters.

    Attributes:
      shape: ``shape(count, h)``, the learning rate at an optimizer step as a share of its peak, float (). ``count`` is
        the number of the step, int32 () from 0. Its ``__name__`` is the name of the family.
      space: the hyperparameters that ``shape`` reads, without ``|``; None for none.
      steps: optimizer steps of the trials that the schedules are for; None for any.

    Raises:
      InputError: ``shape`` is no function with a name, or ``space`` no such space.

    Example:
      >>> family = schedule_families(100)["rex"]
      >>> round(float(family.shape(50, hpx.Hparams({"warmup": 0.0, "beta": 0.5}))), 3)
      0.667
    """

    shape: Callable[[Any, Hparams], Any]
    space: Space | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if not getattr(self.shape, "__name__", "").isidentifier():
            allowed = "must be a function with a name, that of the family"
            raise InputError("ScheduleFamily.shape", self.shape, allowed, "Write it with def.")
        if self.space is not None and (not isinstance(self.space, Space) or len(self.space.branches) > 1):
            remedy = "Write hpx.Space(warmup=hpx.Uniform(0, 0.5)), and a family for each alternative."
            raise InputError("ScheduleFamily.space", self.space, "must be one hpx.Space, without |", remedy)

    @property
    def domains(self) -> Mapping[str, Domain]:
        """The hyperparameters of the family by name."""
        return {} if self.space is None else self.space.branches[0]

    @property
    def name(self) -> str:
        """The name of the family, that of the function."""
        return self.shape.__name__

    def values(self, hparams: Mapping[str, Any]) -> Floats:
        """Returns the learning rate at every step as a share of its peak, float (steps,), as for a plot.

        Args:
          hparams: a value for each name in the space, such as ``point.hparams`` of a study's answer.

        Raises:
          InputError: the family is for trials of any length.
          UnknownHyperparameterError: ``shape`` reads what is not there.

        Example:
          >>> schedule_families(4, "rex")["rex"].values({"warmup": 0.5, "beta": 1.0})
          array([0. , 0.5, 1. , 0.5], dtype=float32)
        """
        if self.steps is None:
            remedy = "Write ScheduleFamily(shape, space, steps=400)."
            raise InputError("ScheduleFamily.steps", None, "must be a number to have a value at every step", remedy)
        return np.asarray(jax.vmap(lambda count: self.shape(count, Hparams(hparams)))(jnp.arange(self.steps)))


def schedule_families(steps: int, *names: str, **domains: Any) -> dict[str, ScheduleFamily]:
    """Returns families of schedules by name, of which all but one rise in a straight line in ``warmup`` of the steps.

    Then ``"cosine"`` falls as half a cosine, ``"generalized_cosine"`` as a power of it, ``"sqrt"`` as a power of
    √(1 − z²), z being the share of the fall, ``"rex"`` as a hyperbola, and ``"warmup_stable_decay"`` in a straight line
    after a time at the peak. ``"two_point_linear"`` and ``"two_point_spline"`` fall over two points anywhere.
    ``"piecewise_linear"`` and ``"spline"`` go through points at a quarter, a half and three quarters of the way from
    the peak to the end, and may rise again. All these end at 0; ``"cosine_y_end"`` and ``"two_point_spline_y_end"`` end
    at a share ``y_end`` of the peak or of the second point, and ``"constant"`` stays at the peak.

    ``"smooth_nonmonotonic"`` has no warmup: it is a smooth curve from any value to any, over a peak and two points
    anywhere.

    The families of H. Naganuma et al., "What do near-optimal learning rate schedules look like?", 2026, arXiv
    2603.10301, are among them. The functions are those of ``hpx.optim``, with a peak of 1.

    Args:
      steps: optimizer steps of a trial.
      *names: which families, in this order; all by default.
      **domains: other domains of their hyperparameters, or numbers, each in all families that have its name.

    Raises:
      InputError: there is no such family, none of them has such a hyperparameter, or ``steps`` is no whole number of 2
        or more.

    Example:
      >>> families = schedule_families(300, "cosine", "rex", warmup=hpx.Uniform(0.0, 0.2))
      >>> list(families), families["rex"].domains["warmup"].high
      (['cosine', 'rex'], 0.2)
    """
    check_int("schedule_families.steps", steps, least=2)
    families = {family.name: family for family in _families(steps)}
    for name in names:
        if name not in families:
            raise InputError("schedule_families.names", name, "is no family", did_you_mean(name, families))
    chosen = [families[name] for name in names or families]
    there = dict.fromkeys(name for family in chosen for name in family.domains)
    for name in domains:
        if name not in there:
            allowed = "is a hyperparameter of none of the families"
            raise InputError("schedule_families.domains", name, allowed, did_you_mean(name, there))
    return {
        family.name: replace(
            family, space=Space(**{name: domains.get(name, own) for name, own in family.domains.items()})
        )
        for family in chosen
    }


def _families(steps: int) -> list[ScheduleFamily]:
    def rise(h: Hparams) -> Any:
        return h.warmup * steps

    def risen(count: Any, h: Hparams, fall: list[tuple[Any, Any]]) -> Any:
        return jnp.where(count < rise(h), constant(count, h), spline_schedule(fall)(count))

    def constant(count: Any, h: Hparams) -> Any:
        return warmup_constant_schedule(0.0, 1.0, rise(h))(count)

    def cosine(count: Any, h: Hparams) -> Any:
        return warmup_cosine_decay_schedule(0.0, 1.0, rise(h), steps)(count)

    def cosine_y_end(count: Any, h: Hparams) -> Any:
        return warmup_cosine_decay_schedule(0.0, 1.0, rise(h), steps, end_value=h.y_end)(count)

    def generalized_cosine(count: Any, h: Hparams) -> Any:
        return warmup_cosine_decay_schedule(0.0, 1.0, rise(h), steps, exponent=h.exponent)(count)

    def sqrt(count: Any, h: Hparams) -> Any:
        return warmup_sqrt_decay_schedule(0.0, 1.0, rise(h), steps, exponent=h.exponent)(count)

    def rex(count: Any, h: Hparams) -> Any:
        return warmup_rex_decay_schedule(0.0, 1.0, rise(h), steps, beta=h.beta)(count)

    def warmup_stable_decay(count: Any, h: Hparams) -> Any:
        # The fall takes one step at least.
        fall = jnp.maximum((1 - h.stable) * (steps - rise(h)), 1)
        return warmup_stable_decay_schedule(1.0, rise(h), steps - fall, fall)(count)

    def two_point_linear(count: Any, h: Hparams) -> Any:
        return two_point_linear_schedule(0.0, 1.0, rise(h), steps, (h.x1, h.y1), (h.x2, h.y2))(count)

    def two_point_spline(count: Any, h: Hparams) -> Any:
        return two_point_spline_schedule(0.0, 1.0, rise(h), steps, (h.x1, h.y1), (h.x2, h.y2))(count)

    def two_point_spline_y_end(count: Any, h: Hparams) -> Any:
        first = rise(h) + h.x1 * (steps - rise(h))
        second = first + h.x2 * (steps - first)
        values = (h.y1, h.y1 * h.y2, h.y1 * h.y2 * h.y_end)
        return risen(count, h, [(rise(h), 1.0), *zip((first, second, steps), values, strict=True)])

    def smooth_nonmonotonic(count: Any, h: Hparams) -> Any:
        first, second = (h.x1, h.y1), (h.x2, h.y2)
        return smooth_nonmonotonic_schedule(h.y_start, 1.0, steps, h.x_peak, first, second, h.y_end)(count)

    def points(h: Hparams) -> list[tuple[Any, Any]]:
        fall = steps - rise(h)
        between = [(rise(h) + share * fall, y) for share, y in ((0.25, h.y1), (0.5, h.y2), (0.75, h.y3))]
        return [(0, 0.0), (rise(h), 1.0), *between, (steps, 0.0)]

    def piecewise_linear(count: Any, h: Hparams) -> Any:
        return piecewise_linear_schedule(points(h))(count)

    def spline(count: Any, h: Hparams) -> Any:
        return risen(count, h, points(h)[1:])

    warmup, share = {"warmup": Uniform(0.0, 0.5)}, Uniform(0.0, 1.0)
    two_points = {"x1": share, "y1": share, "x2": share, "y2": share}
    power = Space(**warmup, exponent=LogUniform(0.25, 4.0))
    levels = Space(**warmup, y1=share, y2=share, y3=share)
    spaces = {
        cosine: Space(**warmup),
        constant: Space(**warmup),
        cosine_y_end: Space(**warmup, y_end=share),
        generalized_cosine: power,
        sqrt: power,
        rex: Space(**warmup, beta=LogUniform(1 / 16, 16.0)),
        warmup_stable_decay: Space(**warmup, stable=share),
        two_point_linear: Space(**warmup, **two_points),
        two_point_spline: Space(**warmup, **two_points),
        two_point_spline_y_end: Space(**warmup, **two_points, y_end=share),
        piecewise_linear: levels,
        spline: levels,
        smooth_nonmonotonic: Space(x_peak=share, y_start=share, y_end=share, **two_points),
    }
    return [ScheduleFamily(shape, space, steps) for shape, space in spaces.items()]
