"""Supervised training: builds a ``Program`` from a Flax model, an Optax optimizer, a loss and data."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal

import jax
import optax

from hpjax.core.errors import InputError, check_int
from hpjax.core.hparams import Hparams
from hpjax.core.objective import Objective
from hpjax.core.program import Batches, Data, Program
from hpjax.data.examples import AnyExamples, examples_in, first_inputs, named_sets
from hpjax.data.stream import Stream, first_batch_of
from hpjax.engine.partition import divides_examples
from hpjax.training.arguments import Context, is_of_h, taken
from hpjax.training.artifacts import supervised_artifacts
from hpjax.training.batching import Batching
from hpjax.training.compute_dtype import computing_in, is_compute_dtype
from hpjax.training.early_stopping import EarlyStopping, keeping
from hpjax.training.initial import Initial
from hpjax.training.inspection import inspect
from hpjax.training.length import steps_of
from hpjax.training.measures import Measures, PerExample
from hpjax.training.model import network
from hpjax.training.monitors import CURVATURE
from hpjax.training.mup import MuP, Scaling
from hpjax.training.network import example_input
from hpjax.training.optimizer import OPTIMIZERS, as_transformation
from hpjax.training.settings import number, setting
from hpjax.training.start import start_of
from hpjax.training.trainer import Training
from hpjax.training.trial_checks import check_trials
from hpjax.training.validation import (
    check_batch_size,
    check_batches,
    check_functions,
    check_kind,
    check_weights,
    checked_data,
    label_range,
)
from hpjax.training.weight_checks import check_weighting
from hpjax.training.weighting import Weighting


def supervised(
    *,
    model: Any,
    optimizer: optax.GradientTransformation | Callable[[Hparams], optax.GradientTransformation],
    loss: PerExample | Callable[[Hparams], PerExample],
    data: Data,
    batch_size: int | Callable[[Hparams], int] | None = None,
    steps: int | Callable[[Hparams], int] | None = None,
    epochs: float | Callable[[Hparams], float] | None = None,
    eval_every: int | Callable[[Hparams], int] | None = None,
    metrics: Mapping[str, PerExample] | Callable[[Hparams], Mapping[str, PerExample]] | None = None,
    split_metrics: Mapping[str, Callable[..., Any]] | Callable[[Hparams], Mapping[str, Any]] | None = None,
    weights: Callable[..., Any] | None = None,
    ignore_label: int | None = None,
    init_from: Any = None,
    frozen: str | Collection[str] | Callable[[str], bool] | None = None,
    start_from: Any = None,
    compute_dtype: Any = "float32",
    mup: MuP | Callable[[Hparams], MuP | None] | None = None,
    penalty: Callable[[Any, Hparams], Any] | None = None,
    augment: Callable[[jax.Array, AnyExamples, Hparams], AnyExamples] | None = None,
    average: float | Callable[[Hparams], float] | None = None,
    early_stopping: EarlyStopping | Callable[[Hparams], EarlyStopping] | None = None,
    keep: Literal["last", "best"] | Objective = "last",
    microbatch: int | None = None,
    monitor: Collection[str] = (),
    train_metrics_every: int | None = 1,
    eval_batch_size: int = 512,
    artifacts: Callable[..., Mapping[str, Any]] | None = None,
) -> Program:
    """Returns a program that trains a Flax model on batches drawn epoch by epoch without replacement, or on a stream.

    Every argument but ``data``, ``weights``, ``ignore_label``, ``keep``, ``microbatch``, ``monitor``,
    ``train_metrics_every``, ``eval_batch_size`` and ``artifacts`` is a constant or a function of ``h``, the
    hyperparameters of a trial; ``penalty`` and ``augment`` get ``h`` as their last argument.

    Args:
      model: a Linen module, ``lambda h: MLP(h.hidden)``; for NNX ``lambda h, rngs: MLP(h.hidden, rngs=rngs)``; for
        Equinox ``lambda h, key: MLP(h.hidden, key=key)``, a module of one example. Its input is the ``x`` of a batch,
        (batch, ...); a model of several inputs gets the parts of ``x``, a tuple or a dict of their names. A
        ``__call__`` may take ``train``, ``deterministic`` or another usual name of the flag that tells training from
        evaluation, keys (``rng``, ``z_rng``) and in NNX ``rngs``. Batch statistics, dropout and streams of other names
        work; boxes of ``with_partitioning`` are taken off.
      optimizer: an Optax gradient transformation, or an ``optax.MultiSteps``. It gets Optax's extra arguments, which
        ``hpx.optim`` lists; there are also versions of those whose numbers Optax cannot trace. Where an optimizer has
        parameters of its own to be evaluated at (lookahead, schedule-free, SAM), evaluations use those.
      loss: ``loss(outputs, y)``, float (batch,): one value for each example; further axes are averaged. Behind these
        it may also take, by name: ``x``, the inputs of the batch; ``params``, the parameters; ``h``; ``key``, a typed
        threefry key of its own; and ``sown``, what the model stored by ``sow``: ``sown["losses"]["aux"]``. A function
        that takes one positional argument, or whose first one is named ``h``, is a function of ``h`` that returns the
        loss; ``loss(outputs, y, h)`` is a loss.
      data: three splits of ``Examples``, or of ``WeightedExamples``, whose weights count in the means of losses and
        metrics as those of ``weights`` do; of windows of a text, by ``hpx.data.tokens``; or data of
        ``hpx.data.stream``, whose batches are pairs (x, y) or triples (x, y, weights). Losses and metrics get the plain
        ``y``. Of several validation sets, a dict of name to ``Examples``, each is measured: ``valid/<set>/loss``; there
        is no ``valid/loss`` then, and the sweep's objective names one of them. Test sets likewise.
      batch_size: examples of an optimizer step, at most those of the training split. Each size needs a program of its
        own, unless ``microbatch`` is given. Leave both out with a stream, which has its own batch size. With
        ``microbatch`` a function of ``h`` may give a function of the examples seen, int32 (), a ramp:
        ``lambda h: optax.linear_schedule(16, h.last, 4096)``, in whole microbatches, which ``steps`` then counts and of
        which metrics are means; evaluations report ``train/optimizer_steps`` and ``train/batch_size``.
      steps: optimizer steps of a trial; or give ``epochs``.
      epochs: passes over the training split, above 0: ⌈epochs × training examples / batch size⌉ steps.
      eval_every: steps between evaluations on the whole validation split; None evaluates at the end only. With
        ``microbatch`` it counts microbatches, so that all lanes have seen equally many examples.
      metrics: names and functions like ``loss``: ``{"accuracy": hpx.metrics.accuracy}``.
      split_metrics: names and functions of all outputs and targets of a split, each (examples, ...), with one number,
        (), called once an evaluation: ``{"auc": hpx.metrics.auc}``. They take what losses take by name, and
        ``weights``, float (examples, ...), which are 1 where none are given: one that does not take them counts all
        examples alike. With folds they get the lane's own fold.
      weights: what each example or token counts, 0 or more: a function that takes some of ``x``, ``y`` and ``h`` by
        these names, ``weights=lambda y: y >= 0``, and gives (batch,) or (batch, tokens, ...). A mean is Σ weight ×
        value / Σ weight, over the batch in training and over the split in an evaluation. A batch without any weight has
        loss 0. Weights of the data are multiplied with these. The plan calls the function with the data; what it cannot
        see there, of ``h`` or of augmented or streamed batches, makes the loss NaN where a weight is below 0.
      ignore_label: a label that counts nothing, such as -100: its examples or tokens have weight 0. A value for a whole
        example counts where one of its labels does. Where ``weights`` has another shape than ``y``, as with shifted
        labels, it alone decides.
      init_from: variables to begin with in place of drawn ones: a pytree of parameters or of variables
        (``{"params": …, "batch_stats": …}``), a trial, what its ``restore()`` gave, a file that ``trial.export`` wrote,
        a Flax ``TrainState``, or a folder of Orbax, of a ``CheckpointManager`` its newest step. Of a trial it takes
        what evaluations use: where there is an average, that one. What it has not is drawn, and the plan says what.
        Names and shapes are those of the model.
      frozen: which parameters of ``init_from`` do not train: patterns of their names, ``"encoder/*"``, or a function of
        the name. They are held once for all lanes, whose states are without them: many adapters over one base model.
        ``restore()``, ``export()``, and losses that take ``params`` have them.
      start_from: the state of a trial to go on from, of the same model and optimizer: a trial, what its ``restore()``
        gave, or a function of ``h`` that gives such nested dicts. Lanes begin with its parameters, batch statistics,
        average, and state of the optimizer, so that schedules go on where it was; steps and batches begin anew. Many
        lanes branch from one state so, or from several: ``lambda h: jax.tree.map(lambda x: x[h.start], stacked)``.
      compute_dtype: ``"bfloat16"`` computes the model and its gradient in half of the bytes: in each call it casts
        parameters and inputs to it, and outputs to float32. Parameters, the optimizer's state, batch statistics, losses
        and metrics stay as they are. A layer that sets a dtype of its own keeps it.
      mup: an ``hpx.mup.MuP``: initial weights and learning rates of the maximal update parametrization, with which
        what is tuned at one width holds at others.
      penalty: ``penalty(params, h)``, a scalar that is added to the loss and reported as ``train/penalty``:
        ``lambda params, h: h.l1 * hpx.losses.l1(params)``. ``train/loss`` does not include it.
      augment: ``augment(key, batch, h) -> batch``, applied to each training batch, an ``Examples``: noise, crops,
        mixup. The key is a typed threefry key, shape (). It may also make what the model gets, noise levels and noisy
        inputs say, of arrays of other shapes than those of the validation split. Of data with weights it gets
        ``WeightedExamples``; where it returns ``Examples``, each row keeps its weight.
      average: decay of an exponential moving average of the parameters, in [0, 1]. It starts at the initial parameters,
        and evaluations use it in place of the parameters. Optimizers with parameters of their own to be evaluated at
        allow none.
      early_stopping: an ``hpx.EarlyStopping``.
      keep: which parameters a complete trial keeps: its ``"last"``, or with early stopping its best; ``"best"``, those
        of the evaluation with the lowest ``valid/loss``; or those that are best by an objective,
        ``hpx.maximize("valid/accuracy")``. Its best value is reported as ``valid/best_<metric>``.
      microbatch: examples that a lane computes at once. Gradients are summed until the batch is complete, so that one
        program serves all batch sizes, and a batch may be larger than memory. Means over the batch are exact even where
        ``microbatch`` does not divide it. Batch statistics are those of microbatches, and so are augmentations: where
        the last microbatch of a batch is short, the examples that follow fill it up, and have no other effect.
      monitor: what else to report, averaged since the last evaluation. For each layer, as
        ``train/<monitor>/<layer>``: ``"gradient_norm"``, ``"update_ratio"`` (the norm of the update over that of the
        weights) and ``"dead_units"`` (the share of units with gradient 0). Over all layers: ``"sparsity"`` (the share
        of weights below 1e-3). With ``microbatch`` ``"gradient_noise"``, of all and of each layer. ``hpx.diagnose``
        reads those of layers, ``hpx.studies.noise_scale`` the gradient noise. And at evaluations ``"sharpness"`` and
        ``"trace"``, the largest eigenvalue and the trace of the Hessian of the training loss, penalty included, at
        ``params``: by 20 and 16 products with vectors, over at most 2,048 training examples, in parts of
        ``eval_batch_size``, without augmentation, and with the model as in an evaluation.
      train_metrics_every: steps from one training batch whose ``metrics`` are computed to the next, in between the last
        values stand: ``train/<metric>`` is their mean over all steps. None computes none. The loss is always there.
      eval_batch_size: examples that one lane evaluates at once; results are exact for any. A loss that compares the
        examples of a batch, as contrastive ones do, compares those of each part of the split; where ``eval_batch_size``
        does not divide it, the last part is filled up with copies of its last example.
      artifacts: what a run keeps of chosen trials at an evaluation, for ``trial.artifacts``: a function that takes some
        of ``params``, ``stats``, ``x``, ``y``, ``outputs``, ``key`` and ``h`` by these names, and returns a dict of
        name to array: ``artifacts=lambda outputs: {"samples": outputs[:16]}``. ``x`` and ``y`` are the validation
        split, of several sets dicts of their names, and ``outputs`` the model's; ``params`` and ``stats`` are those of
        evaluations. ``Sweep(artifacts=...)`` chooses the trials. Training is the same in every bit.

    Returns:
      A program whose metrics are ``train/loss``, ``valid/loss`` and those of ``metrics``, each float32 at least, and of
      the validation split those of ``split_metrics``. Its state is a NamedTuple
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
    check_kind(data)
    check_batches(data, batch_size, microbatch, monitor)
    check_functions(metrics, split_metrics, penalty, augment)
    data = checked_data(data, augment is not None)
    check_weights(data, weights, ignore_label, monitor)
    initial = None if init_from is None and frozen is None else Initial.of(init_from, frozen)
    net = computing_in(network(model), setting("compute_dtype", compute_dtype, is_compute_dtype))
    # Of what evaluations bring: the inputs of training batches may be those of the model only when augmented.
    example = example_input(first_inputs(next(iter(named_sets(data.valid).values()))))
    scaling = Scaling(net, example, setting("mup", mup, lambda v: v is None or isinstance(v, MuP)))
    if mup is not None and net.layers is None:
        allowed = "needs a model of Linen or NNX, whose kernels have their inputs before their outputs"
        raise InputError("supervised.mup", "MuP", allowed, "Write the model in one of these, or remove mup.")
    net = scaling.network()
    train = first_batch_of(data.train)
    examples = examples_in(train)
    if batch_size is not None and not callable(batch_size):
        check_batch_size(batch_size, examples)
    training = Training(
        net=net if initial is None else initial.network(net),
        example=example,
        examples=examples,
        weighted=train.weights is not None,
        measures=Measures(
            setting("loss", loss, _is_loss),
            setting("metrics", {} if metrics is None else metrics, lambda v: isinstance(v, Mapping)),
            setting("split_metrics", {} if split_metrics is None else split_metrics, lambda v: isinstance(v, Mapping)),
            label_range(data, ignore_label),
            Weighting(weights, ignore_label),
        ),
        valid_sets=tuple(named_sets(data.valid)),
        optimizer=_transformation(setting("optimizer", optimizer, lambda v: isinstance(v, OPTIMIZERS))),
        scaling=scaling,
        start=start_of(start_from),
        frozen={} if initial is None else initial.frozen,
        batching=Batching(
            None if batch_size is None else number("batch_size", batch_size),
            None if microbatch is None else check_int("supervised.microbatch", microbatch, most=examples),
        ),
        eval_batch_size=check_int("supervised.eval_batch_size", eval_batch_size),
        penalty=penalty,
        augment=augment,
        average=None if average is None else number("average", average),
        stopping=_stopping(early_stopping, keep),
        monitors=tuple(monitor),
        train_metrics_every=train_metrics_every
        if train_metrics_every is None
        else check_int("supervised.train_metrics_every", train_metrics_every),
    )

    describe = {
        "kind": "supervised",
        "data": data.name,
        "examples": [0 if split is None else _size_of(split) for split in (data.train, data.valid, data.test)],
        "batch_size": "a function of h" if callable(batch_size) else int(batch_size or examples),
    }
    # Noise that is drawn for each microbatch is other noise than that of a whole batch.
    alike = augment is None and not _draws(loss)
    program = _program(
        training, data, steps_of(steps, epochs, batch_size, microbatch, data), eval_every, alike, describe
    )
    if (callable(batch_size) and microbatch is not None) or not CURVATURE.isdisjoint(monitor):  # a ramp, at some h
        program = replace(program, inspect=divides_examples(partial(inspect, training)))
    if artifacts is not None:
        program = replace(program, artifacts=supervised_artifacts(training.net, artifacts, training.eval_batch_size))
    return program if initial is None else replace(program, shared=initial.tree())


