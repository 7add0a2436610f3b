"""Training: what a lane of a supervised program does, as pure functions of its state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hpjax.core.arrays import at_least_float32, ceil_div
from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError, ProgramError, did_you_mean
from hpjax.core.hparams import Hparams
from hpjax.core.program import Metrics
from hpjax.core.threefry import fast, plain
from hpjax.data.batches import Fold, examples_at
from hpjax.data.examples import Examples, examples_in
from hpjax.engine.lowering import lowered
from hpjax.optim.decay_bounds import check_decays
from hpjax.optim.transforms import looks_at_metrics
from hpjax.training.augmentation import augmented
from hpjax.training.early_stopping import EarlyStopping
from hpjax.training.evaluation import measure_split
from hpjax.training.measures import Measures, Values, joined, penalty_of, per_example
from hpjax.training.monitors import MONITORS, OF_PARTS, gradient_noise, square
from hpjax.training.network import Network
from hpjax.training.optimizer import Optimized, begin, cannot_evaluate, of_loss, typed_as, updated
from hpjax.training.state import Accumulated, LastEvaluation, TrainingState

OfH = Callable[[Hparams], Any]

# Folded into the key of a step. The model has the key itself and 1: see ``training.network``.
AUGMENT, NOISE = 2, 3


@dataclass(frozen=True)
class Training:
    """A supervised program.

    Attributes:
      net: the model.
      example: one input example, (1, ...), that the model is initialized with.
      examples: number of examples in the training split.
      measures: the loss and the metrics.
      monitors: the names of what is monitored.
      optimizer, batch_size, eval_batch_size, penalty, augment, average, stopping, microbatch: the arguments of
        ``supervised``, as functions of ``h`` where they may depend on it; None where they are not asked for.
    """

    net: Network
    example: Any
    examples: int
    measures: Measures
    optimizer: OfH
    batch_size: OfH | None
    eval_batch_size: int
    penalty: Callable[[Any, Hparams], Any] | None
    augment: Callable[[jax.Array, Examples, Hparams], Examples] | None
    average: OfH | None
    stopping: OfH | None
    microbatch: int | None
    monitors: tuple[str, ...]

    def init(self, key: jax.Array, h: Hparams) -> TrainingState:
        """Returns the state before the first step."""
        key, real = fast(key), jnp.result_type(float)
        params, stats = self.net.init(key, self.example, h)
        # Flax draws batch statistics in float32, and ``apply`` may return them in the wider dtype of the inputs.
        settled = jax.eval_shape(lambda: self.net.apply(key, params, stats, self.example, h, True).stats)
        stats = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), stats, settled)
        _, opt_state, average = begin(self._optimizer(h), params, self._decay(h))
        state = TrainingState(params, stats, opt_state, average)
        if looks_at_metrics(state.opt_state):
            metrics = {f"valid/{name}": jnp.full((), jnp.inf, real) for name in self._valid_names(h)}
            state = state._replace(last=LastEvaluation(metrics, jnp.zeros((), jnp.int32)))
        if self.stopping is not None:
            state = state._replace(stopping=self._stopping(h).init(state.evaluated))
        if self.microbatch is not None:
            zero = jnp.zeros((), real)
            squares = zero if OF_PARTS in self.monitors else None
            zeros = jax.tree.map(lambda p: jnp.zeros_like(at_least_float32(p)), params)
            sums = Accumulated(zeros, zero, jnp.zeros((), jnp.int32), squares)
            state = state._replace(accumulated=sums)
        return state

    def microsteps(self, h: Hparams) -> Any:
        """Returns the number of microbatches in a batch, int32 () where the batch size is traced."""
        return (
            1 if self.microbatch is None or self.batch_size is None else ceil_div(self.batch_size(h), self.microbatch)
        )

    def batch(self, key: jax.Array, call: jax.Array, train: Examples, h: Hparams) -> Examples:
        """Returns the examples of one call of ``step``: a batch, or one microbatch of it.

        Args:
          key: the key of the purpose ``"batch"``, shape ().
          call: number of the call, int32 (), from 0.
          train: the training split, with folds the whole pool, with a stream the batch itself.
          h: the hyperparameters.
        """
        if self.batch_size is None:
            return train
        key, size = fast(key), self.batch_size(h)
        if self.microbatch is None and isinstance(size, jax.core.Tracer):
            raise ProgramError("batch_size sets the shape of a batch; with microbatch=m it can be traced")
        count = int(size) if self.microbatch is None else self.microbatch
        microsteps = self.microsteps(h)
        call, microsteps, size = (jnp.asarray(number, jnp.uint32) for number in (call, microsteps, size))
        # Batches follow each other in the sequence of epochs; in each batch the microbatches do.
        place = call // microsteps * size + call % microsteps * count + jnp.arange(count, dtype=jnp.uint32)
        if "fold" in h:
            everything = examples_in(train)
            fold = Fold.of(h.fold, h.folds, everything)
            index = examples_at(key, place, everything - fold.size, most=everything - everything // h.folds)
            # Indices skip the fold, which is this lane's validation split.
            index = jnp.where(index < jnp.uint32(fold.start), index, index + jnp.uint32(fold.size))
        else:
            index = examples_at(key, place, self.examples)
        drawn: Examples = jax.tree.map(lambda a: jnp.asarray(a)[index], train)
        return drawn

    def step(self, key: jax.Array, state: TrainingState, batch: Examples, h: Hparams) -> tuple[TrainingState, Values]:
        """Makes an optimizer step, or with ``microbatch`` a part of one.

        Args:
          key: the key of the call, shape ().
          state: the state of the lane.
          batch: what ``batch`` drew.
          h: the hyperparameters.

        Returns:
          The new state, and the call's metrics, each float (): losses and metrics of the batch, and what is monitored.
        """
        key = fast(key)
        if self.augment is not None:
            batch = augmented(self.augment, plain(jax.random.fold_in(key, AUGMENT)), batch, h)
        microsteps = self.microsteps(h)

        def objective(params: Any) -> tuple[jax.Array, Any]:
            def forward(x: Any) -> Any:
                return self._apply(key, params, state.stats, x, h, True)

            outputs, stats = forward(batch.x)
            raw = self.measures.raw(outputs, batch.y, h)
            self.measures.check_broadcast(lambda x: forward(x)[0], batch, h, raw)
            values = per_example(raw, examples_in(batch.y))
            means = {name: self._share(value, state, h) for name, value in values.items()}
            total, penalty = means["loss"], {}
            if self.penalty is not None:
                penalty["penalty"] = penalty_of(self.penalty, params, h)
                # Each call of a batch adds its part.
                total = total + penalty["penalty"] / microsteps
            return total, (means, penalty, stats)

        (total, (means, penalty, stats)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        after = state._replace(stats=stats)
        if state.accumulated is None:
            extra = of_loss(lambda params: objective(params)[0], total, gradients)
            after, seen = self._updated(key, after, gradients, extra, h)
        else:
            after, means, seen = self._accumulate(key, after, gradients, total, means, h)
        return after, joined(means, penalty | seen)

    def _accumulate(
        self, key: jax.Array, state: TrainingState, gradients: Any, loss: jax.Array, means: Values, h: Hparams
    ) -> tuple[TrainingState, Values, Values]:
        """Adds the gradients of a microbatch to those before it; the last one of a batch makes the optimizer step.

        Args:
          key: the key of the call, shape ().
          state: the state of the lane, with the sums so far.
          gradients: the gradients of the microbatch's share of the loss.
          loss: that share, penalty included, float ().
          means: the microbatch's shares of the means over the batch, float ().
          h: the hyperparameters.

        Returns:
          The new state; ``means``, and what the monitors report, both scaled so that the engine's mean over the calls
          of a batch is the value of the batch.
        """
        assert state.accumulated is not None
        assert self.batch_size is not None
        assert self.microbatch is not None
        sums, microsteps = state.accumulated, self.microsteps(h)
        total = Accumulated(
            jax.tree.map(jnp.add, sums.gradients, gradients),
            (sums.loss + loss).astype(sums.loss.dtype),
            sums.parts + 1,
            None if sums.squares is None else (sums.squares + square(gradients)).astype(sums.squares.dtype),
        )
        full = total.parts == microsteps
        # Computed at every call, since lanes under ``vmap`` share one program, and kept where the batch is full.
        gradients = jax.tree.map(typed_as, total.gradients, gradients)
        extra = of_loss(cannot_evaluate(self.microbatch), total.loss, gradients)
        updated, seen = self._updated(key, state, gradients, extra, h)
        kept: TrainingState = jax.tree.map(lambda new, old: jnp.where(full, new, old), updated, state)
        if total.squares is not None:
            seen |= gradient_noise(square(total.gradients), total.squares, self.batch_size(h), self.microbatch)
        emptied = jax.tree.map(lambda sums: jnp.where(full, 0, sums).astype(sums.dtype), total)
        means = {name: value * microsteps for name, value in means.items()}
        seen = {name: jnp.where(full, value, 0) * microsteps for name, value in seen.items()}
        return kept._replace(accumulated=emptied), means, seen

    def _share(self, values: jax.Array, state: TrainingState, h: Hparams) -> jax.Array:
        """Returns the contribution of some examples to the mean over their batch.

        Args:
          values: one value for each example of the batch, or of the microbatch, (examples,). A microbatch may reach
            beyond its batch; values there contribute nothing.
          state: the state of the lane.
          h: the hyperparameters.
        """
        if state.accumulated is None:
            return values.mean()
        assert self.batch_size is not None
        assert self.microbatch is not None
        size = self.batch_size(h)
        place = state.accumulated.parts * self.microbatch + jnp.arange(self.microbatch)
        share: jax.Array = jnp.where(place < size, values, 0).sum() / size
        return share

    def _updated(
        self, key: jax.Array, state: TrainingState, gradients: Any, extra: Mapping[str, Any], h: Hparams
    ) -> tuple[TrainingState, Values]:
        """Returns the state after an optimizer step, and what the monitors report of it.

        Args:
          key: the key of the call, shape ().
          state: the state before the step.
          gradients: a pytree like the parameters.
          extra: what the optimizer may take of the loss.
          h: the hyperparameters.
        """
        last = {} if state.last is None else state.last._asdict()
        extra = {**extra, "key": jax.random.fold_in(key, NOISE), **last}
        before = Optimized(state.params, state.opt_state, state.average)
        after, updates = updated(self.optimizer(h), before, gradients, extra, self._decay(h))
        seen: Values = {}
        for name in self.monitors:
            if name in MONITORS:
                seen |= MONITORS[name](state.params, gradients, updates)
        return state._replace(**after._asdict()), seen

    def evaluate(self, key: jax.Array, state: TrainingState, split: Examples, h: Hparams) -> Metrics:
        """Returns what ``measure`` does, and with early stopping the best value so far, as ``best_<metric>``."""
        means = self.measure(key, state, split, h)
        if self.stopping is not None:
            assert state.stopping is not None
            stopping = self._stopping(h)
            best = stopping.best(state.stopping, means[stopping.metric])
            means = joined(means, {f"best_{stopping.metric}": best})
        return means

    def measure(self, key: jax.Array, state: TrainingState, split: Examples, h: Hparams) -> Values:
        """Returns loss and metrics over a split, float (), exact for any ``eval_batch_size``.

        Args:
          key: the key of the evaluation, shape ().
          state: the state of the lane.
          split: the examples; with folds the whole pool, of which the lane's fold is measured.
          h: the hyperparameters.
        """
        key, evaluated = fast(key), state.evaluated

        def forward(x: Any) -> Any:
            return self._apply(key, evaluated.params, evaluated.stats, x, h, False)[0]

        return measure_split(forward, self.measures, split, h, self.eval_batch_size)

    def _apply(self, key: jax.Array, params: Any, stats: Any, x: Any, h: Hparams, train: bool) -> tuple[Any, Any]:
        """Returns the model's outputs and statistics, computed with the kernels that the plan chose for the lanes."""

        def applied(key: jax.Array, params: Any, stats: Any, x: Any) -> tuple[Any, Any]:
            found = self.net.apply(key, params, stats, x, h, train)
            return found.outputs, found.stats

        outputs: tuple[Any, Any] = lowered(applied)(key, params, stats, x)
        return outputs

    def predict(self, state: TrainingState, x: Any, h: Hparams) -> Any:
        """Returns the model's outputs for inputs (examples, ...), as in an evaluation."""
        return self.net.apply(jax.random.key(0), *state.evaluated, x, h, False).outputs

    def react(self, state: TrainingState, metrics: Metrics, h: Hparams) -> tuple[TrainingState, Any]:
        """Shows an evaluation to optimizer and early stopping; returns the new state and whether the trial is done."""
        if state.last is not None:
            seen = {name: metrics[name] for name in state.last.metrics}
            state = state._replace(last=LastEvaluation(seen, state.last.evaluations + 1))
        if state.stopping is None:
            return state, False
        stopping = self._stopping(h)
        looked, over = stopping.look(state.stopping, metrics[stopping.objective.metric], state.evaluated)
        return state._replace(stopping=looked), over

    def finish(self, state: TrainingState, h: Hparams) -> TrainingState:
        """Returns the state that a complete trial keeps: with early stopping, the variables of its best evaluation."""
        assert state.stopping is not None
        params, stats = state.stopping.kept
        average = None if state.average is None else jax.tree.map(typed_as, params, state.average)
        return state._replace(params=params, stats=stats, average=average)

    def check(self, h: Hparams) -> None:
        """Builds optimizer, average and early stopping, so that each checks its hyperparameters.

        Raises:
          InputError: a number lies outside its range.
        """
        self._optimizer(h)
        self._decay(h)
        if self.stopping is not None:
            self._stopping(h)

    def _optimizer(self, h: Hparams) -> optax.GradientTransformation:
        optimizer: optax.GradientTransformation = self.optimizer(h)
        check_decays(optimizer)
        return optimizer

    def _decay(self, h: Hparams) -> Any:
        """Returns the decay of the moving average of the parameters; None where there is none."""
        decay = None if self.average is None else self.average(h)
        if decay is not None:
            check_bounds("supervised.average", decay, 0, 1)
        return decay

    def _valid_names(self, h: Hparams) -> list[str]:
        names = self.measures.names(h)
        return names if self.stopping is None else [*names, f"best_{self._stopping(h).metric}"]

    def _stopping(self, h: Hparams) -> EarlyStopping:
        assert self.stopping is not None
        stopping: EarlyStopping = self.stopping(h)
        names = self.measures.names(h)
        if stopping.metric not in names:
            raise InputError(
                "EarlyStopping.objective",
                stopping.objective.metric,
                "must be a validation metric of the program",
                did_you_mean(stopping.objective.metric, [f"valid/{name}" for name in names]),
            )
        if (best := f"best_{stopping.metric}") in names:
            remedy = f'Write {{"my_{best}": function}}.'
            raise InputError("supervised.metrics", best, "is what early stopping reports", remedy)
        return stopping
