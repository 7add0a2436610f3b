"""Programs of a group that cannot be compiled."""


class Failing:
    """In place of ``Compiled``."""

    def __init__(self, error):
        self.error = error

    def prepare(self, *names):
        pass

    def wait(self):
        raise self.error
