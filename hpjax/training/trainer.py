"""Training: what a lane of a supervised program does, as pure functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from hpjax.core.arrays import ceil_div
from hpjax.core.bounds import check_bounds
from hpjax.core.errors import InputError, ProgramError, annotate_errors, did_you_mean
from hpjax.core.hparams import Hparams
from hpjax.core.program import Metrics
from hpjax.core.threefry import fast, plain
from hpjax.data.batches import Fold, examples_at
from hpjax.data.examples import Examples, examples_in
from hpjax.engine.lowering import lowered
from hpjax.optim.decay_bounds import check_decays
from hpjax.optim.transforms import looks_at_metrics
from hpjax.training.early_stopping import EarlyStopping
from hpjax.training.measures import Measures, Values, per_example
from hpjax.training.monitors import MONITORS, OF_PARTS, gradient_noise, square
from hpjax.training.network import Network

State = dict[str, Any]
OfH = Callable[[Hparams], Any]

# Folded into the key of a step, after the model's own.
AUGMENT, NOISE = 2, 3


@dataclass(frozen=True)
class Training:
    """A supervised program; the arguments of ``supervised``, each a function of ``h`` or None.

    Its state is a dict: ``params``, ``stats`` (batch statistics and the like), ``opt_state``, and where they are
    asked for ``average``, ``stopping``, ``last`` (the last evaluation, for optimizers that look) and ``sum``
    (accumulated gradients).
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

    def init(self, key: jax.Array, h: Hparams) -> State:
        """The state before the first step."""
        key = fast(key)
        params, stats = self.net.init(key, self.example, h)
        # Flax draws batch statistics in float32 and may return them in the wider type of the inputs.
        settled = jax.eval_shape(lambda: self.net.apply(key, params, stats, self.example, h, True)[1])
        stats = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), stats, settled)
        optimizer = self._optimizer(h)
        state = {"params": params, "stats": stats, "opt_state": optimizer.init(params)}
        if self.average is not None:
            check_bounds("supervised.average", self.average(h), 0, 1)
            state["average"] = params
        if looks_at_metrics(state["opt_state"]):
            metrics = {f"valid/{name}": jnp.full((), jnp.inf, jnp.result_type(float)) for name in self._valid_names(h)}
            state["last"] = {"metrics": metrics, "evaluations": jnp.zeros((), jnp.int32)}
        if self.stopping is not None:
            stopping = self._stopping(h)
            state["stopping"] = stopping.init(_evaluated(state))
        if self.microbatch is not None:
            nothing = {"parts": jnp.zeros((), jnp.int32), "loss": jnp.zeros((), jnp.result_type(float))}
            if OF_PARTS in self.monitors:
                nothing["squares"] = jnp.zeros((), jnp.result_type(float))
            state["sum"] = {"gradients": jax.tree.map(jnp.zeros_like, params), **nothing}
        return state

    def microsteps(self, h: Hparams) -> Any:
        """How many microbatches make a batch."""
        return (
            1 if self.microbatch is None or self.batch_size is None else ceil_div(self.batch_size(h), self.microbatch)
        )

    def batch(self, key: jax.Array, call: jax.Array, train: Examples, h: Hparams) -> Examples:
        """The examples of one call of ``step``."""
        if self.batch_size is None:  # a stream gives them
            return train
        key, size = fast(key), self.batch_size(h)
        if self.microbatch is None and isinstance(size, jax.core.Tracer):
            raise ProgramError("batch_size sets the shape of a batch; with microbatch=m it can be traced")
        together = int(size) if self.microbatch is None else self.microbatch
        call, calls, size = (jnp.asarray(number, jnp.uint32) for number in (call, self.microsteps(h), size))
        place = call // calls * size + call % calls * together + jnp.arange(together, dtype=jnp.uint32)
        if "fold" in h:
            everything = examples_in(train)
            fold = Fold.of(h.fold, h.folds, everything)
            index = examples_at(key, place, everything - fold.size, most=everything - everything // h.folds)
            # Around the fold, which is this lane's validation split.
            index = jnp.where(index < jnp.uint32(fold.start), index, index + jnp.uint32(fold.size))
        else:
            index = examples_at(key, place, self.examples)
        drawn: Examples = jax.tree.map(lambda a: jnp.asarray(a)[index], train)
        return drawn

    def step(self, key: jax.Array, state: State, batch: Examples, h: Hparams) -> tuple[State, Values]:
        """One call: an optimizer step, or with ``microbatch`` a part of one."""
        key = fast(key)
        if self.augment is not None:
            batch = annotate_errors("supervised.augment", self.augment)(
                plain(jax.random.fold_in(key, AUGMENT)), batch, h
            )
            if not isinstance(batch, Examples):
                raise ProgramError(
                    f"supervised.augment must return Examples(x, y), got {type(batch).__name__}. "
                    "Write batch._replace(x=...)."
                )
        calls = self.microsteps(h)

        def objective(params: Any) -> tuple[jax.Array, Any]:
            def forward(x: Any) -> Any:
                return self._apply(key, params, state["stats"], x, h, True)

            outputs, stats = forward(batch.x)
            raw = self.measures.raw(outputs, batch.y, h)
            self.measures.check_broadcast(lambda x: forward(x)[0], batch, h, raw)
            values = per_example(raw, examples_in(batch.y))
            means = {name: self._share(value, state, h) for name, value in values.items()}
            total = means["loss"]
            if self.penalty is not None:
                penalty = annotate_errors("supervised.penalty", self.penalty)(params, h)
                if not isinstance(penalty, jax.Array | float | int) or jnp.shape(penalty) != ():
                    found = list(penalty.shape) if isinstance(penalty, jax.Array) else type(penalty).__name__
                    raise ProgramError(f"supervised.penalty must give a scalar, got {found}. Sum over the parameters.")
                means["penalty"] = jnp.asarray(penalty)
                total = total + means["penalty"] / calls
            return total, (means, stats)

        gradients, (means, stats) = jax.grad(objective, has_aux=True)(state["params"])
        state = {**state, "stats": stats}
        if self.microbatch is None:
            updated, seen = self._updated(key, state, gradients, means["loss"], h)
            return updated, means | seen
        squares = square(gradients) if OF_PARTS in self.monitors else None
        gradients = jax.tree.map(jnp.add, state["sum"]["gradients"], gradients)
        parts = state["sum"]["parts"] + 1
        full = parts == calls
        loss = (state["sum"]["loss"] + means["loss"]).astype(state["sum"]["loss"].dtype)
        updated, seen = self._updated(key, state, gradients, loss, h)
        kept: State = jax.tree.map(lambda new, old: jnp.where(full, new, old), updated, state)
        total = {"gradients": gradients, "parts": parts, "loss": loss}
        if squares is not None:
            assert self.batch_size is not None
            total["squares"] = (state["sum"]["squares"] + squares).astype(state["sum"]["squares"].dtype)
            seen |= gradient_noise(square(gradients), total["squares"], self.batch_size(h), self.microbatch)
        kept["sum"] = jax.tree.map(lambda sums: jnp.where(full, 0, sums).astype(sums.dtype), total)
        # So that the mean over the calls of a step is the mean over its batch.
        means |= {name: jnp.where(full, value, 0) for name, value in seen.items()}
        return kept, {name: v if name == "penalty" else v * calls for name, v in means.items()}

    def _share(self, values: jax.Array, state: State, h: Hparams) -> jax.Array:
        """What a batch's mean owes to these examples: all of it, or the part of one microbatch, the last one short."""
        if self.microbatch is None:
            return values.mean()
        assert self.batch_size is not None
        size = self.batch_size(h)
        place = state["sum"]["parts"] * self.microbatch + jnp.arange(self.microbatch)
        share: jax.Array = jnp.where(place < size, values, 0).sum() / size
        return share

    def _updated(
        self, key: jax.Array, state: State, gradients: Any, loss: jax.Array, h: Hparams
    ) -> tuple[State, Values]:
        """The state after an optimizer step, and what monitors saw of it."""
        optimizer = self.optimizer(h)
        extra = {"value": loss, "key": jax.random.fold_in(key, NOISE), **state.get("last", {})}
        update = optax.with_extra_args_support(optimizer).update
        updates, opt_state = update(gradients, state["opt_state"], state["params"], **extra)
        # A traced number, unlike one of Python's, makes bfloat16 moments float32: to the parameters' type, as they.
        if jax.tree.structure(opt_state) == jax.tree.structure(state["opt_state"]):  # type: ignore[operator]
            opt_state = jax.tree.map(_typed_as, opt_state, state["opt_state"])
        seen: Values = {}
        for name in self.monitors:
            if name in MONITORS:
                seen |= MONITORS[name](state["params"], gradients, updates)
        params = optax.apply_updates(state["params"], updates)
        state = {**state, "params": params, "opt_state": opt_state}
        if self.average is not None:
            decay = self.average(h)
            state["average"] = jax.tree.map(
                lambda a, p: (decay * a + (1 - decay) * p).astype(a.dtype), state["average"], params
            )
        return state, seen

    def evaluate(self, key: jax.Array, state: State, split: Examples, h: Hparams) -> Metrics:
        """As ``measure``, and with early stopping the best so far."""
        means = self.measure(key, state, split, h)
        if self.stopping is not None:
            stopping = self._stopping(h)
            means[f"best_{stopping.metric}"] = stopping.best(state["stopping"], means[stopping.metric])
        return means

    def measure(self, key: jax.Array, state: State, split: Examples, h: Hparams) -> Values:
        """Loss and metrics over a whole split, or over the lane's fold of the pool, exact whatever the size."""
        key, everything = fast(key), examples_in(split)
        fold = Fold.of(h.fold, h.folds, everything) if "fold" in h else Fold(0, everything)
        most = ceil_div(everything, h.folds) if "fold" in h else everything
        parts = ceil_div(most, self.eval_batch_size)
        size = ceil_div(most, parts)
        evaluated = _evaluated(state)

        def part(i: jax.Array) -> Values:
            index = i * size + jnp.arange(size)
            inside = fold.start + jnp.minimum(index, fold.size - 1)
            x, y = jax.tree.map(lambda a: jnp.asarray(a)[inside], split)
            outputs, _ = self._apply(key, evaluated["params"], evaluated["stats"], x, h, False)
            # The last part may reach beyond the split; what lies there counts for nothing.
            return {name: jnp.where(index < fold.size, v, 0).sum() for name, v in self.measures(outputs, y, h).items()}

        sums = lax.map(part, jnp.arange(parts)) if parts > 1 else part(jnp.int32(0))
        return {name: value.sum() / fold.size for name, value in sums.items()}

    def _apply(self, key: jax.Array, params: Any, stats: Any, x: Any, h: Hparams, train: bool) -> tuple[Any, Any]:
        """The model's outputs and statistics, by the kernels that lanes have."""

        def applied(key: jax.Array, params: Any, stats: Any, x: Any) -> tuple[Any, Any]:
            return self.net.apply(key, params, stats, x, h, train)

        outputs: tuple[Any, Any] = lowered(applied)(key, params, stats, x)
        return outputs

    def predict(self, state: State, x: Any, h: Hparams) -> Any:
        """The model's outputs for inputs (examples, ...), as in an evaluation."""
        evaluated = _evaluated(state)

        outputs, _ = self.net.apply(jax.random.key(0), evaluated["params"], evaluated["stats"], x, h, False)
        return outputs

    def react(self, state: State, metrics: Metrics, h: Hparams) -> tuple[State, Any]:
        """The state after an evaluation: what the optimizer may look at, and early stopping."""
        if "last" in state:
            seen = {name: metrics[name] for name in state["last"]["metrics"]}
            state = {**state, "last": {"metrics": seen, "evaluations": state["last"]["evaluations"] + 1}}
        if self.stopping is None:
            return state, False
        stopping = self._stopping(h)
        looked, over = stopping.look(state["stopping"], metrics[stopping.objective.metric], _evaluated(state))
        return {**state, "stopping": looked}, over

    def finish(self, state: State, h: Hparams) -> State:
        """What a complete trial keeps with early stopping: the parameters of its best evaluation."""
        kept = state["stopping"].kept
        restored = {**kept, **({"average": kept["params"]} if self.average is not None else {})}
        return {name: restored.get(name, value) for name, value in state.items()}

    def check(self, h: Hparams) -> None:
        """Has optimizer, average and early stopping look at hyperparameters that are numbers.

        Raises:
          InputError: one of them is out of its range.
        """
        self._optimizer(h)
        if self.average is not None:
            check_bounds("supervised.average", self.average(h), 0, 1)
        if self.stopping is not None:
            self._stopping(h)

    def _optimizer(self, h: Hparams) -> optax.GradientTransformation:
        optimizer: optax.GradientTransformation = self.optimizer(h)
        check_decays(optimizer)
        return optimizer

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
        return stopping


def _typed_as(new: Any, old: Any) -> Any:
    """``new`` in the type of ``old`` where both are real numbers."""
    both = all(jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in (new, old))
    return jnp.asarray(new, jnp.result_type(old)) if both else new


def _evaluated(state: State) -> State:
    """What an evaluation looks at: the averaged parameters where there are any."""
    return {"params": state.get("average", state["params"]), "stats": state["stats"]}
