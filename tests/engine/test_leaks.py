"""How often a plan traces a program: once, unless the program keeps something of the trace."""

import equinox as eqx
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import hpjax as hpx
from hpjax.engine.probe import trace_program
from hpjax.sweep.planning.grouping import tracer_of
from tests.support.programs import SPACE, blobs, classifier


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first, self.dropout = nnx.Linear(5, 4, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)
        self.norm, self.last = nnx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(self.norm(nnx.relu(self.first(x)))))


MODELS = {
    "Linen": {},
    "NNX": {"model": lambda h, rngs: Nnx(rngs)},
    "Equinox": {"model": lambda h, key: eqx.nn.MLP(5, 3, 4, 1, key=key)},
    "microbatches": {"microbatch": 8, "average": 0.9},
}


@pytest.mark.parametrize("model", MODELS)
def test_a_plan_traces_a_program_once(model):
    counted = []

    def loss(outputs, y):
        counted.append(None)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y)

    sweep = hpx.Sweep(classifier(loss=loss, **MODELS[model]), SPACE, trials=2)
    point = sweep.plan().points[0]
    planned, tracer = len(counted), tracer_of(sweep.spec)
    assert not trace_program(tracer.program, tracer.hparams(point, point), tracer.train, tracer.valid).leaks
    assert planned == len(counted) - planned


def test_a_program_that_keeps_an_array_is_traced_again_and_refused():
    kept = []

    def step(key, state, batch, h):
        kept.append(state * h.learning_rate)
        return state - kept[0], {"loss": state}

    program = hpx.Program(
        init=lambda key, h: jnp.ones(()),
        batch=lambda key, t, train, h: None,
        step=step,
        evaluate=lambda key, state, valid, h: {"loss": state},
        steps=2,
        eval_every=1,
        data=blobs(),
    )
    with pytest.raises(hpx.ProgramError, match="an earlier call of its functions computed"):
        hpx.Sweep(program, SPACE, trials=2).plan()
    assert len(kept) == 3, "once; again, since something was kept; and, where that failed, with plain numbers"
