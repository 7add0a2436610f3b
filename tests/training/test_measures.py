"""Measures: names of metrics, and what losses and metrics may take."""

import jax.numpy as jnp
import pytest

import hpjax as hpx
from tests.support.programs import classifier

SPACE = hpx.Space(learning_rate=0.1, momentum=0.9)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("loss", {}),
        ("penalty", {"penalty": lambda params, h: hpx.losses.l2(params)}),
        ("best_loss", {"early_stopping": hpx.EarlyStopping(patience=2)}),
        ("sparsity", {"monitor": ["sparsity"]}),
    ],
)
@pytest.mark.parametrize("of_h", [False, True])
def test_a_metric_has_no_name_that_the_program_reports_itself(name, arguments, of_h):
    own = {name: lambda outputs, y: jnp.full(len(y), 2.0)}
    with pytest.raises(hpx.InputError, match=rf"supervised.metrics = '{name}': .*reports"):
        hpx.Sweep(classifier(metrics=(lambda h: own) if of_h else own, **arguments), SPACE, 1).plan()


@pytest.mark.parametrize("microbatch", [None, 8])
def test_a_metric_may_be_named_after_what_was_not_asked_for(microbatch):
    metrics = dict.fromkeys(("penalty", "sparsity", "best_loss"), lambda outputs, y: jnp.full(len(y), 2.0))
    program = classifier(metrics=metrics, steps=2, eval_every=None, microbatch=microbatch)
    found = hpx.Sweep(program, SPACE, 1).run(progress=False).best.metrics
    assert {found[f"{split}/{name}"] for split in ("train", "valid") for name in metrics} == {2.0}
