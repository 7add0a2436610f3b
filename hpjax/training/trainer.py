"""Training: what a lane of a supervised program does, as pure functions of its state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hpjax.core.bounds import check_bounds
from hpjax.core.hparams import Hparams
from hpjax.core.program import Metrics
from hpjax.core.remarks import is_planned
from hpjax.core.threefry import fast, plain
from hpjax.data.examples import AnyExamples, named_sets
from hpjax.engine.partition import divides_examples
from hpjax.engine.state_tree import KeyPath
from hpjax.optim.decay_bounds import check_decays
from hpjax.optim.transforms import looks_at_metrics
from hpjax.training.accumulation import added, emitted, emptied, mean_of, nothing_yet, penalty_weight, share
from hpjax.training.arguments import Context
from hpjax.training.augmentation import augmented
from hpjax.training.batching import Batching
from hpjax.training.drawing import examples_of
from hpjax.training.early_stopping import EarlyStopping
from hpjax.training.evaluation import in_set, measure_split
from hpjax.training.measures import Measures, Values, joined, penalty_of
from hpjax.training.monitors import OF_PARTS, gradient_noise, monitored, squares
from hpjax.training.mup import Scaling
from hpjax.training.network import Network, Outputs, begun, named_layers
from hpjax.training.optimizer import Optimized, begin, cannot_evaluate, of_loss, typed_as, updated
from hpjax.training.ramp import filled_with, none_filled
from hpjax.training.start import started
from hpjax.training.state import LastEvaluation, TrainingState
from hpjax.training.train_metrics import Drawn, held_on, none_held, shares_if
from hpjax.training.weighting import Weighted

OfH = Callable[[Hparams], Any]

# Folded into the key of a step. The model has the key itself, 1, and numbers from 4 on: see ``call_arguments``.
LOSS, AUGMENT, NOISE = 0, 2, 3


@dataclass(frozen=True)
class Training:
    """A supervised program.

    Attributes:
      net: the model.
      example: one input example, (1, ...), that the model is initialized with.
      examples: number of examples in the training split.
      weighted: whether these have weights of their own.
      measures: the loss and the metrics.
      valid_sets: the names of the validation sets, ``""`` for a single one.
      monitors: the names of what is monitored.
      scaling: the parametrization, which has multipliers of learning rates and sizes of gradients.
      start: the trained state that lanes go on from, a function of ``h``; None for none.
      frozen: the parameters that the state does not have, by their names.
      batching: how batches are taken.
      optimizer, eval_batch_size, penalty, augment, average, stopping, train_metrics_every: the arguments of
        ``supervised``, as functions of ``h`` where they may depend on it; None where they are not asked for.
    """

    net: Network
    example: Any
    examples: int
    weighted: bool
    measures: Measures
    valid_sets: tuple[str, ...]
    optimizer: OfH
    scaling: Scaling
    start: OfH | None
    frozen: Mapping[KeyPath, Any]
    eval_batch_size: int
    penalty: Callable[[Any, Hparams], Any] | None
    augment: Callable[[jax.Array, AnyExamples, Hparams], AnyExamples] | None
    average: OfH | None
    stopping: OfH | None
    batching: Batching
    monitors: tuple[str, ...]
    train_metrics_every: int | None

    def init(self, key: jax.Array, h: Hparams) -> TrainingState:
        """Returns the state before the first step."""
        key, real = fast(key), jnp.result_type(float)
        example = jax.tree.map(jnp.asarray, self.example)
        params, stats = begun(self.net, key, example, h)
        _, opt_state, average = begin(self._optimizer(h), params, self._decay(h), self.scaling.rates(h))
        state = TrainingState(params, stats, opt_state, average)
        if self.start is not None:
            state = started(state, self.start(h), self.frozen)
        if looks_at_metrics(state.opt_state):
            metrics = {f"valid/{name}": jnp.full((), jnp.inf, real) for name in self._valid_names(h)}
            state = state._replace(last=LastEvaluation(metrics, jnp.zeros((), jnp.int32)))
        if self.stopping is not None:
            state = state._replace(stopping=self._stopping(h).init(state.evaluated))
        if self.batching.microbatch is not None:
            measured = self.measures if self.train_metrics_every is not None else self.measures.of_loss()
            weighted = [] if measured.weighting.equal(self.weighted) else measured.train_names(h)
            state = state._replace(accumulated=nothing_yet(params, OF_PARTS in self.monitors, weighted))
            if self.batching.changes(h):
                state = state._replace(filled=none_filled())
        if self.train_metrics_every is not None and self.train_metrics_every > 1:
            state = state._replace(held=none_held(self.measures.metrics(h)))
        return state

    def batch(self, key: jax.Array, call: jax.Array, train: AnyExamples, h: Hparams) -> AnyExamples | Drawn:
        """Returns the examples of one call of ``step``, and where not all batches are measured whether this one is.

        Args:
          key: the key of the purpose ``"batch"``, shape ().
          call: number of the call, int32 (), from 0.
          train: the training split, with folds the whole pool, with a stream the batch itself.
          h: the hyperparameters.
        """
        examples, every = train, self.train_metrics_every
        if self.batching.batch_size is not None:
            examples = examples_of(fast(key), call, train, h, self.batching.size(h), self.batching.microbatch)
        if every is None or every == 1:
            return examples
        return Drawn(examples, call // self.batching.microsteps(h) % every == 0)

    def step(
        self, key: jax.Array, state: TrainingState, batch: AnyExamples | Drawn, h: Hparams
    ) -> tuple[TrainingState, Values]:
        """Makes an optimizer step, or with ``microbatch`` a part of one.

        Args:
          key: the key of the call, shape ().
          state: the state of the lane.
          batch: what ``batch`` drew.
          h: the hyperparameters.

        Returns:
          The new state, and the call's metrics, each float (): losses and metrics of the batch, and what is monitored.
        """
        key, measured = fast(key), jnp.bool_(True)
        if isinstance(batch, Drawn):
            batch, measured = batch
        if self.augment is not None:
            batch = augmented(self.augment, plain(jax.random.fold_in(key, AUGMENT)), batch, h)
        size, microsteps = self.batching.present(state.filled, h)

        def forward(params: Any, x: Any) -> Outputs:
            return self.net.forward(key, params, state.stats, x, h, True)

        def shares_of(measures: Measures, params: Any, found: Outputs) -> dict[str, Weighted]:
            own_key, whole = lambda: plain(jax.random.fold_in(key, LOSS)), self.net.whole(params)
            context = Context(batch.x, whole, own_key, h, found.sown)
            raw = measures.raw(found.outputs, batch.y, context)
            if is_planned():
                measures.check_broadcast(lambda x: forward(params, x), batch, context, raw)
            values = measures.weigh(raw, batch, h)
            return {
                name: share(each, state.accumulated, size, self.batching.microbatch) for name, each in values.items()
            }

        def objective(params: Any) -> tuple[jax.Array, Any]:
            found = forward(params, batch.x)
            self.measures.tell_unread(found.sown, h)
            measures = self.measures if self.train_metrics_every == 1 else self.measures.of_loss()
            shares = shares_of(measures, params, found)
            total, weight = shares["loss"]
            penalty: Values = {}
            if self.penalty is not None:
                penalty["penalty"] = penalty_of(self.penalty, self.net.whole(params), h)
                # Each call of a batch adds its part.
                if weight is None:
                    total += penalty["penalty"] / microsteps
                else:
                    total += penalty["penalty"] * penalty_weight(weight, state.accumulated, microsteps)
            return total, (shares, penalty, found.stats, None if state.held is None else found)

        (total, (shares, penalty, stats, found)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        after = state._replace(stats=stats)
        if state.held is not None:
            of_metrics = self.measures.of_metrics()
            shares |= shares_if(measured, lambda: shares_of(of_metrics, state.params, found))
        if state.accumulated is None:
            extra = of_loss(lambda params: objective(params)[0], total, gradients)
            after, seen = self._updated(key, after, gradients, extra, h)
            means = {name: share.total for name, share in shares.items()}
        else:
            after, means, seen = self._accumulate(key, after, gradients, total, shares, h)
        if state.held is not None:
            part = 0 if state.accumulated is None else state.accumulated.parts
            held, means = held_on(state.held, means, measured, part == 0, part + 1 == microsteps, microsteps)
            after = after._replace(held=held)
        return after, joined(means, penalty | seen)

    def _accumulate(
        self,
        key: jax.Array,
        state: TrainingState,
        gradients: Any,
        loss: jax.Array,
        shares: dict[str, Weighted],
        h: Hparams,
    ) -> tuple[TrainingState, Values, Values]:
        """Adds the gradients of a microbatch to those before it; the last one of a batch makes the optimizer step.

        Args:
          key: the key of the call, shape ().
          state: the state of the lane, with the sums so far.
          gradients: the gradients of ``loss``.
          loss: the microbatch's share of the loss, penalty included, float ().
          shares: its shares of the means over the batch, each float ().
          h: the hyperparameters.

        Returns:
          The new state; the means, and what the monitors report, both scaled so that the engine's mean over the calls
          of a batch is the value of the batch.
        """
        assert state.accumulated is not None
        assert self.batching.microbatch is not None
        sums = added(state.accumulated, gradients, loss, shares)
        size, microsteps = self.batching.present(state.filled, h)
        full = sums.parts == microsteps
        gradients, loss = mean_of(sums, gradients)
        # Computed at every call, since lanes under ``vmap`` share one program, and kept where the batch is full.
        extra = of_loss(cannot_evaluate("microbatch", self.batching.microbatch), loss, gradients)
        updated, seen = self._updated(key, state, gradients, extra, h)
        kept: TrainingState = jax.tree.map(lambda new, old: jnp.where(full, new, old), updated, state)
        if sums.squares is not None:
            seen |= gradient_noise(squares(sums.gradients), sums.squares, size, self.batching.microbatch)
        means = emitted(sums, shares, full, microsteps, changing=state.filled is not None)
        seen = {name: jnp.where(full, value, 0) * microsteps for name, value in seen.items()}
        if state.filled is not None:
            kept = kept._replace(filled=filled_with(state.filled, microsteps, full))
        return kept._replace(accumulated=emptied(sums, full)), means, seen

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
        optimizer, rates = self.optimizer(h), self.scaling.rates(h)
        if rates is not None:  # the optimizer's parameters are not those of the loss
            extra = of_loss(cannot_evaluate("mup", "MuP(...)"), extra["value"], extra["grad"])
        size = self.batching.present(state.filled, h)[0]
        extra = {**extra, **self.scaling.extra(optimizer, h), "key": jax.random.fold_in(key, NOISE), "batch_size": size}
        extra |= {} if state.last is None else state.last._asdict()
        before = Optimized(state.params, state.opt_state, state.average)
        after, updates = updated(optimizer, before, gradients, extra, self._decay(h), rates)
        return state._replace(**after._asdict()), monitored(self.monitors, state.params, gradients, updates)

    @divides_examples
    def evaluate(self, key: jax.Array, state: TrainingState, split: Any, h: Hparams) -> Metrics:
        """Returns what ``measure`` does, and with early stopping the best value so far, as ``best_<metric>``."""
        means = self.measure(key, state, split, h)
        if self.stopping is not None:
            assert state.stopping is not None
            stopping = self._stopping(h)
            best = stopping.best(state.stopping, means[stopping.metric])
            means = joined(means, {f"best_{stopping.metric}": best})
        return means

    def measure(self, key: jax.Array, state: TrainingState, split: Any, h: Hparams) -> Values:
        """Returns loss and metrics over each set of a split, float (), exact for any ``eval_batch_size``.

        Args:
          key: the key of the evaluation, shape ().
          state: the state of the lane.
          split: the examples, or several sets of them by name; with folds the whole pool, of which the lane's fold is
            measured.
          h: the hyperparameters.
        """
        key, evaluated = fast(key), state.evaluated
        forward, whole = self.net.forward_part(key, *evaluated, h), self.net.whole(evaluated.params)
        context = Context(None, whole, lambda: plain(jax.random.fold_in(key, LOSS)), h, {})
        found: Values = {}
        for name, examples in named_sets(split).items():
            values = measure_split(forward, self.measures, examples, context, self.eval_batch_size)
            found |= {in_set(name, metric): value for metric, value in values.items()}
        return found

    def predict(self, state: TrainingState, x: Any, h: Hparams) -> Any:
        """Returns the model's outputs for inputs (examples, ...), as in an evaluation."""
        return self.net.apply(jax.random.key(0), *state.evaluated, x, h, False).outputs

    def activations(self, state: TrainingState, x: Any, h: Hparams) -> dict[str, jax.Array]:
        """Returns what each layer gives for inputs (examples, ...), by its path, and the model as ``"output"``."""
        assert self.net.layers is not None
        params, stats = state.evaluated
        return named_layers(self.net.layers(jax.random.key(0), self.net.whole(params), stats, x, h))

    def react(self, state: TrainingState, metrics: Metrics, h: Hparams) -> tuple[TrainingState, Any]:
        """Shows an evaluation to optimizer and early stopping; returns the state and whether the trial is done."""
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
        names = self._measured(h)
        return names if self.stopping is None else [*names, f"best_{self._stopping(h).metric}"]

    def _measured(self, h: Hparams) -> list[str]:
        """Returns the names of what an evaluation measures."""
        return [in_set(name, metric) for name in self.valid_sets for metric in self.measures.names(h)]

    def _stopping(self, h: Hparams) -> EarlyStopping:
        assert self.stopping is not None
        stopping: EarlyStopping = self.stopping(h)
        stopping.check(self._measured(h))
        return stopping
