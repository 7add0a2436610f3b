"""Programs of one function, in which the whole training happens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpjax.core.errors import InputError, ProgramError, annotate_errors
from hpjax.core.format import show
from hpjax.core.hparams import Hparams
from hpjax.core.program import Metrics, Program
from hpjax.engine.settings import deciding_settings
from hpjax.engine.state_tree import StateTree, is_array, split_state, zeros_like


class _Returned(NamedTuple):
    """What the function of a trial returned.

    Attributes:
      metrics: the metrics, ().
      state: what it returned beside them.
    """

    metrics: dict[str, Any]
    state: Any


def function(fn: Callable[[jax.Array, Hparams], Any]) -> Program:
    """Returns a program of one function that trains from the beginning to the end, such as purejaxrl's ``train``.

    All of it is one optimizer step for the sweep: the function runs once for each lane, and ends with the only
    evaluation. So nothing can stop a trial early or resume it halfway; for that write an ``hpx.Program``.

    Args:
      fn: ``fn(key, h) -> metrics``: a dict of scalars, reported as ``valid/<name>``, or one scalar, reported as
        ``valid/loss``. Or ``fn(key, h) -> (metrics, state)``, where ``state`` is a pytree that ``trial.restore()``
        gives: trained parameters, curves. The key is that of step 0, a typed threefry key, shape (), the same for
        all trials of a replicate unless ``Sweep(randomness="independent")``. A metric that is NaN or infinite means
        that the lane diverged.

    Raises:
      InputError: ``fn`` is no function.

    Example:
      >>> def train(key, h):
      ...     w, _ = jax.lax.scan(lambda w, _: (w - h.learning_rate * 2 * (w - 1), w), 0.0, length=100)
      ...     return {"loss": (w - 1) ** 2}
      >>> program = function(train)
    """
    if not callable(fn):
        raise InputError("function.fn", fn, "must be a function of key and h", "Write hpx.function(train).")
    named = annotate_errors(f"hpx.function({show(fn)})", fn)

    def returned(key: jax.Array, h: Hparams) -> _Returned:
        found = named(key, h)
        pair = type(found) is tuple and len(found) == 2
        metrics, state = found if pair else (found, None)
        if not isinstance(metrics, Mapping):
            if not is_array(metrics):
                raise ProgramError(
                    f"hpx.function({show(fn)}) must return metrics or (metrics, state), where metrics are a dict of "
                    f'scalars or one scalar, got {type(found).__name__}. Write return {{"loss": loss}}.'
                )
            metrics = {"loss": metrics}
        for name, value in metrics.items():
            if not is_array(value) or jnp.shape(value) != ():
                got = list(jnp.shape(value)) if is_array(value) else type(value).__name__
                raise ProgramError(
                    f"metric {name!r} of hpx.function({show(fn)}) must be a scalar, got {got}. Return it beside the "
                    f"metrics: return metrics, {{{name!r}: {name}}}; trial.restore() gives it."
                )
        return _Returned(dict(metrics), state)

    known: dict[Any, tuple[Sequence[Any], StateTree]] = {}

    def init(key: jax.Array, h: Hparams) -> _Returned:
        # Not run: only the shapes of what it will return.
        leaves, structure = jax.tree.flatten(h)
        asked = structure, tuple(map(jax.typeof, leaves)), tuple(deciding_settings().values())
        shapes, tree = found = known.get(asked) or traced(key, h)
        if tree.plain:  # else functions in it may close over hyperparameters, which are others in each trace
            known[asked] = found
        blank: _Returned = tree.fill([zeros_like(x) for x in shapes])
        return blank

    def traced(key: jax.Array, h: Hparams) -> tuple[Sequence[Any], StateTree]:
        trees: list[StateTree] = []

        def arrays() -> Any:
            found, tree = split_state(returned(key, h))
            trees.append(tree)
            return found

        return jax.eval_shape(arrays), trees[-1]

    def step(key: jax.Array, state: _Returned, batch: Any, h: Hparams) -> tuple[_Returned, Metrics]:
        return returned(key, h), {}

    def evaluate(key: jax.Array, state: _Returned, split: Any, h: Hparams) -> Metrics:
        return state.metrics

    return Program(init, step, evaluate, steps=1, describe={"kind": "function", "function": show(fn)})
