"""Competitors that are whole processes."""

import subprocess
import sys

from worker import Prepared


def importing(workload, arrays, what):
    """Starts a Python that imports something and ends."""

    def run():
        subprocess.run([sys.executable, "-c", f"import {what}"], check=True)

    run()  # so that the files are in the machine's memory
    return Prepared(run, warm=False)
