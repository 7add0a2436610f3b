"""The style of all pictures: colours, sizes of text, and the widths of the columns of a paper."""

from typing import Any, Literal

# From Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#9A9A9A"
# For what has no order, such as optimizers; without its yellow, which is pale in lines.
PALETTE = (BLUE, ORANGE, "#009E73", RED, "#CC79A7", "#56B4E9", "#000000")
DOTS: dict[str, Any] = {"fmt": "o", "color": BLUE, "markersize": 4, "linewidth": 1, "capsize": 2}

Width = Literal["single", "double"]
# Inches of one and of two columns, as most journals and conferences have them.
WIDTHS: dict[str, float] = {"single": 3.3, "double": 6.8}

STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.linewidth": 0.6,
    # In points on paper: a figure has the width of its column, so that nobody scales it.
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    # Fonts that can be searched and edited, as TrueType; IEEE and ACM refuse Type 3, which is Matplotlib's default.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    # An SVG embeds no font: as paths letters look the same where it is missing. PDF has text that can be edited.
    "svg.fonttype": "path",
}
