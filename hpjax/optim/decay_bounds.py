"""Bounds on the numbers inside Optax's own transformations, which Optax does not check."""

import jax
import optax

from hpjax.core.bounds import check_bounds
from hpjax.optim.closures import functions_in, variables_of

# Outside [0, 1] a moving average grows without bound or alternates.
DECAYS = ("decay", "b1", "b2", "b3")
# Optax's internal names, and those that users know.
CALLED = {"trace.decay": "sgd.momentum"}


def check_decays(optimizer: optax.GradientTransformation) -> None:
    """Raises unless momentum, b1, b2 and all decays of averages in an optimizer lie in [0, 1].

    Optax's transformations keep their numbers in the closures of their functions, and this function looks there.
    Fallback: where a version of Optax keeps them elsewhere, nothing is checked, as ``functions_in`` warns.

    Raises:
      InputError: one of them is a number outside [0, 1].
    """
    for function in functions_in(optimizer):
        if not function.__module__.startswith("optax."):
            continue
        for name, value in variables_of(function):
            if name in DECAYS and isinstance(value, int | float | jax.Array):
                field = f"{function.__qualname__.split('.')[0]}.{name}"
                check_bounds(f"optax.{CALLED.get(field, field)}", value, 0, 1)
