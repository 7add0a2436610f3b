"""The page of a report: one HTML file with its data, its script and the library that draws, which needs no network."""

import json
import re
from importlib.resources import files
from pathlib import Path

import msgspec

from hpjax.core.errors import missing
from hpjax.results.report.content import Content
from hpjax.results.store.files import write_for_user, writing_for_user


class Report:
    """A page that shows a run.

    Args:
      content: what it shows.
    """

    def __init__(self, content: Content) -> None:
        self.content = content

    def html(self, live: str | None = None) -> str:
        """Returns the page as HTML. All names and values that users chose stay text in it.

        Args:
          live: the path from which the page reads new content until the run is finished; None for none.

        Raises:
          ImportError: plotly is not installed.
        """
        try:
            from plotly.offline import get_plotlyjs
        except ImportError:
            raise missing("a report", "plotly") from None
        parts = {
            "style": _file("page.css"),
            "content": self.json(),
            "plotly": get_plotlyjs(),
            "script": _file("page.js").replace("{{live}}", json.dumps(live)),
        }
        # In one pass: what is put in is not read again.
        return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("page.html"))

    def json(self) -> str:
        """Returns what it shows as JSON that may stand in a script of HTML: nothing in it ends that."""
        return msgspec.json.encode(self.content).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028")

    def save(self, path: str | Path) -> None:
        """Writes the page to a file, whole or not at all.

        Raises:
          RunError: the file cannot be written.
          ImportError: plotly is not installed.
        """
        with writing_for_user(path, "result.report(FILE), or hpjax report DIR --out FILE"):
            write_for_user(path, self.html().encode("utf-8"))

    def __repr__(self) -> str:
        return f"Report({self.content.title!r}: {self.content.subtitle})"


def _file(name: str) -> str:
    return files("hpjax.results.report").joinpath(name).read_text("utf-8")
