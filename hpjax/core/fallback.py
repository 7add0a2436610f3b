"""Tells of fallbacks: what is slower or unchecked because JAX, or the user's program, is not as hpjax knows it."""

import warnings
from functools import cache


@cache
def warn_once(message: str) -> None:
    """Warns with a ``RuntimeWarning``, unless this process has given the same warning before.

    Python alone would repeat it: whoever enters ``warnings.catch_warnings``, as JAX does, makes it forget what it said.

    Example:
      >>> warn_once("scan is not rewritten")  # doctest: +SKIP
    """
    warnings.warn(message, RuntimeWarning, stacklevel=2)
