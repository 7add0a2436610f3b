"""Picture files: saves a figure of matplotlib, whole or not at all."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from hpjax.core.errors import InputError
from hpjax.results.store.files import write_for_user, writing_for_user

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Dots per inch: journals ask for 300.
DPI = 300
NOTEBOOK_DPI = 150
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
    figure.savefig(content, format=kind, dpi=dpi or DPI)
    return content.getvalue()
