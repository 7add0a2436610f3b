"""Processes of their own that run a module of this folder, and a disk that is full for them."""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager

from tests.support.programs import ROOT


def started(module, *arguments, unset=(), **environment):
    """A process that runs tests/support/``module``.py with these arguments; what it prints can be read."""
    outer = {name: value for name, value in os.environ.items() if name not in unset}
    # Of this checkout, wherever the process begins.
    path = os.pathsep.join([str(ROOT), *filter(None, [outer.get("PYTHONPATH")])])
    command = [sys.executable, "-m", f"tests.support.{module}", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=outer | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def full_disk(room):
    """Within it no file can have more bytes than ``room``, here and in processes that are started meanwhile."""
    least, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))
