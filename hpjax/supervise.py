"""supervised: a Flax model, an Optax optimizer, a loss and data, as a Program."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from hpjax.data import Data, Examples, batch_indices, examples_in, tidy_examples
from hpjax.errors import InputError, ProgramError, naming, whole
from hpjax.hparams import Hparams
from hpjax.network import example_input, network
from hpjax.program import Metrics, Program
from hpjax.text import show

PerExample = Callable[[Any, Any], jax.Array]


def supervised(
    *,
    model: Any,
    optimizer: optax.GradientTransformation | Callable[[Hparams], optax.GradientTransformation],
    loss: PerExample | Callable[[Hparams], PerExample],
    data: Data,
    batch_size: int | Callable[[Hparams], int],
    steps: int | Callable[[Hparams], int],
    eval_every: int | Callable[[Hparams], int] | None = None,
    metrics: Mapping[str, PerExample] | Callable[[Hparams], Mapping[str, PerExample]] | None = None,
    eval_batch_size: int = 512,
) -> Program:
    """A program that trains a Flax model on batches drawn without replacement, epoch by epoch.

    Every argument but the data and ``eval_batch_size`` is a constant or a function of ``h``, the
    hyperparameters of a trial.

    Args:
      model: a Linen module, ``lambda h: MLP(h.hidden)``, or for NNX ``lambda h, rngs: MLP(h.hidden, rngs=rngs)``.
        Linen modules may take ``train``, ``training``, ``is_training``, ``deterministic`` or
        ``use_running_average``; batch statistics and dropout are taken care of for both.
      optimizer: an Optax gradient transformation.
      loss: ``loss(outputs, y)``, one value an example: shape (batch,), further axes are averaged.
        A function whose only argument is, or whose first is called, ``h`` is taken for a function of ``h``.
      data: three splits of ``Examples``.
      batch_size: examples a step, at most the size of the training split.
      steps: optimizer steps of a trial.
      eval_every: steps between evaluations on the whole validation split; None evaluates at the end only.
      metrics: name to a function like ``loss``, e.g. ``{"accuracy": hpx.metrics.accuracy}``.
      eval_batch_size: examples that one lane evaluates at once; results are exact for any.

    Returns:
      A program whose metrics are ``train/loss``, ``valid/loss`` and those of ``metrics``. Its state is a dict:
      ``params``, ``stats`` (batch statistics and the like) and ``opt_state``.

    Raises:
      InputError: an argument that cannot be used.

    Example:
      >>> program = supervised(
      ...     model=lambda h: nn.Sequential([nn.Dense(h.hidden), nn.relu, nn.Dense(10)]),
      ...     optimizer=lambda h: optax.sgd(h.learning_rate, h.momentum),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels,
      ...     data=hpx.data.digits(), batch_size=64, steps=2_000, eval_every=100)
    """
    if not isinstance(data, Data) or not isinstance(data.train, Examples):
        raise InputError(
            "supervised.data", type(data).__name__, "must be Data of Examples", "Use hpx.data.from_arrays(x, y)."
        )
    eval_batch_size = whole("supervised.eval_batch_size", eval_batch_size)
    if isinstance(metrics, Mapping):
        _check_metrics(metrics)
    elif metrics is not None and not (callable(metrics) and _of_h(metrics)):
        raise InputError(
            "supervised.metrics",
            show(metrics),
            "must be a dict of name to function, or a function of h that gives one",
            'Write {"accuracy": hpx.metrics.accuracy}.',
        )
    data = _checked(data)
    net = network(model)
    examples = examples_in(data.train)
    if not callable(batch_size):
        _check_batch_size(batch_size, examples)
    optimizer_of = _setting("optimizer", optimizer, lambda v: isinstance(v, optax.GradientTransformation))
    loss_of = _setting("loss", loss, lambda v: callable(v) and not _of_h(v))
    metrics_of = _setting("metrics", {} if metrics is None else metrics, lambda v: isinstance(v, Mapping))
    example = example_input(data.train.x)
    labels = _label_range(data)

    def values(outputs: Any, y: Any, h: Hparams) -> dict[str, jax.Array]:
        _check_labels(outputs, y, labels)
        own = metrics_of(h)
        _check_metrics(own)
        functions = {"loss": loss_of(h), **own}
        return {
            name: _per_example(name, naming(f"supervised.{name}", function), outputs, y)
            for name, function in functions.items()
        }

    def init(key: jax.Array, h: Hparams) -> dict[str, Any]:
        params, stats = net.init(key, example, h)
        # Flax draws batch statistics in float32 and may return them in the wider type of the inputs.
        settled = jax.eval_shape(lambda: net.apply(key, params, stats, example, h, True)[1])
        stats = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), stats, settled)
        return {"params": params, "stats": stats, "opt_state": optimizer_of(h).init(params)}

    def batch(key: jax.Array, step: jax.Array, train: Examples, h: Hparams) -> Examples:
        index = batch_indices(key, step, examples, _static_size(batch_size, h))
        drawn: Examples = jax.tree.map(lambda a: jnp.asarray(a)[index], train)
        return drawn

    def step(
        key: jax.Array, state: dict[str, Any], batch: Examples, h: Hparams
    ) -> tuple[dict[str, Any], dict[str, jax.Array]]:
        def objective(params: Any) -> tuple[jax.Array, Any]:
            outputs, stats = net.apply(key, params, state["stats"], batch.x, h, True)
            means = {name: value.mean() for name, value in values(outputs, batch.y, h).items()}
            return means["loss"], (means, stats)

        gradients, (means, stats) = jax.grad(objective, has_aux=True)(state["params"])
        updates, opt_state = optimizer_of(h).update(gradients, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "stats": stats, "opt_state": opt_state}, means

    def evaluate(key: jax.Array, state: dict[str, Any], split: Examples, h: Hparams) -> Metrics:
        count = examples_in(split)
        parts = -(-count // eval_batch_size)
        size = -(-count // parts)

        def part(i: jax.Array) -> dict[str, jax.Array]:
            index = i * size + jnp.arange(size)
            x, y = jax.tree.map(lambda a: jnp.asarray(a)[jnp.minimum(index, count - 1)], split)
            outputs, _ = net.apply(key, state["params"], state["stats"], x, h, False)
            # The last part may reach beyond the split; what lies there counts for nothing.
            return {name: jnp.where(index < count, v, 0).sum() for name, v in values(outputs, y, h).items()}

        sums = lax.map(part, jnp.arange(parts)) if parts > 1 else part(jnp.int32(0))
        return {name: value.sum() / count for name, value in sums.items()}

    def validate(h: Hparams, steps: int) -> None:
        size = naming("supervised.batch_size", batch_size)(h) if callable(batch_size) else batch_size
        _check_batch_size(size, examples)
        if (steps + 1) * int(size) >= 2**32:
            raise InputError("steps × batch_size", steps * int(size), "must stay below 2**32", "Use fewer steps.")

    return Program(
        init,
        step,
        evaluate,
        data,
        batch,
        steps=steps,
        eval_every=eval_every,
        validate=validate,
        parameters=lambda state: state["params"],
        describe={
            "kind": "supervised",
            "data": data.name,
            "examples": [0 if split is None else examples_in(split) for split in (data.train, data.valid, data.test)],
            "batch_size": "a function of h" if callable(batch_size) else int(batch_size),
        },
    )


def _setting(name: str, value: Any, is_constant: Callable[[Any], bool]) -> Callable[[Hparams], Any]:
    """``value`` as a function of ``h``: a constant becomes one that ignores it."""
    if is_constant(value):
        return lambda h: value
    if not callable(value):
        raise InputError(f"supervised.{name}", value, "must be a constant of its kind or a function of h", "See help.")

    def of(h: Hparams) -> Any:
        given = naming(f"supervised.{name}", value)(h)
        if not is_constant(given):
            raise ProgramError(f"supervised.{name}, a function of h, gave {given!r}, which is no {name}.")
        return given

    return of


def _of_h(function: Callable[..., Any]) -> bool:
    """Whether it is a function of ``h``: it takes but one positional argument, or its first is named so."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin
        return False
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return positional[:1] == ["h"] or (len(positional) == 1 and not any(p.kind is p.VAR_POSITIONAL for p in parameters))


