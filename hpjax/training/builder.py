"""supervised: a Flax model, an Optax optimizer, a loss and data, as a Program."""

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
from hpjax.training.monitors import MONITORS, OF_PARTS
from hpjax.training.network import example_input, network, required_arguments
from hpjax.training.trainer import Training
from hpjax.training.validation import _check_batch_size, _check_settings, _checked, _label_range


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
    """A program that trains a Flax model on batches drawn without replacement, epoch by epoch, or on those of a stream.

    Every argument but the data, ``microbatch`` and ``eval_batch_size`` is a constant or a function of ``h``, the
    hyperparameters of a trial; ``penalty`` and ``augment`` get ``h`` as their last argument.

    Args:
      model: a Linen module, ``lambda h: MLP(h.hidden)``, or for NNX ``lambda h, rngs: MLP(h.hidden, rngs=rngs)``.
        Linen modules may take ``train``, ``training``, ``is_training``, ``deterministic`` or
        ``use_running_average``; batch statistics and dropout are taken care of for both.
      optimizer: an Optax gradient transformation; what of it cannot be traced ``hpx.optim`` has anew.
      loss: ``loss(outputs, y)``, one value an example: shape (batch,), further axes are averaged.
        A function whose only argument is, or whose first is called, ``h`` is taken for a function of ``h``.
      data: three splits of ``Examples``; or from ``hpx.data.stream`` with batches of them in place of the train split.
      batch_size: examples a step, at most the size of the training split. Each gets a program of its own, unless
        ``microbatch`` is given. A stream has its own, and takes neither.
      steps: optimizer steps of a trial.
      eval_every: steps between evaluations on the whole validation split; None evaluates at the end only. With
        ``microbatch`` it counts microbatches, so that all lanes have seen as many examples.
      metrics: name to a function like ``loss``, e.g. ``{"accuracy": hpx.metrics.accuracy}``.
      penalty: ``penalty(params, h)``, a scalar added to the loss that is minimized, and reported as ``train/penalty``:
        ``lambda params, h: h.l1 * hpx.losses.l1(params)``. ``train/loss`` is without it.
      augment: ``augment(key, batch, h) -> batch``, applied to each training batch: noise, crops, mixup. The batch is
        ``Examples(x, y)``.
      average: decay of an exponential moving average of the parameters, which starts at the initial ones and is
        evaluated in their place.
      early_stopping: an ``hpx.EarlyStopping``.
      microbatch: examples that a lane computes at once; gradients are summed until its batch is whole, so that one
        program serves all batch sizes and a batch may be larger than memory. Means are exact where it does not
        divide the batch. Batch statistics are those of microbatches, and of augmentations too: where the last one is
        short, the examples that follow fill it up for these, and count for nothing else.
      monitor: what else to report of training, by layer and averaged since the last evaluation: ``"gradient_norm"``,
        ``"update_ratio"`` (of the update to the weights), ``"dead_units"`` (the share that gets no gradient) and
        ``"sparsity"`` (the share of weights below 1e-3). ``hpx.diagnose`` reads them. With ``microbatch`` also
        ``"gradient_noise"``, of all layers together, which ``hpx.studies.noise_scale`` reads.
      eval_batch_size: examples that one lane evaluates at once; results are exact for any.

    Returns:
      A program whose metrics are ``train/loss``, ``valid/loss`` and those of ``metrics``. Its state is a dict:
      ``params``, ``stats`` (batch statistics and the like), ``opt_state``, and what the arguments ask for. A lane
      diverges where a metric is NaN or infinite, or at an evaluation one of ``params``.

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
            "Use hpx.data.from_arrays(x, y, valid=(x, y), test=(x, y)), or leave these two to be cut from x and y.",
        )
    streamed = isinstance(data.train, Stream)
    for name, number in (("batch_size", batch_size), ("microbatch", microbatch)):
        if streamed and number is not None:
            allowed = "must be left out with a stream, whose batches are what a step takes"
            raise InputError(f"supervised.{name}", number, allowed, "Let the stream give batches of that size.")
    if batch_size is None and not streamed:
        raise InputError("supervised.batch_size", None, "must be given", "Write batch_size=64.")
    if isinstance(metrics, Mapping):
        check_metrics(metrics)
    elif metrics is not None and (not callable(metrics) or required_arguments(metrics) > 1):
        raise InputError(
            "supervised.metrics",
            show(metrics),
            "must be a dict of name to function, or a function of h that gives one",
            'Write {"accuracy": hpx.metrics.accuracy}.',
        )
    for name, function in (("penalty", penalty), ("augment", augment)):
        if function is not None and not callable(function):
            raise InputError(f"supervised.{name}", function, "must be a function whose last argument is h", "See help.")
    for name in monitor:
        if name not in (*MONITORS, OF_PARTS) or isinstance(monitor, str):
            known = did_you_mean(str(name), (*MONITORS, OF_PARTS))
            raise InputError("supervised.monitor", monitor, "must be a list of monitors", known)
    if OF_PARTS in monitor and microbatch is None:
        allowed = "needs batches that come in parts, whose gradients it compares"
        raise InputError("supervised.monitor", OF_PARTS, allowed, "Give microbatch, a part of each batch size.")
    data = _checked(data)
    train = first_batch_of(data.train)
    examples = examples_in(train)
    if batch_size is not None and not callable(batch_size):
        _check_batch_size(batch_size, examples)
    training = Training(
        net=network(model),
        example=example_input(train.x),
        examples=examples,
        measures=Measures(
            _setting("loss", loss, lambda v: callable(v) and not _of_h(v)),
            _setting("metrics", {} if metrics is None else metrics, lambda v: isinstance(v, Mapping)),
            _label_range(data),
        ),
        optimizer=_setting("optimizer", optimizer, lambda v: isinstance(v, optax.GradientTransformation)),
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
    """Returns the program of a training."""

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
        parameters=lambda state: state["params"],
        predict=training.predict,
        describe=describe,
        **fields(training.microbatch),
        **finish,
    )


def _validate(training: Training, data: Data, trials: Sequence[tuple[Hparams, TrialLength]]) -> None:
    """Raises unless a training can run with the hyperparameters of these trials."""
    if training.batch_size is not None:
        _validate_sizes(training, data, trials, training.batch_size)
    _check_settings(training, trials)


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
    sizes = {_check_batch_size(batch_size(h), most) for h, _ in trials}
    if training.microbatch is not None and all(size % training.microbatch for size in sizes):
        raise InputError(
            "supervised.microbatch",
            training.microbatch,
            f"divides no batch size; there are {', '.join(map(str, sorted(sizes)))}",
            f"Use {math.gcd(*sizes)}.",
        )
    if OF_PARTS in training.monitors and training.microbatch is not None and min(sizes) <= training.microbatch:
        allowed = f"cannot tell noise from gradient where a batch, of {min(sizes)}, is one microbatch"
        raise InputError("supervised.monitor", OF_PARTS, allowed, f"Use a microbatch below {min(sizes)}.")
    for h, schedule in trials:
        size = int(batch_size(h))
        if (schedule.steps + 1) * size >= 2**32:
            raise InputError("steps × batch_size", schedule.steps * size, "must stay below 2**32", "Use fewer steps.")


def _number(name: str, value: Any) -> Callable[[Hparams], Any]:
    """A number, or a function of ``h`` that gives one."""
    return annotate_errors(f"supervised.{name}", value) if callable(value) else lambda h: value


def _setting(name: str, value: Any, is_constant: Callable[[Any], bool]) -> Callable[[Hparams], Any]:
    """``value`` as a function of ``h``: a constant becomes one that ignores it."""
    if is_constant(value):
        return lambda h: value
    if not callable(value):
        raise InputError(f"supervised.{name}", value, "must be a constant of its kind or a function of h", "See help.")

    def of(h: Hparams) -> Any:
        given = annotate_errors(f"supervised.{name}", value)(h)
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
