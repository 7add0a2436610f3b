"""A fallback is told once, whoever enters ``warnings.catch_warnings`` in between."""

import warnings

import pytest

from hpjax.core.fallback import warn_once


def test_a_warning_is_given_once_and_again_where_it_is_an_error():
    with warnings.catch_warnings(record=True, action="always") as caught:
        for _ in range(2):
            warn_once("told")
            with warnings.catch_warnings():
                pass
    assert [(each.category, str(each.message)) for each in caught] == [(RuntimeWarning, "told")]
    with warnings.catch_warnings(action="error"):
        for _ in range(2):
            with pytest.raises(RuntimeWarning, match="untold"):
                warn_once("untold")
