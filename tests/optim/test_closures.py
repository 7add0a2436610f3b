"""Where Optax keeps the numbers of its transformations, and what is told should it keep them elsewhere."""

import optax
import pytest

from hpjax.core.fallback import warn_once
from hpjax.optim import closures
from hpjax.optim.closures import functions_in, variables_of


def test_the_numbers_of_an_optimizer_are_found():
    found = {
        name: value for function in functions_in(optax.adam(0.1, 0.7, 0.8)) for name, value in variables_of(function)
    }
    assert (found["b1"], found["b2"]) == (0.7, 0.8)


def test_an_optax_that_keeps_them_elsewhere_is_told_once(monkeypatch):
    warn_once.cache_clear()
    monkeypatch.setattr(closures, "_adam_has_decays", closures._adam_has_decays.__wrapped__)
    monkeypatch.setattr(optax, "adam", lambda rate: optax.GradientTransformation(min, max))
    with pytest.warns(RuntimeWarning, match=f"optax {optax.__version__} keeps its functions where .* not") as caught:
        assert [list(functions_in(optax.adam(0.1))) for _ in range(2)] == [[], []]
    assert len(caught) == 1
