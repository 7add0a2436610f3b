"""The peers' own environment, made once: what they need may clash with what hpjax needs."""

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FOLDER = ROOT / ".peers"


def python() -> str:
    """Returns the peers' interpreter; makes its environment if there is none of the present requirements.

    Raises:
      CalledProcessError: pip failed, and said why.
    """
    wanted, found = HERE / "peers.txt", FOLDER / "installed.txt"
    interpreter = FOLDER / "bin" / "python"
    if not found.exists() or found.read_text() != wanted.read_text():
        print(f"installing the peers in {FOLDER.name}, once", file=sys.stderr, flush=True)
        venv.create(FOLDER, with_pip=True)
        pip = [interpreter, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", wanted], check=True)
        found.write_text(wanted.read_text())
    return str(interpreter)
