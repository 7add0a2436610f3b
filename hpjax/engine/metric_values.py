"""Validates the metrics that a program returns while it is traced."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from hpjax.core.errors import ProgramError, annotate_errors
from hpjax.core.program import Metrics
from hpjax.core.recordable import is_name


def scalars(where: str, metrics: Metrics) -> dict[str, jax.Array]:
    """Returns metrics as arrays, (). Raises unless they are a dict of names and scalar numbers."""
    if not isinstance(metrics, Mapping):
        raise ProgramError(
            f"Program.{where} must give its metrics as a dict of scalars, got {type(metrics).__name__}. "
            'Write {"loss": loss}, or {} for none.'
        )
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise ProgramError(
                f"metrics of Program.{where} must have strings as names, got {name!r}. Write {str(name)!r}."
            )
        if not is_name(name):
            raise ProgramError(
                f"metrics of Program.{where} must have printable names, got {name!r}, which no table can show. "
                "Write a name such as 'loss'."
            )
        if not isinstance(value, jax.Array | np.ndarray | np.generic | int | float):
            raise ProgramError(
                f"metric {name!r} of Program.{where} must be a number, got {type(value).__name__}. "
                "Return a number, or leave it out of the dict."
            )
        array = annotate_errors(f"metric {name!r} of Program.{where}", jnp.asarray)(value)
        kinds = (jnp.floating, jnp.integer, jnp.bool_)
        if array.shape != () or not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
            found = f"{array.dtype}{list(array.shape)}"
            remedy = "Reduce it with .mean()." if array.shape else "Return a number, such as its real part with .real."
            raise ProgramError(f"metric {name!r} of Program.{where} must be a scalar number, got {found}. {remedy}")
    return {name: jnp.asarray(value) for name, value in metrics.items()}
