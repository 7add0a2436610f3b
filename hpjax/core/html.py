"""HTML of tables and texts, as notebooks show objects. All that is shown stays text, whatever characters it has."""

from collections.abc import Sequence
from html import escape

from hpjax.core.format import numeric_columns


def table(header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """Returns a table, with columns of numbers to the right, and a line of text below it.

    Args:
      header: the title of each column.
      rows: the cells, row by row, as many in each as the header has.
      note: the line; several lines are shown as several.
    """
    sides = ["right" if numeric else "left" for numeric in numeric_columns(header, rows)]
    head = _row("th", header, sides)
    body = "".join(_row("td", row, sides) for row in rows)
    below = f"<p>{escape(note).replace(chr(10), '<br>')}</p>" if note else ""
    return f"<div><table><thead>{head}</thead><tbody>{body}</tbody></table>{below}</div>"


def _row(kind: str, row: Sequence[str], sides: Sequence[str]) -> str:
    cells = (f'<{kind} style="text-align: {s}">{escape(cell)}</{kind}>' for cell, s in zip(row, sides, strict=True))
    return f"<tr>{''.join(cells)}</tr>"


def text(lines: str) -> str:
    """Returns a text with its own spaces and line breaks."""
    return f'<pre style="white-space: pre; overflow-x: auto">{escape(lines)}</pre>'
