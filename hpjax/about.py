"""The manifest of a run directory, which says what the run is: written, read, and compared."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpjax.core.errors import RunError
from hpjax.fields import check_manifest
from hpjax.files import write_text
from hpjax.untrusted import guard, read_json

MANIFEST, FORMAT = "manifest.json", 1
# Of what a manifest says of a sweep this follows from the space, and need not be told beside what that differs in.
FOLLOWING = ("ranges", "options", "scales")


def origin() -> dict[str, Any]:
    """When and by which command something is written, for its manifest."""
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
    }


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest of a run directory."""
    write_text(directory / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a run directory.

    Raises:
      RunError: there is none, or it cannot be read.
    """
    guard(directory)
    path = directory / MANIFEST
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        raise RunError(
            f"{str(directory)!r} is no run directory: it has no {MANIFEST}. Name the folder of a run."
        ) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RunError(f"{path} is no manifest of format {FORMAT}.")
    check_manifest(str(path), manifest)
    return manifest


def differences(there: Any, here: Any, at: str = "") -> list[str]:
    """What differs between two JSON values, a line each: ``trials: 256 there, 128 here``."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = dict.fromkeys([*there, *here])
        lines = [
            line
            for name in names
            for line in differences(there.get(name), here.get(name), f"{at}.{name}" if at else str(name))
        ]
        return lines if at else [line for line in lines if not line.startswith(FOLLOWING)] or lines
    return [] if there == here else [f"{at}: {json.dumps(there)} there, {json.dumps(here)} here"]
