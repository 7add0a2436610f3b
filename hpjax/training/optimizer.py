"""Optax optimizers at a step: the extra arguments that they are given, and the parameters that evaluations use."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from hpjax.core.arrays import at_least_float32
from hpjax.core.errors import InputError
from hpjax.engine.state_tree import KeyPath, names_of
from hpjax.optim.closures import functions_in
from hpjax.training.mup_adam import SCALES
from hpjax.training.static import unwrap_static, wrap_static

# What an optimizer of ``supervised`` may be.
OPTIMIZERS = (optax.GradientTransformation, optax.MultiSteps)
# States of optimizers that train other parameters than those that they are evaluated at.
OF_AVERAGES = (contrib.ScheduleFreeState, contrib.SAMState)
# States of transformations that cannot work here: their names, the reason, and what to type.
REFUSED = (
    (
        contrib.DifferentiallyPrivateAggregateState,
        "optax.contrib.differentially_private_aggregate",
        "needs the gradient of each example, and supervised gives their mean",
        "Write an hpx.Program whose step gives it jax.vmap(jax.grad(loss), (None, 0)) of the batch.",
    ),
    (
        optax.MonitorState,
        "optax.monitor",
        "has no measurements before its first step, so that its state would change its structure",
        "Write optax.snapshot(name, measure), or monitor=[...] of hpx.supervised.",
    ),
)
# The path of each parameter to a multiplier of its learning rate.
Rates = Mapping[KeyPath, Any] | None
# How the arguments of an update function of Optax go on after the updates.
SIGNATURE = ["state", "params"]


class Optimized(NamedTuple):
    """What a step of an optimizer changes.

    Attributes:
      params: the parameters.
      opt_state: the state of the optimizer.
      average: the parameters that evaluations use, where these are others than ``params``; else None.
    """

    params: Any
    opt_state: Any
    average: Any


def as_transformation(optimizer: Any) -> Any:
    """Returns an ``optax.MultiSteps`` as a gradient transformation, and anything else as it is."""
    if isinstance(optimizer, optax.MultiSteps):
        return optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    return optimizer


def begin(optimizer: optax.GradientTransformation, params: Any, decay: Any, rates: Rates = None) -> Optimized:
    """Returns the parameters, the optimizer's state, and what evaluations use, before the first step.

    Args:
      optimizer: any gradient transformation.
      params: the parameters.
      decay: decay of a moving average of the parameters, float (); None for no such average.
      rates: as for ``updated``.

    Raises:
      InputError: the optimizer needs what a supervised program does not give it.
    """
    if rates is not None and _looks_ahead(optimizer):
        remedy = "Remove mup, or optax.lookahead."
        raise InputError("supervised.mup", "optax.lookahead", "cannot be combined with this optimizer", remedy)
    begun = _begun(optimizer, _divided(params, rates))
    begun = begun._replace(params=params, average=_multiplied(begun.average, rates))
    begun = begun._replace(opt_state=wrap_static(begun.opt_state))
    if decay is not None and begun.average is not None:
        allowed = "cannot be combined with this optimizer, which has parameters of its own to be evaluated at"
        raise InputError("supervised.average", decay, allowed, "Remove average.")
    # Narrow floats would round the small steps of an average away.
    return begun if decay is None else begun._replace(average=jax.tree.map(at_least_float32, params))


def _begun(optimizer: optax.GradientTransformation, params: Any) -> Optimized:
    if _looks_ahead(optimizer):
        return Optimized(params, _outermost(optimizer.init, optax.LookaheadParams.init_synced(params)), params)
    opt_state = optimizer.init(params)
    for kind, name, allowed, remedy in REFUSED:
        if _states(opt_state, kind):
            raise InputError("supervised.optimizer", name, allowed, remedy)
    return Optimized(params, opt_state, _evaluated(opt_state, params))


def updated(
    optimizer: optax.GradientTransformation,
    before: Optimized,
    gradients: Any,
    extra: Mapping[str, Any],
    decay: Any,
    rates: Rates = None,
) -> tuple[Optimized, Any]:
    """Makes a step.

    Args:
      optimizer: a gradient transformation.
      before: what ``begin`` or the step before returned.
      gradients: a pytree like the parameters.
      extra: Optax's extra arguments by name; the optimizer is given those that it takes.
      decay: as for ``begin``.
      rates: path of each parameter to a multiplier of its learning rate; None for none. The optimizer gets parameters
        that are divided by it, so that the rate of weight decay stays as it is.

    Returns:
      What it changes, and the updates, a pytree like the parameters.
    """
    params, opt_state, average = before.params, unwrap_static(before.opt_state), before.average
    update = optimizer.update
    if _looks_ahead(optimizer):
        pair = optax.LookaheadParams(fast=params, slow=average)
        updates, opt_state = _outermost(update, gradients, opt_state, pair, **_taken(update, extra))
        pair = optax.apply_updates(pair, updates)
        return Optimized(pair.fast, _typed(wrap_static(opt_state), before.opt_state), pair.slow), updates.fast
    updates, opt_state = _call(update, (gradients, opt_state, _divided(params, rates)), _taken(update, extra))
    opt_state, updates = _typed(wrap_static(opt_state), before.opt_state), _multiplied(updates, rates)
    params = optax.apply_updates(params, updates)
    if decay is None:
        evaluated = _multiplied(_evaluated(opt_state, _divided(params, rates)), rates)
        return Optimized(params, opt_state, _typed(evaluated, average)), updates
    wide = jax.tree.map(at_least_float32, params)
    average = jax.tree.map(lambda a, p: (decay * a + (1 - decay) * p).astype(a.dtype), average, wide)
    return Optimized(params, opt_state, average), updates


def _multiplied(tree: Any, rates: Rates) -> Any:
    """Returns a pytree like the parameters, each array times the rate of its path."""
    if rates is None or tree is None:
        return tree

    def multiplied(path: Any, x: Any) -> Any:
        rate = rates[names_of(path)]
        # Untouched, not multiplied by 1: XLA might fuse, and so round, in another way.
        return x if isinstance(rate, float) and rate == 1 else (x * rate).astype(x.dtype)

    return jax.tree_util.tree_map_with_path(multiplied, tree)


def _divided(tree: Any, rates: Rates) -> Any:
    return _multiplied(tree, rates and {name: 1 / rate for name, rate in rates.items()})


def of_loss(loss: Callable[[Any], jax.Array], value: jax.Array, gradients: Any) -> dict[str, Any]:
    """Returns the extra arguments that optimizers take of the loss of a batch, by Optax's names.

    Args:
      loss: maps parameters to the loss of this batch with this step's noise, penalty included, float ().
      value: the loss at the present parameters, float ().
      gradients: its gradients there, a pytree like the parameters.
    """

    # Optax's line searches refuse the extra arguments of others in a chain unless ``value_fn`` names them.
    def value_fn(
        params: Any,
        *,
        obj_fn: Any = None,
        grad_fn: Any = None,
        key: Any = None,
        batch_size: Any = None,
        metrics: Any = None,
        evaluations: Any = None,
    ) -> jax.Array:
        return loss(params)

    return {
        "value": value,
        "grad": gradients,
        "value_fn": value_fn,
        "obj_fn": loss,  # contrib.sophia
        "grad_fn": jax.grad(lambda params, _: loss(params)),  # contrib.sam(opaque_mode=True)
    }


def cannot_evaluate(argument: str, value: Any) -> Callable[[Any], jax.Array]:
    """Returns a loss that raises ``InputError`` if an optimizer calls it, for an argument of ``supervised``."""

    def loss(params: Any) -> jax.Array:
        raise InputError(
            f"supervised.{argument}",
            value,
            "cannot be combined with this optimizer, which computes the loss of the whole batch again, as line "
            "searches, Sophia and an opaque SAM do",
            f"Remove {argument}={value}, or choose another optimizer.",
        )

    return loss


def _outermost(function: Callable[..., Any], *arguments: Any, **extra: Any) -> Any:
    """Calls a function of an optimizer with ``lookahead`` in it. Raises ``InputError`` if it is where Optax fails."""
    try:
        return function(*arguments, **extra)
    except InputError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise _not_outermost(error) from error


def _not_outermost(error: Exception) -> InputError:
    return InputError(
        "supervised.optimizer",
        "optax.lookahead",
        f"must be the outermost transformation, or the last of a chain; Optax says {str(error)[:200]!r}",
        "Write optax.lookahead(optax.chain(...), sync_period, slow_step_size).",
    )


def _looks_ahead(optimizer: optax.GradientTransformation) -> bool:
    """Returns whether ``optax.lookahead`` is in an optimizer: its parameters are pairs of fast and slow ones."""
    return any(
        function.__qualname__.split(".")[0] == "lookahead" and str(function.__module__).startswith("optax.")
        for function in functions_in(optimizer)
    )


def _taken(update: Callable[..., Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the extra arguments that every function in ``update`` takes which refuses those that it does not name.

    Most functions of Optax have ``**extra_args`` and take all. ``contrib.sam`` does not, wherever it is in a chain.
    """
    names = set(extra)
    for function in (update, *functions_in(update)):
        parameters = inspect.signature(function).parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if not takes_all and (function is update or (len(parameters) > 3 and list(parameters)[1:3] == SIGNATURE)):
            names &= set(parameters)
    return _without(set(extra) - names, extra)


