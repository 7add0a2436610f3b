"""Analysis for papers: statistics of trials and runs, each with its formula, its source and an interval."""

from hpjax.results.analysis.aggregate import (
    Profile,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from hpjax.results.analysis.best_of import BestOf, expected_best
from hpjax.results.analysis.boundaries import Boundary, boundaries
from hpjax.results.analysis.intervals import Estimate
from hpjax.results.analysis.isolation import Isolated, isolate
from hpjax.results.analysis.paired import Comparison, pairs_needed, probability_of_outperforming
from hpjax.results.analysis.to_target import median_of_studies, profile_scores, steps_to_target
from hpjax.results.analysis.variance import Variances, variances
from hpjax.results.analysis.winners_curse import winners_curse

__all__ = [
    "BestOf",
    "Boundary",
    "Comparison",
    "Estimate",
    "Isolated",
    "Profile",
    "Variances",
    "boundaries",
    "expected_best",
    "interquartile_mean",
    "isolate",
    "median_of_studies",
    "pairs_needed",
    "performance_profile",
    "probability_of_improvement",
    "probability_of_outperforming",
    "profile_scores",
    "steps_to_target",
    "variances",
    "winners_curse",
]