def _check_metrics(metrics: Mapping[str, PerExample]) -> None:
    for name, function in metrics.items():
        if not isinstance(name, str) or name == "loss":
            raise InputError("supervised.metrics", name, "must be a name other than loss", "Rename the metric.")
        if not callable(function):
            raise InputError(
                f"supervised.metrics[{name!r}]", function, "must be a function of (outputs, y)", "See help."
            )


def _checked(data: Data) -> Data:
    """``data`` with every split checked.

    Raises:
      InputError: lengths differ, a value is not finite, a split is empty or has inputs of another shape.
    """
    splits: dict[str, Any] = {"test": None}
    for name in ("train", "valid", "test"):
        split = getattr(data, name)
        if split is None and name == "test":
            continue
        if not isinstance(split, Examples):
            raise InputError(
                f"data.{name}", type(split).__name__, "must be Examples(x, y)", "Use hpx.data.from_arrays."
            )
        splits[name] = checked = tidy_examples(f"data.{name}", split.x, split.y)
        shapes, first = (
            [a.shape[1:] for a in jax.tree.leaves((each.x, each.y))] for each in (checked, splits["train"])
        )
        if shapes != first:
            raise InputError(
                f"data.{name}", shapes, f"must have the shapes {first} an example, as train", "Reshape it."
            )
    return Data(**splits, name=data.name)


