"""Competitors that are whole processes."""

import subprocess
import sys

from worker import Prepared


def importing(workload, arrays, what):
    """A Python that imports something and ends."""

    def run():
        subprocess.run([sys.executable, "-c", f"import {what}"], check=True)

    return Prepared(run)
