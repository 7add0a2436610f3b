"""Curvature: what evaluations report of the Hessian of the training loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hpjax.core.arrays import at_least_float32, ceil_div
from hpjax.core.hparams import Hparams
from hpjax.core.threefry import fast, plain
from hpjax.data.batches import Fold
from hpjax.data.examples import AnyExamples, examples_in, take, take_all
from hpjax.engine.partition import divided
from hpjax.training.arguments import Context
from hpjax.training.hessian import Product, Vector, hessian_product, largest_eigenvalue, trace
from hpjax.training.measures import Values, joined, penalty_of
from hpjax.training.state import TrainingState
from hpjax.training.trainer import LOSS, NOISE, Training
from hpjax.training.weighting import ratio

# Cohen et al. (arXiv 2103.00065) take 5,000 examples, and estimate the Hessian of larger splits by part of them, too.
EXAMPLES = 2048

MEASURES: dict[str, Callable[[Product, Any, jax.Array], jax.Array]] = {
    "sharpness": largest_eigenvalue,
    "trace": trace,
}


def curvature(training: Training, key: jax.Array, state: TrainingState, train: AnyExamples, h: Hparams) -> Values:
    """Returns what is monitored of the Hessian of the training loss, penalty included, each float ().

    It is that of the parameters which are trained, with the model as in an evaluation: without dropout, and with the
    running statistics of batch normalization. Training examples are as they are without augmentation, at most 2,048.

    Args:
      training: the program.
      key: the key of the evaluation, shape ().
      state: the state of the lane.
      train: the training split; with folds the whole pool.
      h: the hyperparameters.
    """
    key = fast(key)
    params = jax.tree.map(at_least_float32, state.params)
    parts = _in_parts(*_sample(train, h), training.eval_batch_size)
    count = jnp.arange(len(parts[1]))

    def loss_sum(params: Any, part: Any) -> tuple[jax.Array, jax.Array]:
        (rows, counted), i = part
        rows = divided(rows)
        found = training.net.forward_part(key, params, state.stats, h)(rows.x, i)
        own_key = jax.random.fold_in(jax.random.fold_in(key, LOSS), i)
        context = Context(rows.x, training.net.whole(params), lambda: plain(own_key), h, found.sown)
        values = training.measures.of_loss()(found.outputs, rows, context)["loss"]
        weights = jnp.ones_like(values.total) if values.weight is None else values.weight
        return jnp.where(counted, values.total, 0).sum(), jnp.where(counted, weights, 0).sum()

    weight = lax.map(lambda part: loss_sum(params, part)[1], (parts, count)).sum()

    def product(vector: Vector) -> Vector:
        def add(total: Vector, part: Any) -> tuple[Vector, None]:
            own = hessian_product(lambda params: loss_sum(params, part)[0], params, vector)
            return jax.tree.map(jnp.add, total, own), None

        total, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, vector), (parts, count))
        mean = jax.tree.map(lambda a: ratio(a, weight.astype(a.real.dtype)), total)
        if training.penalty is None:
            return mean
        penalty = training.penalty
        own = hessian_product(lambda params: penalty_of(penalty, training.net.whole(params), h), params, vector)
        return jax.tree.map(jnp.add, mean, own)

    own_key = jax.random.fold_in(key, NOISE)
    found = {name: MEASURES[name](product, params, own_key) for name in training.monitors if name in MEASURES}
    joined(dict.fromkeys(training.measures.metrics(h), weight), found)  # raises where a metric has such a name
    return found


def _sample(train: AnyExamples, h: Hparams) -> tuple[AnyExamples, jax.Array]:
    """Returns training examples, the same in each evaluation of each lane, and which of them count, bool (examples,).

    With folds they are those of the pool, which is shuffled, that are not in the lane's fold. As folds may differ in
    size by one, so may what is left: the last one then does not count.
    """
    everything = examples_in(train)
    if "fold" in h:
        fold = Fold.of(h.fold, h.folds, everything)
        place = jnp.arange(min(everything - everything // h.folds, EXAMPLES))
        index = jnp.minimum(place + jnp.where(place < fold.start, 0, fold.size), everything - 1)
        counted = place < everything - fold.size
    elif everything <= EXAMPLES:
        return take_all(train), jnp.ones(everything, bool)
    else:
        index = jnp.asarray(np.sort(np.random.default_rng(0).choice(everything, EXAMPLES, replace=False)))
        counted = jnp.ones(EXAMPLES, bool)
    return take(train, index), counted


def _in_parts(examples: AnyExamples, counted: jax.Array, batch_size: int) -> tuple[AnyExamples, jax.Array]:
    """Returns examples, (examples, ...), and which count in parts of at most ``batch_size``, (parts, size, ...).

    The last part is filled up with copies of the last example, which do not count.
    """
    count = len(counted)
    parts = ceil_div(count, batch_size)
    place = jnp.arange(parts * ceil_div(count, parts)).reshape(parts, -1)
    index = jnp.minimum(place, count - 1)
    rows = jax.tree.map(lambda a: jnp.asarray(a)[index], examples)
    return rows, counted[index] & (place < count)
