"""Figures of studies, drawn from the numbers of their answers."""

from hpjax.studies.plot.branches import branches, draw_branches, draw_critical
from hpjax.studies.plot.gains import draw_gains, gains
from hpjax.studies.plot.optimizers import draw_optimizers, draw_steps, optimizers
from hpjax.studies.plot.profiles import draw_profiles, draw_scores, profiles
from hpjax.studies.plot.scaling import draw_rates, draw_scaling, scaling
from hpjax.studies.plot.widths import coordinates, draw_transfer, transfer

__all__ = [
    "branches",
    "coordinates",
    "draw_branches",
    "draw_critical",
    "draw_gains",
    "draw_optimizers",
    "draw_profiles",
    "draw_rates",
    "draw_scaling",
    "draw_scores",
    "draw_steps",
    "draw_transfer",
    "gains",
    "optimizers",
    "profiles",
    "scaling",
    "transfer",
]