def _is_loss(value: Any) -> bool:
    """Returns whether a value is a loss. Raises ``InputError`` if it is one that needs what hpjax does not know."""
    return callable(value) and not is_of_h(value) and taken("supervised.loss", value, Context._fields) is not None


def _transformation(optimizer: Callable[[Hparams], Any]) -> Callable[[Hparams], optax.GradientTransformation]:
    """Returns a function of ``h`` that gives the gradient transformation of what ``optimizer`` gives."""
    return lambda h: as_transformation(optimizer(h))


def _stopping(early_stopping: Any, keep: Any) -> Callable[[Hparams], EarlyStopping] | None:
    """Returns what keeps the best parameters and perhaps stops a lane, a function of ``h``; None where nothing does."""
    kept = keeping(keep)
    if early_stopping is None:
        return None if kept is None else lambda h: kept
    if kept is not None:
        allowed = "cannot be combined with early_stopping, which keeps the parameters of its own best evaluation"
        raise InputError("supervised.keep", keep, allowed, "Remove keep.")
    return setting("early_stopping", early_stopping, lambda v: isinstance(v, EarlyStopping))


def _size_of(split: Any) -> Any:
    """Returns the number of examples of a split, of each of its sets, or what a stream is."""
    if isinstance(split, Stream):
        return str(split)
    sizes = {name: examples_in(examples) for name, examples in named_sets(split).items()}
    return sizes.get("", sizes)


