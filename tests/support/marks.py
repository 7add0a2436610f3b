"""What of a test's parameters `make test` leaves out."""

import pytest


def slow(*values, **more):
    """These values of a test's parameters, which `make test` leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow, **more)


def few_of(names, few):
    """All of these names, of which `make test` takes a few and leaves out the rest."""
    assert set(few) <= set(names)
    return [name if name in few else slow(name) for name in names]
