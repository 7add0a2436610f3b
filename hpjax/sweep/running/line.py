"""A line of output that the next one replaces: on a terminal, or in a notebook."""

import time
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# The width of the bar.
BAR = 12
# The least seconds between two lines that are sent to a notebook while steps are done.
SECONDS_BETWEEN_LINES = 0.1


class TerminalLine:
    """A bar and a line on a terminal, which are gone once they are closed.

    Args:
      console: the terminal.
    """

    def __init__(self, console: "Console") -> None:
        from rich.progress import BarColumn, Progress, TextColumn  # imported here, since it takes a sixth of a second

        self.room: int | None = console.width - BAR - 1
        columns = BarColumn(bar_width=BAR), TextColumn("{task.description}")
        self._bar = Progress(*columns, console=console, transient=True)
        self._bar.start()
        self._task = self._bar.add_task("")

    def show(self, line: str, done: int, total: int) -> None:
        """Shows a line in place of the last one, and which part of the whole is done."""
        self._bar.update(self._task, description=line, completed=done, total=total)

    def close(self) -> None:
        """Takes the line away."""
        self._bar.stop()


class NotebookLine:
    """A bar and a line below the cell of a notebook, in which they are empty once they are closed."""

    def __init__(self) -> None:
        import IPython.display  # a notebook has it

        self.room: int | None = None
        display: Any = IPython.display.display
        self._display = display({"text/plain": ""}, raw=True, display_id=True)
        self._shown, self._done = -SECONDS_BETWEEN_LINES, -1

    def show(self, line: str, done: int, total: int) -> None:
        """Shows a line in place of the last one, and which part of the whole is done."""
        now = time.monotonic()
        if done == self._done or now - self._shown >= SECONDS_BETWEEN_LINES:
            self._shown, self._done = now, done
            bar = f'<progress value="{done}" max="{total}" style="width: {BAR / 2}em"></progress>'
            self._display.update({"text/plain": line, "text/html": f"{bar} {escape(line)}"}, raw=True)

    def close(self) -> None:
        """Takes the line away."""
        self._display.update({"text/plain": "", "text/html": ""}, raw=True)


def line_on(console: "Console") -> TerminalLine | NotebookLine | None:
    """Returns a line on a console, None where lines cannot be replaced."""
    if console.is_jupyter:
        return NotebookLine()
    return TerminalLine(console) if console.is_terminal else None
