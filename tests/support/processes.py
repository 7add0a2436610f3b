"""Processes of their own that run a module of this folder."""

import os
import subprocess
import sys

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
