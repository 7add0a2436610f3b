"""A figure of matplotlib that notebooks show by themselves, without ``pyplot``, which would keep it in memory."""

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from hpjax.results.picture_file import NOTEBOOK_DPI, content_of
from hpjax.results.style import STYLE


class Picture(Figure):
    """A figure that notebooks display, and that has the style of this project whenever it is drawn or saved."""

    # Ticks are made, and fonts embedded, only then.
    def draw(self, renderer: Any) -> None:
        """Draws the figure."""
        with mpl.rc_context(STYLE):
            super().draw(renderer)

    def savefig(self, fname: Any, **options: Any) -> None:
        """Saves the figure to a file, as any figure of matplotlib."""
        with mpl.rc_context(STYLE):
            super().savefig(fname, **options)

    def _repr_png_(self) -> bytes:
        return content_of(self, "png", NOTEBOOK_DPI)
