"""A process that trains a sweep and, on the way, can write no more: python -m tests.support.starved HOW DIRECTORY."""

import ctypes
import os
import resource
import sys
from pathlib import Path

HOW, DIRECTORY = sys.argv[1], Path(sys.argv[2])
if HOW == "read-only":
    # Root may write whatever the permissions say; without its capabilities it may not. Before any thread begins.
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset(header, none)

from tests.support.killed import SWEEPS  # noqa: E402

AFTER = 10


def starve():
    if HOW == "limit":  # as a full disk: files grow no more
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    elif HOW == "full":
        with open(DIRECTORY.parent / "filler", "wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                pass
    else:
        for folder in (DIRECTORY, *(path for path in DIRECTORY.rglob("*") if path.is_dir())):
            folder.chmod(0o555)


if __name__ == "__main__":
    for number, _ in enumerate(SWEEPS["halving"].events(DIRECTORY, checkpoint_seconds=0.0)):
        if number == AFTER:
            print("starved", os.getpid(), flush=True)
            starve()