def _static_size(batch_size: int | Callable[[Hparams], int], h: Hparams) -> int:
    size = batch_size(h) if callable(batch_size) else batch_size
    if isinstance(size, jax.core.Tracer):
        raise ProgramError("batch_size sets the shape of a batch")
    return int(size)


def _check_batch_size(size: Any, examples: int) -> None:
    size = whole("batch_size", size)
    if size > examples:
        raise InputError(
            "batch_size",
            size,
            f"must be at most {examples}, the size of the training split",
            f"Use {examples} for full batches, or more data.",
        )


def _label_range(data: Data) -> tuple[int, int] | None:
    """(lowest, highest) integer label of all splits, or None where targets are no array of integers."""
    ys = [split.y for split in (data.train, data.valid, data.test) if split is not None]
    if not all(isinstance(y, np.ndarray) and np.issubdtype(y.dtype, np.integer) for y in ys):
        return None
    return min(int(y.min()) for y in ys), max(int(y.max()) for y in ys)


def _check_labels(outputs: Any, y: Any, labels: tuple[int, int] | None) -> None:
    if labels is None or not hasattr(outputs, "ndim") or outputs.ndim != y.ndim + 1:
        return
    lowest, highest = labels
    classes = outputs.shape[-1]
    if lowest < 0 or highest >= classes:
        raise InputError(
            "data.y",
            lowest if lowest < 0 else highest,
            f"labels must lie in 0 … {classes - 1}, since the model gives {classes} outputs",
            f"Give the model {highest + 1} outputs, renumber the labels, or make y real if this is regression.",
        )


def _per_example(name: str, function: PerExample, outputs: Any, y: Any) -> jax.Array:
    """What a loss or a metric gives, averaged over all axes but the first.

    Raises:
      ProgramError: the first axis does not count examples, or another one does too: (batch, 1) against
        (batch,) was broadcast.
    """
    array = jnp.asarray(function(outputs, y))
    count = examples_in((outputs, y))
    if array.ndim == 0 or array.shape[0] != count:
        raise ProgramError(
            f"{name} must give one value an example, shape ({count},) or ({count}, ...), got {list(array.shape)}: "
            "leave out the mean, hpjax takes it."
        )
    if count in array.shape[1:]:  # By chance, or because it follows the batch? One example more tells.
        more = jax.tree.map(lambda a: jax.ShapeDtypeStruct((count + 1, *a.shape[1:]), a.dtype), (outputs, y))
        if count + 1 in jax.eval_shape(function, *more).shape[1:]:
            shapes = [list(a.shape) for a in jax.tree.leaves((outputs, y))]
            raise ProgramError(
                f"{name} gives {list(array.shape)}, a value for every pair of examples: outputs and y of shapes "
                f"{' and '.join(map(str, shapes))} were broadcast. Give them equal shapes, for example with "
                "outputs[:, 0]."
            )
    return array.reshape(count, -1).mean(-1)
