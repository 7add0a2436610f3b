"""What Weights & Biases has of a run: on its server or, of one that was logged offline, in its files.

The files are logs of protocol buffers as LevelDB has them, behind a header of seven bytes. No public function reads
them, and after a kill they alone say what there is: W&B writes them in blocks.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768
# Length and kind of a part of a record, behind a checksum.
PART = struct.Struct("<4xHB")
WHOLE, LAST = 1, 4


def last_steps(rows: Iterable[Mapping[str, Any]], axis: str) -> dict[str, int]:
    """Returns the last step of each metric in the rows of a history; ``axis`` is the name of the step."""
    found: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and row.get(axis) is not None:
                found[name] = max(int(row[axis]), found.get(name, -1))
    return found


def online(run: Any) -> Iterable[Mapping[str, Any]]:
    """Returns the rows that the server has of a run that goes on."""
    import wandb

    rows: Iterable[Mapping[str, Any]] = wandb.Api().run(run.path).scan_history()
    return rows


def offline(folder: Path, id: str) -> Iterator[Mapping[str, Any]]:
    """Yields the rows in the files of a run, which may have been begun several times.

    Args:
      folder: W&B's own, ``wandb``.
      id: of the run.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob(f"offline-run-*-{id}/run-{id}.wandb")):
        for content in _records(path.read_bytes()):
            items = Record.FromString(content).history.item
            if items:
                yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[bytes]:
    """Yields the records of a file, as far as they were written whole."""
    at, record = HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # too little for a part: the rest of the block is empty
            at += BLOCK - at % BLOCK
            continue
        length, kind = PART.unpack_from(content, at)
        begin, at = at + PART.size, at + PART.size + length
        if at > len(content):
            return
        record += content[begin:at]
        if kind in (WHOLE, LAST):
            yield record
            record = b""
