"""The coordinate check: flat under μP, and growing as the theory says under the standard parametrization."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import hpjax as hpx
from hpjax.core.hparams import Hparams
from hpjax.core.keys import lane_key, purpose_key
from tests.support.programs import quadratic

OPTIMIZERS = {"adam": (optax.adam, 0.003), "sgd": (optax.sgd, 0.02)}


def model(h):
    """Its last layer begins at 0, as Yang et al. advise, so that a narrow model begins with no random function."""
    last = nn.Dense(10, kernel_init=nn.initializers.zeros)
    return nn.Sequential([nn.Dense(h.width), nn.relu, nn.Dense(h.width), nn.relu, last])


def program(rule="adam", model=model, **changes):
    asked = {"loss": optax.softmax_cross_entropy_with_integer_labels, "data": hpx.data.digits(), "batch_size": 64}
    asked |= {"optimizer": lambda h: OPTIMIZERS[rule][0](h.learning_rate), "steps": 3}
    mup = lambda h: hpx.mup.MuP({"width": 64}, rule, enabled=h.mup)
    return hpx.supervised(**(asked | {"model": model, "mup": mup} | changes))


def check(rule="adam", mup=True, widths=(64, 128, 256), **changes):
    own = changes.pop("program", None) or program(rule)
    hparams = {"learning_rate": OPTIMIZERS[rule][1], "mup": mup}
    return hpx.mup.coordinate_check(own, hparams, widths=widths, **changes)


@pytest.mark.parametrize("rule", ["adam", pytest.param("sgd", marks=pytest.mark.slow)])
def test_updates_are_flat_under_mup_and_grow_under_the_standard_parametrization(rule, counted):
    found, standard = (check(rule, mup, widths=(64, 128, 256, 512)) for mup in (True, False))
    assert found.layers == ("layers_0", "layers_2", "layers_4", "output")
    assert all(abs(slope) < 0.1 for slope in found.slopes.values()), str(found)
    # With a last layer of zeros the first step changes it alone: logits by rate × width × h². In the sum of SGD over
    # examples classes cancel what they share, so that a random part of the order of √width counts beside the rest.
    low, high = {"adam": (0.85, 1.15), "sgd": (0.5, 1.0)}[rule]
    assert low < standard.slopes["output"] < high, str(standard)
    # The hidden layer follows it, by 1 in the limit of wide ones; its input, of 64 pixels, does not grow.
    assert standard.slopes["layers_2"] > 0.5, str(standard)
    assert abs(standard.slopes["layers_0"]) < 0.1, str(standard)
    np.testing.assert_allclose(
        found.updates[:, 0], standard.updates[:, 0], rtol=1e-4, err_msg="alike at the base width"
    )
    counted(f"{rule}, μP:\n{found}\n{rule}, standard:\n{standard}")


def test_sizes_and_updates_are_those_of_flax():
    """What ``capture_intermediates`` gives before and after a step, computed here for one seed."""
    drawn = lambda h: nn.Sequential([nn.Dense(h.width), nn.relu, nn.Dense(10)])
    own = program(model=drawn)
    found = check(program=own, widths=(16, 32), steps=1, seeds=1)
    h = Hparams({"learning_rate": 0.003, "mup": True, "width": 32})
    state = own.init(purpose_key(lane_key(0, 0), "init"), h)
    x = jnp.asarray(own.splits[1].x[:64])
    _, seen = drawn(h).apply({"params": state.params}, x, capture_intermediates=True)
    before = seen["intermediates"]["layers_0"]["__call__"][0]
    assert found.sizes[found.layers.index("layers_0"), 1] == pytest.approx(
        float(jnp.sqrt(jnp.mean(before**2))), rel=0.05
    )
    # Adam's first step changes each weight and bias by the rate, against the sign of its gradient.
    most = 0.003 * float(jnp.sqrt(jnp.mean((jnp.abs(x).sum(axis=1) + 1) ** 2)))
    assert 0 < found.updates[found.layers.index("layers_0"), 1] < most


def test_models_of_nnx_have_layers_too():
    class Net(nnx.Module):
        def __init__(self, width, rngs):
            self.first, self.last = nnx.Linear(64, width, rngs=rngs), nnx.Linear(width, 10, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.first(x)))

    own = program(model=lambda h, rngs: Net(h.width, rngs))
    found = check(program=own, widths=(16, 32), steps=1, seeds=1)
    assert set(found.layers) == {"first", "last", "output"}
    at = found.layers.index
    np.testing.assert_array_equal(found.sizes[at("last")], found.sizes[at("output")])


def test_optimizer_steps_count_whatever_the_microbatch():
    whole, parts = (check(program=program(microbatch=m), widths=(8, 16), steps=2, seeds=1) for m in (None, 16))
    np.testing.assert_allclose(parts.updates, whole.updates, rtol=1e-3)


def test_models_of_tokens_are_looked_at_too():
    data = hpx.data.tokens(np.arange(300, dtype=np.uint8) % 7, length=5)
    tokens = lambda h: nn.Sequential([nn.Embed(7, h.width), nn.Dense(7)])
    found = check(program=program(model=tokens, data=data, batch_size=4), widths=(8, 16), steps=1, seeds=1)
    assert found.layers == ("layers_0", "layers_1", "output")
    assert (found.updates > 0).all()


def test_layers_are_in_the_order_of_their_numbers():
    deep = lambda h: nn.Sequential([nn.Dense(h.width) for _ in range(11)] + [nn.Dense(10)])
    found = check(program=program(model=deep), widths=(2, 4), steps=1, seeds=1)
    assert found.layers == (*(f"layers_{i}" for i in range(12)), "output")


def test_slopes_are_those_of_a_line_and_a_picture_has_a_line_a_layer(tmp_path):
    widths = (2, 4, 8)
    values = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
    found = hpx.mup.CoordinateCheck(widths, ("a", "b", "c"), values, values)
    assert found.slopes == {
        "a": pytest.approx(1),
        "b": pytest.approx(0, abs=1e-9),
        "c": pytest.approx(np.nan, nan_ok=True),
    }
    left, right = found.plot(tmp_path / "check.png").axes
    assert [line.get_label() for line in left.lines] == [line.get_label() for line in right.lines] == ["a", "b", "c"]
    assert (tmp_path / "check.png").stat().st_size > 1000
    assert "+1.00" in str(found).splitlines()[1]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: check(widths=64), "coordinate_check.widths = 64: must be a list of whole numbers"),
        (lambda: check(widths=(64, 64)), r"coordinate_check.widths = \[64, 64\]: must be two at least"),
        (
            lambda: check(program=program(model=nn.Dense(10), mup=None)),
            "coordinate_check.width = 'width': must change the shape of a parameter; 64 and 128 give equal ones",
        ),
        (
            lambda: hpx.mup.coordinate_check(quadratic(2, 1), {"rate": 0.1}, widths=(2, 4)),
            "must be one of hpx.supervised whose model is of Linen or NNX",
        ),
        (
            lambda: hpx.mup.coordinate_check(
                program(), {"width": 3, "mup": False, "learning_rate": 1.0}, widths=(2, 4)
            ),
            "coordinate_check.hparams = 'width': must not be among them",
        ),
    ],
)
def test_what_cannot_be_is_told(make, told):
    with pytest.raises(hpx.InputError, match=told):
        make()
