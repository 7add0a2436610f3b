"""Programs of a group that cannot be compiled, and what a device raises that is short of memory."""

import jax

FULL = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1099511627776 bytes.")


class Failing:
    """In place of ``Compiled``."""

    def __init__(self, error):
        self.error = error

    def check(self):
        pass

    def prepare(self, *names):
        pass

    def wait(self):
        raise self.error
