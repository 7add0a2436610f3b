"""A figure of matplotlib that notebooks show by themselves, without ``pyplot``, which would keep it in memory."""

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """A figure that notebooks display."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=150)
        return content.getvalue()
