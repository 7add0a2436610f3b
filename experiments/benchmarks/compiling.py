"""How long a first run waits before it trains, beside ``jit(vmap(scan))`` of the same.

A process compiles but once, so each of these runs in a process of its own, with an empty cache.
"""

from ours import engine_of, sweep_of
from ports import Port
from rivals import together
from worker import Prepared, Spent, now


def _sweep(workload, arrays, **settings):
    import scipy.stats  # noqa: F401, as samplers do: what a process imports counts on neither side

    return workload.sweep() if isinstance(workload, Port) else sweep_of(workload, arrays, **settings)


def _plain(workload, arrays):
    """Returns the jitted function and its arguments."""
    return workload.plain() if isinstance(workload, Port) else together(workload, arrays)


def ours(workload, arrays, **settings):
    """Measures seconds until the first step can run, and CPU seconds until all is compiled, evaluations too."""
    sweep = _sweep(workload, arrays, **settings)

    def run():
        begun = now()
        events = sweep.events()
        next(event for event in events if event.kind == "compiled")
        waited = now().since(begun)
        *_, compiled = engine_of(sweep)
        _ = compiled.evaluate.compiled
        spent = now().since(begun)
        events.close()
        return None, Spent(waited.wall, spent.cpu)

    return Prepared(run, warm=False)


def plain(workload, arrays):
    """Compiles training and evaluation, which are one program."""
    function, arguments = _plain(workload, arrays)

    def run():
        function.lower(*arguments).compile()

    return Prepared(run, warm=False)


def ours_lowered(workload, arrays):
    """Traces and lowers the programs of a group; the sweep is planned before."""
    from hpjax.engine.compile import FUNCTIONS

    sweep = _sweep(workload, arrays)
    sweep.plan()

    def run():
        *_, compiled = engine_of(sweep)
        for name in FUNCTIONS:
            compiled.lower(name)

    return Prepared(run, warm=False)


def plain_lowered(workload, arrays):
    function, arguments = _plain(workload, arrays)

    def run():
        function.lower(*arguments)

    return Prepared(run, warm=False)
