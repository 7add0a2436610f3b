"""Picture files: saves a figure of matplotlib, whole or not at all."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hpjax.core.errors import InputError
from hpjax.results.store.files import write_for_user, writing_for_user

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Dots per inch: journals ask for 300.
DPI = 300
NOTEBOOK_DPI = 150
# Matplotlib's warning of a letter.
MISSING = re.compile(r"Glyph (\d+) \(.*missing from font")
# What to type where a picture cannot be written.
INSTEAD = 'plot(path="FOLDER/a.png"), or hpjax plot DIR --out FOLDER'


def save(figure: "Figure", path: str | Path) -> None:
    """Saves a figure to a file, in the format that its suffix names; without one it gets matplotlib's default.

    Raises:
      InputError: matplotlib knows no such format.
      RunError: the file cannot be written.
    """
    import matplotlib as mpl

    path = Path(path)
    if not path.suffix:
        path = path.with_name(f"{path.name}.{mpl.rcParams['savefig.format']}")
    kind, kinds = path.suffix[1:].lower(), figure.canvas.get_supported_filetypes()
    if kind not in kinds:
        raise InputError(
            "plot.path", str(path), f"must end in one of {', '.join(sorted(kinds))}", 'Write path="a.png".'
        )
    content = content_of(figure, kind)
    with writing_for_user(path, INSTEAD):
        write_for_user(path, content)


def content_of(figure: "Figure", kind: str, dpi: int | None = None) -> bytes:
    """Returns a figure as the content of a file of such a kind, ``"png"`` say; with ``DPI`` dots per inch if None."""
    content = io.BytesIO()
    with _one_warning_of_letters():
        figure.savefig(content, format=kind, dpi=dpi or DPI)
    return content.getvalue()


@contextmanager
def _one_warning_of_letters() -> Iterator[None]:
    """Warns once of all letters that the font lacks, where matplotlib warns of each, several times."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    lacking = dict.fromkeys(found[1] for each in caught if (found := MISSING.match(str(each.message))))
    for each in caught:
        if not MISSING.match(str(each.message)):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if lacking:
        letters = "".join(chr(int(code)) for code in lacking)
        warnings.warn(
            f"the font has no letters {letters!r}, which are boxes in the picture. Write "
            'matplotlib.rcParams["font.family"] = [...] with a font that has them.',
            stacklevel=3,
        )