def _draws(loss: Any) -> bool:
    """Returns whether a loss takes a key; of a function of ``h`` it is not known, and False."""
    return not is_of_h(loss) and "key" in taken("supervised.loss", loss, Context._fields)


def _program(
    training: Training, data: Data, steps: Any, eval_every: Any, alike: bool, describe: Mapping[str, object]
) -> Program:
    """Returns the ``Program`` of a training, with the checks of its hyperparameters.

    Args:
      training: what a lane does.
      data: the checked splits.
      steps: the number of them, a constant or a function of ``h``.
      eval_every: as given to ``supervised``.
      alike: as for ``Batches``.
      describe: what the manifest records.
    """

    @cache  # once, however many rounds of trials are planned
    def check_weights_of_data() -> None:
        augmented = training.augment is not None
        check_weighting(training.measures.weighting, data, augmented, training.eval_batch_size)

    def validate(own: Training, trials: Any) -> None:
        check_weights_of_data()
        check_trials(own, data, trials)

    @cache  # equal objects are the same, as Batches promises
    def fields(microbatch: int | None) -> dict[str, Any]:
        own, batches = replace(training, batching=training.batching._replace(microbatch=microbatch)), None
        if own.batching.batch_size is not None:
            batches = Batches(own.batching.size, microbatch, fields, alike=alike)
        return {
            "init": own.init,
            "step": own.step,
            "batch": own.batch,
            "microsteps": 1 if microbatch is None else own.batching.microsteps,
            "validate": partial(validate, own),
            "batches": batches,
        }

    finish: dict[str, Any] = {} if training.stopping is None else {"finish": training.finish}
    return Program(
        evaluate=training.evaluate,
        data=data,
        test=None if training.stopping is None else training.measure,
        react=training.react,
        steps=steps,
        eval_every=eval_every,
        parameters=lambda state: state.params,
        predict=training.predict,
        activations=None if training.net.layers is None else training.activations,
        describe=describe,
        **fields(training.batching.microbatch),
        **finish,
    )
