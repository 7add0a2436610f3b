"""The length of trials in epochs."""

import math

import numpy as np
import pytest

import hpjax as hpx
from tests.support.programs import blobs, classifier


def lengths(space, folds=None, **arguments):
    program = classifier(**{"steps": None, "eval_every": None} | arguments)
    sweep = hpx.Sweep(program, space, sampler=hpx.Grid(), folds=folds)
    return [length.steps for length in sweep.plan().lengths]


ONE = hpx.Space(learning_rate=0.1, momentum=0.9)


@pytest.mark.parametrize(
    ("epochs", "size", "steps"), [(1, 54, 1), (1, 16, 4), (2, 16, 7), (0.5, 16, 2), (0.1, 54, 1), (3, 18, 9)]
)
def test_epochs_are_steps_rounded_up(epochs, size, steps):
    """Of 54 examples: 54 / 16 are 3.4 steps, 27 / 16 are 1.7."""
    assert lengths(ONE, epochs=epochs, batch_size=size) == [steps]


def test_products_of_decimals_are_not_rounded_up():
    """0.1 × 3 is a little more than 0.3 in binary."""
    x = np.zeros((100, 5))
    data = hpx.data.from_arrays(x, np.arange(100) % 3, valid=(x, np.arange(100) % 3), test=(x, np.arange(100) % 3))
    assert lengths(ONE, data=data, epochs=0.1 * 3, batch_size=10) == [3]


@pytest.mark.parametrize("microbatch", [None, 6])
def test_epochs_and_batch_sizes_may_be_functions_of_h(microbatch):
    space = hpx.Space(learning_rate=0.1, momentum=0.9, epochs=hpx.Choice(1, 2), size=hpx.Choice(12, 24))
    found = lengths(space, epochs=lambda h: h.epochs, batch_size=lambda h: h.size, microbatch=microbatch)
    assert found == [math.ceil(epochs * 54 / size) for epochs in (1, 2) for size in (12, 24)]


def test_with_folds_the_training_examples_are_those_outside_of_the_smallest_fold():
    """54 and 18 examples are 72: 7 folds of 10 or 11."""
    assert lengths(ONE, folds=7, epochs=1, batch_size=1) == [62]
    assert lengths(ONE, folds=7, epochs=2, batch_size=31) == [4]


def test_a_trial_of_two_epochs_sees_every_example_twice():
    seen = []
    program = classifier(
        steps=None,
        epochs=2,
        batch_size=27,
        metrics={"own": hpx.metrics.on_host(lambda outputs, y: seen.append(len(y)) or np.zeros(len(y)))},
    )
    assert hpx.Sweep(program, ONE, 1).run(progress=False).best.step == 4
    assert sum(size == 27 for size in seen) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": None}, "supervised.steps = None: must be given, or epochs in its place"),
        ({"steps": 5, "epochs": 1}, r"supervised.steps = \(5, 1\): must be given, or epochs in its place"),
        ({"steps": None, "epochs": 0}, "supervised.epochs = 0: must be a number above 0"),
        ({"steps": None, "epochs": "3"}, "supervised.epochs = '3': must be a number above 0"),
        ({"steps": None, "epochs": float("inf")}, "supervised.epochs = inf: must be a number above 0"),
    ],
)
def test_lengths_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(hpx.InputError, match=message):
        classifier(**arguments)


def test_epochs_of_h_are_checked_before_anything_compiles():
    with pytest.raises(hpx.InputError, match=r"supervised.epochs = -1: must be a number above 0"):
        lengths(ONE, epochs=lambda h: -1)


def test_a_stream_has_no_epochs():
    train = blobs().train
    data = hpx.data.stream(lambda: iter([(train.x, train.y)]), valid=(train.x, train.y))
    with pytest.raises(hpx.InputError, match=r"supervised.epochs = '3': cannot be counted in a stream"):
        classifier(steps=None, epochs=3, data=data, batch_size=None)
