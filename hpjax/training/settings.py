"""Arguments of ``supervised`` that are constants or functions of ``h``: each becomes a function of ``h``."""

from collections.abc import Callable
from typing import Any

from hpjax.core.errors import InputError, ProgramError, annotate_errors
from hpjax.core.hparams import Hparams

# What may be given for an argument that is a constant or a function of h, and what to type.
_ALLOWED = {
    "loss": "must be a function of (outputs, y), or a function of h that returns one",
    "metrics": "must be a dict of name to function, or a function of h that returns one",
    "split_metrics": "must be a dict of name to function, or a function of h that returns one",
    "optimizer": "must be an Optax gradient transformation, or a function of h that returns one",
    "early_stopping": "must be an hpx.EarlyStopping, or a function of h that returns one",
    "mup": "must be an hpx.mup.MuP, None, or a function of h that returns one of these",
    "compute_dtype": 'must be "float32" or "bfloat16", or a function of h that returns one',
}
_EXAMPLES = {
    "loss": "optax.softmax_cross_entropy_with_integer_labels",
    "metrics": '{"accuracy": hpx.metrics.accuracy}',
    "split_metrics": '{"auc": hpx.metrics.auc}',
    "optimizer": "lambda h: optax.sgd(h.learning_rate)",
    "early_stopping": "hpx.EarlyStopping(patience=3)",
    "mup": 'hpx.mup.MuP({"width": 64})',
    "compute_dtype": '"bfloat16"',
}


def number(name: str, value: Any) -> Callable[[Hparams], Any]:
    """Returns ``value``, a number or a function of ``h``, as a function of ``h``."""
    return annotate_errors(f"supervised.{name}", value) if callable(value) else lambda h: value


def setting(name: str, value: Any, is_constant: Callable[[Any], bool]) -> Callable[[Hparams], Any]:
    """Returns ``value``, a constant or a function of ``h``, as a function of ``h``.

    Args:
      name: the argument of ``supervised``.
      value: what was given for it.
      is_constant: whether something is a constant that the argument allows.

    Raises:
      InputError: the value is neither.
    """
    if is_constant(value):
        return lambda h: value
    if not callable(value):
        raise InputError(f"supervised.{name}", value, _ALLOWED[name], f"Write {name}={_EXAMPLES[name]}.")

    def of(h: Hparams) -> Any:
        given = annotate_errors(f"supervised.{name}", value)(h)
        if not is_constant(given):
            raise ProgramError(f"supervised.{name}, a function of h, gave {given!r}: it {_ALLOWED[name]}.")
        return given

    return of
