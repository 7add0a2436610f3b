"""What the devices that share a lane exchange in a step, against closed forms."""

import pytest

from hpjax.engine.hlo import CompiledText
from tests.support import spans
from tests.support.spans import FOUR, TWO, WIDE, Deep, collectives, program, sweep

LAYERS, LAYER = 16, WIDE * WIDE * 4
# The first and the last kernel, for 5 features and 3 classes, which are too small to be split; and the loss.
REST, LOSS = (5 + 3) * WIDE * 4, 4


def exchanged(**options):
    """How often the devices of a lane exchange arrays in a step, the bytes of these, and by which operations."""
    text = spans.compiled(sweep(program(Deep(LAYERS)), **options))
    step = CompiledText(text).step
    return step.exchanges, step.exchanged, {kind for kind, _, _ in collectives(text)}


def test_gradients_of_whole_weights_are_exchanged_once():
    """The least that data parallelism can: each number of the gradient once; those of a layer when it has them."""
    assert exchanged(**FOUR) == (LAYERS + 1, LAYERS * LAYER + REST + LOSS, {"all-reduce"})


def test_split_weights_are_gathered_twice_and_their_gradients_reduced_once():
    """The least that fully sharded data parallelism can, whose layers compute activations anew in the backward pass.

    On a CPU, for which XLA has no reduce-scatter, gradients are reduced as a whole, and each device takes its part.
    """
    least = 3 * LAYERS * LAYER + REST + LOSS
    assert exchanged(**FOUR, partition="fsdp") == (3 * LAYERS + 1, least, {"all-gather", "all-reduce"})


def test_weights_of_layers_that_keep_activations_are_gathered_once():
    text = spans.compiled(sweep(**TWO, partition="fsdp"))
    kernels = {(1, 5, WIDE), (1, WIDE, WIDE), (1, WIDE, 3)}
    (gathered,), (reduced,) = (
        [shapes for kind, shapes, _ in collectives(text) if kind == wanted] for wanted in ("all-gather", "all-reduce")
    )
    assert [sorted(shape) for shape in gathered] == [[1, WIDE, WIDE]]
    assert {tuple(sorted(shape)) for shape in reduced if len(shape) == 3} == {tuple(sorted(k)) for k in kernels}
    assert {kind for kind, _, _ in collectives(text)} == {"all-gather", "all-reduce"}


@pytest.mark.parametrize("options", [{}, {"folds": 3}], ids=["parts", "parts of folds"])
def test_evaluations_exchange_sums_alone(options):
    """Parts of a split, which each device has whole, are taken without an exchange."""
    text = spans.compiled(sweep(program(eval_batch_size=8), **TWO, **options), "evaluate")
    spans.assert_within_lanes(text, 2)
    assert [(kind, shapes) for kind, shapes, _ in collectives(text)] == [("all-reduce", [(1,)])]
