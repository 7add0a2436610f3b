"""Pictures of a sweep, drawn with matplotlib from the numbers that ``plot_data`` computes.

Each ``draw_*`` function draws into axes that it is given, and returns them:

  >>> from matplotlib.figure import Figure
  >>> result = hpx.Sweep(program, space, trials=4).run(progress=False)
  >>> hpx.plot.draw_axis(result, "rate", "valid/loss", Figure().subplots()).get_xscale()
  'log'
"""

from hpjax.results.plot.curves import draw_cost, draw_curves, draw_quantiles, draw_rungs
from hpjax.results.plot.figures import overview, pictures
from hpjax.results.plot.isolation import draw_isolation
from hpjax.results.plot.points import draw_axis, draw_contour, draw_map
from hpjax.results.plot.population import draw_lineage, draw_schedules
from hpjax.results.plot.shares import draw_importance, draw_parallel
from hpjax.results.style import BLUE as BLUE
from hpjax.results.style import GREY as GREY
from hpjax.results.style import ORANGE as ORANGE
from hpjax.results.style import RED as RED
from hpjax.results.style import STYLE as STYLE

__all__ = [
    "draw_axis",
    "draw_contour",
    "draw_cost",
    "draw_curves",
    "draw_importance",
    "draw_isolation",
    "draw_lineage",
    "draw_map",
    "draw_parallel",
    "draw_quantiles",
    "draw_rungs",
    "draw_schedules",
    "overview",
    "pictures",
]