def _without(names: set[Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the extra arguments without some. Raises ``InputError`` if without these ``mup.adamw`` would be wrong."""
    if SCALES in names:
        allowed = "cannot be inside of a transformation that hands no extra arguments on, as contrib.sam"
        raise InputError("supervised.optimizer", "hpx.mup.adamw", allowed, "Write optax.adamw there.")
    return {name: value for name, value in extra.items() if name not in names}


def _call(update: Callable[..., Any], arguments: tuple[Any, ...], extra: Mapping[str, Any]) -> Any:
    """Returns ``update(*arguments, **extra)``, without the extra arguments that a function within it refuses.

    ``_taken`` finds these in closures, but not in what ``optax.inject_hyperparams`` makes only when it is called.

    Raises:
      InputError: it has a ``lookahead`` in it that no closure shows either.
    """
    try:
        return update(*arguments, **extra)
    except TypeError as error:
        refused = next((name for name in extra if f"unexpected keyword argument {name!r}" in str(error)), None)
        if refused is None:
            raise
    except AttributeError as error:
        if error.name not in optax.LookaheadParams._fields:
            raise
        raise _not_outermost(error) from error
    return _call(update, arguments, _without({refused}, extra))


def _states(opt_state: Any, kinds: Any) -> list[Any]:
    """Returns the parts of an optimizer's state that are of some kinds, without those inside of such parts."""
    parts = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, kinds))
    return [part for part in parts if isinstance(part, kinds)]


