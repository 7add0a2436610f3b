"""A browser for the tests of reports."""

import pytest

from tests.support import browser


@pytest.fixture(scope="module")
def chrome():
    with browser.browser() as found:
        yield found
