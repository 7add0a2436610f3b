"""supervised: builds a ``Program`` from a Flax model, an Optax optimizer, a loss and data."""

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import optax

from hpjax.core.arrays import ceil_div
from hpjax.core.errors import InputError, ProgramError, annotate_errors, check_int, did_you_mean
from hpjax.core.format import show
from hpjax.core.hparams import Hparams
from hpjax.core.program import Batches, Data, Program, TrialLength
from hpjax.data.examples import Examples, examples_in
from hpjax.data.stream import Stream, first_batch_of
from hpjax.training.early_stopping import EarlyStopping
from hpjax.training.measures import Measures, PerExample, check_metrics
from hpjax.training.model import network, required_arguments
from hpjax.training.monitors import MONITORS, OF_PARTS
from hpjax.training.network import example_input
from hpjax.training.optimizer import OPTIMIZERS, as_transformation
from hpjax.training.trainer import Training
from hpjax.training.validation import check_batch_size, check_settings, checked_data, label_range


def supervised(
    *,
    model: Any,
    optimizer: optax.GradientTransformation | Callable[[Hparams], optax.GradientTransformation],
    loss: PerExample | Callable[[Hparams], PerExample],
    data: Data,
    batch_size: int | Callable[[Hparams], int] | None = None,
    steps: int | Callable[[Hparams], int],
    eval_every: int | Callable[[Hparams], int] | None = None,
    metrics: Mapping[str, PerExample] | Callable[[Hparams], Mapping[str, PerExample]] | None = None,
    penalty: Callable[[Any, Hparams], Any] | None = None,
    augment: Callable[[jax.Array, Examples, Hparams], Examples] | None = None,
    average: float | Callable[[Hparams], float] | None = None,
    early_stopping: EarlyStopping | Callable[[Hparams], EarlyStopping] | None = None,
    microbatch: int | None = None,
    monitor: Collection[str] = (),
    eval_batch_size: int = 512,
) -> Program:
    """Returns a program that trains a Flax model on batches drawn epoch by epoch without replacement, or on a stream.

    Every argument but ``data``, ``microbatch``, ``monitor`` and ``eval_batch_size`` is a constant or a function of
    ``h``, the hyperparameters of a trial; ``penalty`` and ``augment`` get ``h`` as their last argument.

    Args:
      model: a Linen module, ``lambda h: MLP(h.hidden)``; for NNX ``lambda h, rngs: MLP(h.hidden, rngs=rngs)``; for
        Equinox ``lambda h, key: MLP(h.hidden, key=key)``, a module of one example. Inputs are ``data.train.x`` of one
        batch, (batch, ...). A ``__call__`` may take ``train``, ``deterministic`` or another usual name of the flag
        that tells training from evaluation, keys (``rng``, ``z_rng``) and in NNX ``rngs``. Batch statistics, dropout
        and streams of other names work; boxes of ``with_partitioning`` are taken off.
      optimizer: an Optax gradient transformation, or an ``optax.MultiSteps``. It gets Optax's extra arguments, which
        ``hpx.optim`` lists; there are also versions of those whose numbers Optax cannot trace. Where an optimizer has
        parameters of its own to be evaluated at (lookahead, schedule-free, SAM), evaluations use those.
      loss: ``loss(outputs, y)``, float (batch,): one value for each example; further axes are averaged. A function that
        takes one argument, or whose first argument is named ``h``, is a function of ``h`` that returns the loss.
      data: three splits of ``Examples``; or data of ``hpx.data.stream``, whose batches are pairs (x, y).
      batch_size: examples of an optimizer step, at most those of the training split. Each size needs a program of its
        own, unless ``microbatch`` is given. Leave both out with a stream, which has its own batch size.
      steps: optimizer steps of a trial.
      eval_every: steps between evaluations on the whole validation split; None evaluates at the end only. With
        ``microbatch`` it counts microbatches, so that all lanes have seen equally many examples.
      metrics: names and functions like ``loss``: ``{"accuracy": hpx.metrics.accuracy}``.
      penalty: ``penalty(params, h)``, a scalar that is added to the loss and reported as ``train/penalty``:
        ``lambda params, h: h.l1 * hpx.losses.l1(params)``. ``train/loss`` does not include it.
      augment: ``augment(key, batch, h) -> batch``, applied to each training batch, an ``Examples``: noise, crops,
        mixup. The key is a typed threefry key, shape ().
      average: decay of an exponential moving average of the parameters, in [0, 1]. It starts at the initial parameters,
        and evaluations use it in place of the parameters. Optimizers with parameters of their own to be evaluated at
        allow none.
      early_stopping: an ``hpx.EarlyStopping``.
      microbatch: examples that a lane computes at once. Gradients are summed until the batch is complete, so that one
        program serves all batch sizes, and a batch may be larger than memory. Means over the batch are exact even where
        ``microbatch`` does not divide it. Batch statistics are those of microbatches, and so are augmentations: where
        the last microbatch of a batch is short, the examples that follow fill it up, and have no other effect.
      monitor: what else to report, averaged since the last evaluation. For each layer, as
        ``train/<monitor>/<layer>``: ``"gradient_norm"``, ``"update_ratio"`` (the norm of the update over that of the
        weights) and ``"dead_units"`` (the share of units with gradient 0). Over all layers: ``"sparsity"`` (the share
        of weights below 1e-3), and with ``microbatch`` ``"gradient_noise"``. ``hpx.diagnose`` reads those of
        layers, ``hpx.studies.noise_scale`` the gradient noise.
      eval_batch_size: examples that one lane evaluates at once; results are exact for any.

    Returns:
      A program whose metrics are ``train/loss``, ``valid/loss`` and those of ``metrics``. Its state is a NamedTuple
      with ``params``, ``stats`` (batch statistics and the like), ``opt_state``, and further fields for what the
      arguments ask for; ``trial.restore()`` gives it as dicts. A lane diverges where a metric is NaN or infinite, or at
      an evaluation one of ``params``.

    Raises:
      InputError: an argument that cannot be used.

    Example:
      >>> program = supervised(
      ...     model=lambda h: nn.Sequential([nn.Dense(h.hidden), nn.relu, nn.Dense(10)]),
      ...     optimizer=lambda h: optax.sgd(h.learning_rate, h.momentum),
      ...     loss=optax.softmax_cross_entropy_with_integer_labels,
      ...     data=hpx.data.digits(), batch_size=64, steps=2_000, eval_every=100)
    """
    if not isinstance(data, Data) or not isinstance(first_batch_of(data.train), Examples):
        raise InputError(
            "supervised.data",
            f"{type(data).__name__} of {type(first_batch_of(data.train)).__name__}"
            if isinstance(data, Data)
            else show(data),
            "must be Data of Examples",
            "Write data=hpx.data.from_arrays(x, y).",
        )
    streamed = isinstance(data.train, Stream)
    for name, number in (("batch_size", batch_size), ("microbatch", microbatch)):
        if streamed and number is not None:
            allowed = "must be left out with a stream, whose batches have a size of their own"
            raise InputError(f"supervised.{name}", number, allowed, f"Remove {name}={number!r}.")
    if batch_size is None and not streamed:
        raise InputError("supervised.batch_size", None, "must be given", "Write batch_size=64.")
    if isinstance(metrics, Mapping):
        check_metrics(metrics, ("loss",) if penalty is None else ("loss", "penalty"))
    elif metrics is not None and (not callable(metrics) or len(required_arguments(metrics)) > 1):
        raise InputError(
            "supervised.metrics",
            show(metrics),
            "must be a dict of name to function, or a function of h that returns one",
            'Write metrics={"accuracy": hpx.metrics.accuracy}.',
        )
    for name, function, signature in (("penalty", penalty, "params"), ("augment", augment, "key, batch")):
        if function is not None and not callable(function):
            allowed, remedy = "must be a function whose last argument is h", f"Write {name}=lambda {signature}, h: ..."
            raise InputError(f"supervised.{name}", function, allowed, remedy)
    for name in monitor:
        if name not in (*MONITORS, OF_PARTS) or isinstance(monitor, str):
            known = did_you_mean(str(name), (*MONITORS, OF_PARTS))
            raise InputError("supervised.monitor", monitor, "must be a list of monitors", known)
    if OF_PARTS in monitor and microbatch is None:
        allowed = "needs microbatches, whose gradients it compares"
        raise InputError("supervised.monitor", OF_PARTS, allowed, "Write microbatch=16, less than each batch size.")
    data = checked_data(data)
    train = first_batch_of(data.train)
    examples = examples_in(train)
    if batch_size is not None and not callable(batch_size):
        check_batch_size(batch_size, examples)
    training = Training(
        net=network(model),
        example=example_input(train.x),
        examples=examples,
        measures=Measures(
            _setting("loss", loss, lambda v: callable(v) and not _of_h(v)),
            _setting("metrics", {} if metrics is None else metrics, lambda v: isinstance(v, Mapping)),
            label_range(data),
        ),
        optimizer=_transformation(_setting("optimizer", optimizer, lambda v: isinstance(v, OPTIMIZERS))),
        batch_size=None if batch_size is None else _number("batch_size", batch_size),
        eval_batch_size=check_int("supervised.eval_batch_size", eval_batch_size),
        penalty=penalty,
        augment=augment,
        average=None if average is None else _number("average", average),
        stopping=None
        if early_stopping is None
        else _setting("early_stopping", early_stopping, lambda v: isinstance(v, EarlyStopping)),
        microbatch=None if microbatch is None else check_int("supervised.microbatch", microbatch, most=examples),
        monitors=tuple(monitor),
    )

    describe = {
        "kind": "supervised",
        "data": data.name,
        "examples": [
            str(split) if isinstance(split, Stream) else 0 if split is None else examples_in(split)
            for split in (data.train, data.valid, data.test)
        ],
        "batch_size": examples
        if batch_size is None
        else "a function of h"
        if callable(batch_size)
        else int(batch_size),
    }
    return _program(training, data, steps, eval_every, describe)