def _evaluated(opt_state: Any, params: Any) -> Any:
    """Returns the parameters that evaluations use, or None where these are ``params``.

    Those of schedule-free optimizers are ``contrib.schedule_free_eval_params``, those of ``contrib.sam`` its true
    parameters, which are not the present ones while it climbs.
    """
    for state in (found := _states(opt_state, OF_AVERAGES)):
        params = _of_sam(state, params) if isinstance(state, contrib.SAMState) else _of_schedule_free(state, params)
    return params if found else None


def _of_sam(state: contrib.SAMState, params: Any) -> Any:
    def true(own: Any, cache: Any) -> Any:
        return jax.tree.map(lambda p, c: jnp.where(state.steps_since_sync == 0, p, c), own, cache)

    if state.cache is not None:
        params = _where_unmasked(true, params, state.cache)
    inner = _evaluated(state.opt_state, params)
    return params if inner is None else inner


def _of_schedule_free(state: contrib.ScheduleFreeState, params: Any) -> Any:
    return _where_unmasked(lambda own, _: contrib.schedule_free_eval_params(state, own), params, state.z)


def _where_unmasked(function: Callable[[Any, Any], Any], params: Any, there: Any) -> Any:
    """Returns ``function(params, there)``, and ``params`` where ``optax.masked`` hides them from ``there``.

    Raises:
      InputError: ``there`` is no pytree like ``params``.
    """

    def is_masked(part: Any) -> bool:
        return isinstance(part, optax.MaskedNode)

    own = jax.tree.map(lambda t, p: t if is_masked(t) else p, there, params, is_leaf=is_masked)
    if jax.tree.structure(own) != jax.tree.structure(there):  # type: ignore[operator]
        raise InputError(
            "supervised.optimizer",
            "optax.flatten",
            "hides the parameters that a schedule-free optimizer or SAM is evaluated at",
            "Write optax.contrib.schedule_free(optax.flatten(...), ...).",
        )
    result = function(own, there)
    return jax.tree.map(lambda r, p: p if is_masked(r) else r, result, params, is_leaf=is_masked)


def _typed(new: Any, old: Any) -> Any:
    """Returns floats of ``new`` in the dtypes of ``old``, if their structures agree.

    A traced number, unlike a Python float, turns bfloat16 moments into float32; a state must keep its dtypes.
    """
    if jax.tree.structure(new) != jax.tree.structure(old):  # type: ignore[operator]
        return new
    return jax.tree.map(typed_as, new, old)


def typed_as(new: Any, old: Any) -> Any:
    """Returns ``new`` with the dtype of ``old`` where both are floating-point numbers, else ``new``."""
    both = all(jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in (new, old))
    return jnp.asarray(new, jnp.result_type(old)) if both else new
