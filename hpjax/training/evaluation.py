"""Evaluation: loss and metrics over a whole split, or over the fold of it that is a lane's own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hpjax.core.arrays import ceil_div
from hpjax.core.hparams import Hparams
from hpjax.data.batches import Fold
from hpjax.data.examples import AnyExamples, examples_in, take, take_all
from hpjax.engine.partition import divided
from hpjax.training.arguments import Context
from hpjax.training.host_metric import evaluating_in_parts
from hpjax.training.measures import Measures, Values, joined
from hpjax.training.network import Outputs
from hpjax.training.weighting import Weighted


def measure_split(
    forward: Callable[[Any, Any], Outputs], measures: Measures, split: AnyExamples, context: Context, batch_size: int
) -> Values:
    """Returns loss and metrics over a split, float (), exact for any ``batch_size``.

    Args:
      forward: maps inputs, (examples, ...), and the number of the part, int32 () or None for a single one, to what the
        model gives for them.
      measures: the loss and the metrics.
      split: the examples; with folds the whole pool, of which the lane's fold is measured.
      context: what losses and metrics may take by name; its ``x`` is not read.
      batch_size: the most examples that are computed at once.
    """
    everything, h = examples_in(split), context.h
    fold = Fold.of(h.fold, h.folds, everything) if "fold" in h else Fold(0, everything)
    most = ceil_div(everything, h.folds) if "fold" in h else everything
    parts = ceil_div(most, batch_size)
    size = ceil_div(most, parts)
    whole = measures.split_metrics(h)

    def part(i: jax.Array) -> tuple[dict[str, Weighted], Any]:
        index = i * size + jnp.arange(size)
        rows = divided(take_all(split) if size == everything else _rows(split, fold, index))
        outputs, _, sown = forward(rows.x, i if parts > 1 else None)
        own = context._replace(x=rows.x, sown=sown, key=lambda: jax.random.fold_in(context.key(), i))
        with evaluating_in_parts(parts > 1):
            values = measures(outputs, rows, own)
        # The last part may reach beyond the split; those values are left out of the sum.
        sums = jax.tree.map(lambda v: jnp.where(index < fold.size, v, 0).sum(), values)
        return sums, outputs if whole else None

    sums, outputs = lax.map(part, jnp.arange(parts)) if parts > 1 else part(jnp.int32(0))
    means = {name: _mean(value, fold.size) for name, value in sums.items()}
    if not whole:
        return means
    rows = _have_rows(lambda x: forward(x, None).outputs, split.x, size)
    if parts > 1:
        outputs = jax.tree.map(lambda a, row: a.reshape(-1, *a.shape[2:]) if row else a[0], outputs, rows)

    def over(count: int) -> Values:
        examples = _rows(split, fold, jnp.arange(count))
        own = jax.tree.map(lambda a, row: a[:count] if row else a, outputs, rows)
        return measures.of_split(own, examples, context._replace(x=examples.x))

    return joined(means, _of_fold(over, fold.size, {most, everything // h.folds if "fold" in h else most}))


def own_rows(split: AnyExamples, h: Hparams) -> AnyExamples:
    """Returns a split; with folds, where ``h.fold`` is an int, the rows of that fold."""
    if "fold" not in h:
        return split
    fold = Fold.of(h.fold, h.folds, examples_in(split))
    return _rows(split, fold, jnp.arange(fold.size))


def outputs_in_parts(forward: Callable[[Any, Any], Outputs], x: Any, batch_size: int) -> Any:
    """Returns the outputs of a model for inputs, (examples, ...), of which it computes so many at once.

    Args:
      forward: as for ``measure_split``.
      x: the inputs.
      batch_size: the most examples that are computed at once.
    """
    count = examples_in(x)
    parts = ceil_div(count, batch_size)
    size = ceil_div(count, parts)
    if parts == 1:
        return forward(x, None).outputs

    def part(i: jax.Array) -> Any:
        index = jnp.minimum(i * size + jnp.arange(size), count - 1)
        return forward(jax.tree.map(lambda a: jnp.asarray(a)[index], x), i).outputs

    outputs, rows = lax.map(part, jnp.arange(parts)), _have_rows(lambda x: forward(x, None).outputs, x, size)
    return jax.tree.map(lambda a, row: a.reshape(-1, *a.shape[2:])[:count] if row else a[0], outputs, rows)


def _of_fold(over: Callable[[int], Values], size: Any, sizes: set[int]) -> Values:
    """Returns ``over(size)``, where ``size`` may be traced and is one of ``sizes``, of which there are one or two."""
    if isinstance(size, int):
        return over(size)
    less, most = min(sizes), max(sizes)
    if less == most:
        return over(most)
    # Each function sees arrays of exactly the fold's size, so that it needs no mask.
    found: Values = lax.cond(size == most, lambda: over(most), lambda: over(less))
    return found


def _have_rows(forward: Callable[[Any], Any], x: Any, size: int) -> Any:
    """Returns which outputs of a model have a row for each example, a pytree of bools.

    A codebook has none, though it may have as many rows by chance. So the model is traced again, with one example more.
    """

    def outputs(count: int) -> Any:
        return jax.eval_shape(forward, jax.tree.map(lambda a: jax.ShapeDtypeStruct((count, *a.shape[1:]), a.dtype), x))

    now = outputs(size)
    if len(jax.tree.leaves(now)) == 1:
        return jax.tree.map(lambda a: True, now)
    return jax.tree.map(lambda a, b: a.shape[:1] != b.shape[:1], now, outputs(size + 1))


def in_set(name: str, metric: str) -> str:
    """Returns the name of a metric of a set: ``clean/loss``, and ``loss`` where there is only one set, named ``""``."""
    return f"{name}/{metric}" if name else metric


def _rows(split: AnyExamples, fold: Fold, index: jax.Array) -> AnyExamples:
    """Returns examples of a fold by their number in it; numbers beyond its end stand for its last example."""
    inside = fold.start + jnp.minimum(index, fold.size - 1)
    rows: AnyExamples = take(split, inside)
    return rows


def _mean(sums: Weighted, count: Any) -> jax.Array:
    """Returns the mean of the sums over the parts, each float () or (parts,), of ``count`` examples."""
    weight = jnp.asarray(count, sums.total.dtype) if sums.weight is None else sums.weight.sum()
    return sums.total.sum() / weight