def _program(training: Training, data: Data, steps: Any, eval_every: Any, describe: Mapping[str, object]) -> Program:
    """Returns the ``Program`` of a training, with the checks of its hyperparameters.

    Args:
      training: what a lane does.
      data: the checked splits.
      steps, eval_every: as given to ``supervised``.
      describe: what the manifest records.
    """

    @cache  # equal objects are the same, as Batches promises
    def fields(microbatch: int | None) -> dict[str, Any]:
        own, batches = replace(training, microbatch=microbatch), None
        if own.batch_size is not None:
            batches = Batches(own.batch_size, microbatch, fields, alike=own.augment is None)
        return {
            "init": own.init,
            "step": own.step,
            "batch": own.batch,
            "microsteps": 1 if microbatch is None else own.microsteps,
            "validate": partial(_validate, own, data),
            "batches": batches,
        }

    finish: dict[str, Any] = {} if training.stopping is None else {"finish": training.finish}
    return Program(
        evaluate=training.evaluate,
        data=data,
        test=training.measure,
        react=training.react,
        steps=steps,
        eval_every=eval_every,
        parameters=lambda state: state.params,
        predict=training.predict,
        describe=describe,
        **fields(training.microbatch),
        **finish,
    )


def _validate(training: Training, data: Data, trials: Sequence[tuple[Hparams, TrialLength]]) -> None:
    """Raises unless a training can run with the hyperparameters of these trials."""
    if training.batch_size is not None:
        _validate_sizes(training, data, trials, training.batch_size)
    check_settings(training, trials)


