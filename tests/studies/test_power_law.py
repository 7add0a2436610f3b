"""Power laws: against NumPy's polynomials, and on synthetic laws whose exponents are known."""

import numpy as np
import pytest
from scipy import stats

import hpjax as hpx
from hpjax.studies import fit_power_law

TOKENS = np.array([1e6, 3e6, 1e7, 3e7, 1e8])


def test_the_law_is_the_line_through_the_logarithms():
    rng = np.random.default_rng(0)
    y = 5 * TOKENS**0.47 * np.exp(rng.normal(0, 0.2, 5))
    law = fit_power_law(TOKENS, y)
    found = stats.linregress(np.log(TOKENS), np.log(y))
    assert law.exponent.value == pytest.approx(found.slope)
    assert law.coefficient.value == pytest.approx(np.exp(found.intercept))
    residuals = np.log(y) - found.intercept - found.slope * np.log(TOKENS)
    assert law.error == pytest.approx(np.sqrt(np.mean(residuals**2)))
    np.testing.assert_allclose(law(TOKENS), np.exp(found.intercept + found.slope * np.log(TOKENS)))


def test_several_values_of_a_point_count_by_the_mean_of_their_logarithms():
    values = np.array([[1.0, 4.0], [2.0, 8.0], [4.0, 16.0]])
    law = fit_power_law([1, 2, 4], values)
    assert (law.coefficient.value, law.exponent.value) == (pytest.approx(2.0), pytest.approx(1.0))
    assert law.exponent.low < 1 < law.exponent.high


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.47])
def test_intervals_hold_exponents_that_are_known(exponent, counted):
    """Of 200 synthetic laws, five sizes with ten seeds each: a bootstrap of ten values is a little too narrow."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        y = 3 * TOKENS[:, None] ** exponent * np.exp(rng.normal(0, 0.3, (5, 10)))
        law = fit_power_law(TOKENS, y, resamples=200)
        held += law.exponent.low <= exponent <= law.exponent.high
    counted(f"95 % intervals of the exponent {exponent:g} hold it in {held / 200:.2f} of cases")
    # A binomial share of 200 at 0.92 is within 0.06 of it.
    assert 0.86 <= held / 200 <= 0.99


def test_a_law_without_noise_has_no_interval():
    law = fit_power_law(TOKENS, 3 * TOKENS**0.5)
    assert tuple(law.exponent) == pytest.approx((0.5, 0.5, 0.5))
    assert tuple(law.coefficient) == pytest.approx((3, 3, 3))
    assert str(law) == "3 [3, 3] · x ** 0.5 [0.5, 0.5]"


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        ([1, 2], [1, 2], r"fit_power_law.x = \[1.0, 2.0\]: must have three different ones"),
        ([1, 2, 2], [1, 2, 3], "must have three different ones"),
        ([1, 2, 0], [1, 2, 3], r"fit_power_law.x = '\[1, 2, 0\]': must be positive and finite"),
        ([1, 2, 3], [1, np.inf, 3], "fit_power_law.y = .*: must be positive and finite"),
        ([1, 2, 3], [1, 2], "must be \\(points,\\) or \\(points, values\\)"),
        ("abc", [1, 2, 3], "fit_power_law.x = 'abc': must be positive"),
    ],
)
def test_what_has_no_law_is_told(x, y, told):
    with pytest.raises(hpx.InputError, match=told):
        fit_power_law(x, y)
