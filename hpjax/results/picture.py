"""A figure of matplotlib that notebooks show by themselves, without ``pyplot``, which would keep it in memory."""

from matplotlib.figure import Figure

from hpjax.results.picture_file import content_of


class Picture(Figure):
    """A figure that notebooks display."""

    def _repr_png_(self) -> bytes:
        return content_of(self, "png")