def _validate_sizes(
    training: Training,
    data: Data,
    trials: Sequence[tuple[Hparams, TrialLength]],
    batch_size: Callable[[Hparams], Any],
) -> None:
    """Raises unless the data has as many examples as each batch, and the microbatch fits the batches."""
    folds = next((h.folds for h, _ in trials if "folds" in h), None)
    pooled = training.examples + examples_in(data.valid)
    most = training.examples if folds is None else pooled - ceil_div(pooled, folds)
    sizes = {check_batch_size(batch_size(h), most) for h, _ in trials}
    if training.microbatch is not None and all(size % training.microbatch for size in sizes):
        raise InputError(
            "supervised.microbatch",
            training.microbatch,
            f"divides no batch size; there are {', '.join(map(str, sorted(sizes)))}",
            f"Write microbatch={math.gcd(*sizes)}.",
        )
    if OF_PARTS in training.monitors and training.microbatch is not None and min(sizes) <= training.microbatch:
        allowed = f"cannot tell noise from gradient where a batch, of {min(sizes)} examples, is one microbatch"
        raise InputError("supervised.monitor", OF_PARTS, allowed, f"Write microbatch={max(min(sizes) // 2, 1)}.")
    for h, length in trials:
        size = int(batch_size(h))
        if (length.steps + 1) * size >= 2**32:  # positions in the sequence of epochs are uint32
            remedy = f"Write steps={2**32 // size - 2}."
            raise InputError("steps × batch_size", length.steps * size, "must stay below 2**32", remedy)


# What may be given for an argument that is a constant or a function of h, and what to type.
_ALLOWED = {
    "loss": "must be a function of (outputs, y), or a function of h that returns one",
    "metrics": "must be a dict of name to function, or a function of h that returns one",
    "optimizer": "must be an Optax gradient transformation, or a function of h that returns one",
    "early_stopping": "must be an hpx.EarlyStopping, or a function of h that returns one",
}
_EXAMPLES = {
    "loss": "optax.softmax_cross_entropy_with_integer_labels",
    "metrics": '{"accuracy": hpx.metrics.accuracy}',
    "optimizer": "lambda h: optax.sgd(h.learning_rate)",
    "early_stopping": "hpx.EarlyStopping(patience=3)",
}


def _number(name: str, value: Any) -> Callable[[Hparams], Any]:
    """Returns ``value``, a number or a function of ``h``, as a function of ``h``."""
    return annotate_errors(f"supervised.{name}", value) if callable(value) else lambda h: value


def _setting(name: str, value: Any, is_constant: Callable[[Any], bool]) -> Callable[[Hparams], Any]:
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


def _transformation(optimizer: Callable[[Hparams], Any]) -> Callable[[Hparams], optax.GradientTransformation]:
    """Returns a function of ``h`` that gives the gradient transformation of what ``optimizer`` gives."""
    return lambda h: as_transformation(optimizer(h))


def _of_h(function: Callable[..., Any]) -> bool:
    """Returns whether ``function`` takes one positional argument only, or its first argument is named ``h``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins have no signature
        return False
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return positional[:1] == ["h"] or (len(positional) == 1 and not any(p.kind is p.VAR_POSITIONAL for p in parameters))
