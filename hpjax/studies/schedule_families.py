"""Families of learning-rate schedules: a function of the step and of hyperparameters, and a space of these."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from hpjax.core.domains import Domain
from hpjax.core.errors import InputError, check_int, did_you_mean
from hpjax.core.hparams import Hparams
from hpjax.core.intervals import LogUniform, Uniform
from hpjax.core.space import Space
from hpjax.optim import (
    piecewise_linear_schedule,
    spline_schedule,
    two_point_linear_schedule,
    two_point_spline_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_rex_decay_schedule,
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


def schedule_families(steps: int, *names: str) -> dict[str, ScheduleFamily]:
    """Returns families of schedules by name, all of which rise in a straight line in the first ``warmup`` of the steps.

    ``"cosine"`` falls as half a cosine and ``"generalized_cosine"`` as a power of it, ``"rex"`` as a hyperbola,
    ``"warmup_stable_decay"`` in a straight line after a time at the peak. ``"two_point_linear"`` and
    ``"two_point_spline"`` fall over two points anywhere. ``"piecewise_linear"`` and ``"spline"`` go through points at a
    quarter, a half and three quarters of the way from the peak to the end, and may rise again. All end at 0.

    The families of H. Naganuma et al., "What do near-optimal learning rate schedules look like?", 2026, arXiv
    2603.10301, are among them. The functions are those of ``hpx.optim``, with a peak of 1.

    Args:
      steps: optimizer steps of a trial.
      *names: which families, in this order; all by default.

    Raises:
      InputError: there is no such family, or ``steps`` is no whole number of 2 or more.

    Example:
      >>> list(schedule_families(300, "cosine", "rex"))
      ['cosine', 'rex']
    """
    check_int("schedule_families.steps", steps, least=2)
    families = {family.name: family for family in _families(steps)}
    for name in names:
        if name not in families:
            raise InputError("schedule_families.names", name, "is no family", did_you_mean(name, families))
    return {name: families[name] for name in names or families}


def _families(steps: int) -> list[ScheduleFamily]:
    def rise(h: Hparams) -> Any:
        return h.warmup * steps

    def cosine(count: Any, h: Hparams) -> Any:
        return warmup_cosine_decay_schedule(0.0, 1.0, rise(h), steps)(count)

    def generalized_cosine(count: Any, h: Hparams) -> Any:
        return warmup_cosine_decay_schedule(0.0, 1.0, rise(h), steps, exponent=h.exponent)(count)

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

    def points(h: Hparams) -> list[tuple[Any, Any]]:
        fall = steps - rise(h)
        between = [(rise(h) + share * fall, y) for share, y in ((0.25, h.y1), (0.5, h.y2), (0.75, h.y3))]
        return [(0, 0.0), (rise(h), 1.0), *between, (steps, 0.0)]

    def piecewise_linear(count: Any, h: Hparams) -> Any:
        return piecewise_linear_schedule(points(h))(count)

    def spline(count: Any, h: Hparams) -> Any:
        from_peak = spline_schedule(points(h)[1:])(count)
        return jnp.where(count < rise(h), warmup_constant_schedule(0.0, 1.0, rise(h))(count), from_peak)

    warmup, share = {"warmup": Uniform(0.0, 0.5)}, Uniform(0.0, 1.0)
    two_points = Space(**warmup, x1=share, y1=share, x2=share, y2=share)
    levels = Space(**warmup, y1=share, y2=share, y3=share)
    return [
        ScheduleFamily(cosine, Space(**warmup), steps),
        ScheduleFamily(generalized_cosine, Space(**warmup, exponent=LogUniform(0.25, 4.0)), steps),
        ScheduleFamily(rex, Space(**warmup, beta=LogUniform(1 / 16, 16.0)), steps),
        ScheduleFamily(warmup_stable_decay, Space(**warmup, stable=share), steps),
        ScheduleFamily(two_point_linear, two_points, steps),
        ScheduleFamily(two_point_spline, two_points, steps),
        ScheduleFamily(piecewise_linear, levels, steps),
        ScheduleFamily(spline, levels, steps),
    ]
