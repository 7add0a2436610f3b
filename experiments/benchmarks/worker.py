"""A competitor's process: prepares, says so, and then runs once for every line on standard input.

python worker.py WORKLOAD ROLE ARRAYS.npz OPTIONS

WORKLOAD and ROLE are ``module:name``; a role is a function of the workload, the arrays and the options that returns
``Prepared``.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple


class Planned(NamedTuple):
    """Seconds that hpjax's plan said before the first run, and what that waited until its programs were compiled."""

    compiling: float
    running: float
    waited: float


class Prepared(NamedTuple):
    """What a competitor is ready to do.

    Attributes:
      run: trains once, and returns the loss of each trial, or None; or these and the ``Spent`` that counts.
      share: of the row's work one run does.
      note: what to tell of it.
      first: seconds of the first run, with compilation; None where ``run`` was not run yet, and is to be.
      warm: whether to run once before anything counts.
      chosen: which of the trials it trains, where not all.
      planned: what hpjax's plan said.
    """

    run: Callable
    share: float = 1.0
    note: str = ""
    first: float | None = None
    warm: bool = True
    chosen: list[int] | None = None
    planned: Planned | None = None


class Spent(NamedTuple):
    """Seconds by the clock, and those of all cores: of this process and of those it waited for."""

    wall: float
    cpu: float

    def since(self, begun: "Spent") -> "Spent":
        return Spent(self.wall - begun.wall, self.cpu - begun.cpu)


def now() -> Spent:
    return Spent(time.perf_counter(), sum(os.times()[:4]))


def named(place: str) -> Any:
    """Imports what is called ``module:name``."""
    module, name = place.split(":")
    return getattr(import_module(module), name)


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lap(prepared: Prepared) -> tuple[Spent, list[float] | None]:
    """Runs once; returns what it took, and the loss of each trial."""
    begun = now()
    found = prepared.run()
    spent = now().since(begun)
    if isinstance(found, tuple):
        found, spent = found
    return spent, None if found is None else [float(loss) for loss in found]


def memory() -> float:
    """Returns the most megabytes that this process has had, or one that it started."""
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    # Answers have standard output to themselves; whatever else prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**what: object) -> None:
        print(json.dumps(what), file=answers, flush=True)

    import numpy as np

    workload, role, arrays, options = sys.argv[1:]
    prepare = named(role)
    with np.load(arrays) as archive:
        loaded = {name: archive[name] for name in archive.files}
    prepared = prepare(named(workload), loaded, **json.loads(options))
    first = prepared.first
    if first is None and prepared.warm:
        first = lap(prepared)[0].wall
    about = {"share": prepared.share, "note": prepared.note, "chosen": prepared.chosen, "planned": prepared.planned}
    say(first=first, **about)
    for _ in sys.stdin:
        spent, losses = lap(prepared)
        wall, cpu = (seconds / prepared.share for seconds in spent)
        say(wall=wall, cpu=cpu, losses=losses, megabytes=memory())


if __name__ == "__main__":
    main()
