"""The check of a padded program: what it finds, what it passes over, and that a run then has groups as before."""

import optax
import pytest
from flax import linen as nn

import hpjax as hpx
from hpjax.engine.padding.rules import RULES
from hpjax.engine.padding.values import Padded
from hpjax.sweep.planning import programs as groups
from hpjax.sweep.planning.padding_check import _most_padded, checked
from tests.support.compare import same_bits
from tests.support.failing import Failing
from tests.support.programs import blobs


class Net(nn.Module):
    """With a bias before a norm, whose gradient is 0 but for rounding, and of which Adam makes a step."""

    size: int
    last: int = 3

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(self.size)(x))
        return nn.Dense(3)(nn.Dense(self.last)(nn.LayerNorm()(nn.sigmoid(x))))


def program(loss=1.0, **changes):
    def scaled(outputs, y):
        return loss * optax.softmax_cross_entropy_with_integer_labels(outputs, y)

    settings = {"steps": 2, "eval_every": 2, "batch_size": 16, "data": blobs(), "loss": scaled}
    model, optimizer = (lambda h: Net(h.size)), (lambda h: optax.adam(h.rate))
    return hpx.supervised(**{"model": model, "optimizer": optimizer, **settings, **changes})


def sweep(own, static=False, rate=0.01):
    space = hpx.Space(rate=hpx.LogUniform(1e-4, 1), size=hpx.Choice(3, 8, 4, static=static))
    return hpx.Sweep(own, space, sampler=hpx.Manual([{"rate": rate, "size": size} for size in (3, 8, 4)]), width=2)


def test_what_rounding_makes_passes():
    own = sweep(program())
    assert len(checked(own.spec, own.plan()).paddings) == 1


def summing(equation):
    """Sums count the padding, too."""
    (array,) = equation.bind(equation.given[0].array)
    return [Padded(array, equation.sizes[0])]


def rooting(equation):
    """Adam's updates are off by 1 %, which the metrics hardly show."""
    (array,) = equation.bind(equation.given[0].array)
    return [Padded(1.01 * array if equation.padded else array, equation.sizes[0], equation.given[0].fill)]


@pytest.mark.parametrize(
    ("name", "rule", "loss", "what"),
    [
        ("reduce_sum", summing, 1.0, "(train|valid)/loss"),
        ("reduce_sum", summing, 1e-6, "(train|valid)/loss"),
        ("sqrt", rooting, 1.0, "the change of params"),
    ],
)
def test_what_a_rule_gets_wrong_is_found(name, rule, loss, what, monkeypatch):
    """However small the loss is."""
    monkeypatch.setitem(RULES, name, rule)
    own = sweep(program(loss), rate=1e-4)
    assert len(own.plan().paddings) == 1
    said = "groups 0, 1, 2 have programs of their own, since a step of a padded one gives "
    with pytest.warns(RuntimeWarning, match=said + what):
        plan = checked(own.spec, own.plan())
    assert plan.paddings == ()
    assert said in str(plan)


def test_a_padded_program_that_fails_is_not_used(monkeypatch):
    """Its groups train with programs of their own, as if there were no padding."""
    own, compiling = program(), groups.compiling

    def failing(config, *rest):
        return compiling(config, *rest) if config.program is own else Failing(NotImplementedError("no such fusion"))

    monkeypatch.setattr(groups, "compiling", failing)
    said = "groups 0, 1, 2 have programs of their own, since the check of a padded one fails: its program fails: "
    with pytest.warns(RuntimeWarning, match=f"{said}.*NotImplementedError: no such fusion"):
        found = sweep(own).run(progress=False)
    assert any(said in line for line in found.manifest.plan)
    assert found.manifest.sweep.padded == ()
    expected = sweep(own, static=True).run(progress=False)
    assert found.statuses.tolist() == ["complete"] * 3
    assert same_bits(found.curves("valid/loss"), expected.curves("valid/loss"))


def test_it_takes_the_group_with_padding_along_most_axes():
    """(4, 16) computes less than (8, 8), and has no padding along one of the axes."""
    space = hpx.Space(rate=hpx.LogUniform(1e-4, 1), a=hpx.Choice(4, 8, 16), b=hpx.Choice(4, 8, 16))
    points = [{"rate": 0.01, "a": a, "b": b} for a, b in ((16, 4), (8, 8), (4, 16))]
    own = program(model=lambda h: Net(h.a, h.b))
    plan = hpx.Sweep(own, space, sampler=hpx.Manual(points), width=2).plan()
    (padding,) = plan.paddings
    assert plan.groups[padding.groups[0]].static == {"a": 4, "b": 16}
    assert _most_padded(plan, padding).static == {"a": 8, "b": 8}


def test_its_program_is_in_the_estimate():
    plan = sweep(program()).plan()
    (padding,) = plan.paddings
    compiling = [plan.shapes[0].compile_seconds, padding.padded.shapes.compile_seconds]
    assert plan.compile_seconds == pytest.approx(plan.pace.compiling * sum(compiling))
