"""CSV files of tables."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpjax.core.arrays import Array
from hpjax.core.format import show
from hpjax.results.store.files import write_for_user, writing_for_user


def write(table: Mapping[str, Array], path: str | Path) -> None:
    """Writes columns as a CSV file in UTF-8, whole or not at all; missing values are empty cells.

    Raises:
      RunError: it cannot be written.
    """
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow(["" if cell is None or cell != cell else _text(cell) for cell in row])
    with writing_for_user(path, "result.to_csv(FILE), or hpjax export DIR --out FILE"):
        write_for_user(path, content.getvalue().encode("utf-8"))


def _text(cell: Any) -> str:
    return show(cell.item() if isinstance(cell, np.generic) else cell)
