"""Tables on a terminal, as wide as it is; where the output is no terminal they are plain text with all columns."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hpjax.core.format import numeric_columns
from hpjax.results.summary import Summary

if TYPE_CHECKING:
    from rich.console import Console


def print_table(table: Summary, first: Sequence[str], wide: bool) -> None:
    """Prints a table.

    Args:
      table: the table.
      first: the names of columns, from the one that is left out last where the terminal is narrow.
      wide: whether to print all columns on a terminal, too.
    """
    if not sys.stdout.isatty():
        click.echo(str(table))
        return
    from rich.console import Console

    console = Console()
    draw(console, table if wide else table.fitting(console.width, first))


def draw(console: "Console", table: Summary) -> None:
    """Draws a table on a terminal, whose lines are not broken."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 0, 0, 2), header_style="bold")
    for name, numeric in zip(table.header, numeric_columns(table.header, table.rows), strict=True):
        drawn.add_column(Text(name), justify="right" if numeric else "left", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    console.print(drawn, crop=False, overflow="ignore", no_wrap=True)
    console.print(Text(table.note), soft_wrap=True)
