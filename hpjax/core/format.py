"""Formatting of values, tables and numbers as plain text."""

import numbers
from collections.abc import Sequence
from functools import partial

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Returns a table with columns two spaces apart; columns of numbers are aligned to the right.

    Args:
      header: the title of each column.
      rows: the cells, row by row, as many in each as the header has.
      indent: what each line begins with.
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = numeric_columns(header, rows)
    lines = [
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
        for row in (header, *rows)
    ]
    return "\n".join((indent + line).rstrip() for line in lines)


def numeric_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Returns which columns of a table, of those in its header, hold numbers alone; none of a table without rows."""
    return [bool(rows) and all(_numeric(row[at]) for row in rows) for at in range(len(header))]


def _numeric(cell: str) -> bool:
    """Returns whether a cell of a table is a number, or stands for one that is missing."""
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return cell in ("", "-")
    return True


def brief(text: str, most: int = 60) -> str:
    """Returns a text, cut off with dots where it has more than so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def count(number: int, noun: str) -> str:
    """Returns a number with its noun: ``1 trial``, ``1,000 trials``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: float) -> str:
    """Returns a number of bytes as ``12.3 MiB``."""
    for unit in UNITS[:-1]:
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} {UNITS[-1]}"


def rate(number: float) -> str:
    """Returns a number with three digits and the prefix of its thousands, as ``1.23 M``."""
    for prefix in ("", "k", "M", "G"):
        if abs(number) < 999.5:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} T"


def duration(seconds: float) -> str:
    """Returns seconds as ``4.2 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def metric(value: float) -> str:
    """Returns a measured value with four significant digits."""
    return f"{value:.4g}"


def show(value: object) -> str:
    """Returns a value as a person would write it: ``0.0003``, ``1e-5``, ``256``, ``relu``, ``adamw``."""
    # Those of NumPy, too, without importing it: --help must not wait.
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        number = float(value)
        if number.is_integer() and abs(number) < 1e16:
            return str(int(number))
        mantissa, e, exponent = repr(number).partition("e")  # 1e-05 becomes 1e-5
        return f"{mantissa}e{int(exponent)}" if e else mantissa
    if isinstance(value, tuple):
        return f"({', '.join(map(show, value))}{',' * (len(value) == 1)})"
    if isinstance(value, partial):
        given = [*map(show, value.args), *(f"{name}={show(v)}" for name, v in value.keywords.items())]
        return f"{show(value.func)}({', '.join(given)})"
    if callable(value):
        return str(getattr(value, "__name__", type(value).__name__))
    text = str(value)
    # Escaped, so that a name with control characters cannot rewrite the user's terminal.
    return text if text.isprintable() else repr(text)[1:-1]
