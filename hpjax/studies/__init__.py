"""Whole studies in one call: how training scales with the batch size.

``batch_scaling`` runs one, ``batch_scaling_sweep`` plans one, ``scaling`` reads one; ``fit_steps`` and ``fit_rates``
fit curves to numbers of your own; ``noise_scale`` and ``noise_scale_of`` are the gradient noise scale;
``NoisyQuadratic`` is a model in which all of it is known.
"""

from hpjax.studies.batch_scaling import batch_scaling as batch_scaling
from hpjax.studies.batch_scaling import batch_scaling_sweep as batch_scaling_sweep
from hpjax.studies.batch_scaling_result import BatchScaling as BatchScaling
from hpjax.studies.batch_scaling_result import Ended as Ended
from hpjax.studies.batch_scaling_result import ScalingPoint as ScalingPoint
from hpjax.studies.batch_scaling_result import scaling as scaling
from hpjax.studies.fits import RateFit as RateFit
from hpjax.studies.fits import StepsFit as StepsFit
from hpjax.studies.fits import fit_rates as fit_rates
from hpjax.studies.fits import fit_steps as fit_steps
from hpjax.studies.noise_scale import NoiseScale as NoiseScale
from hpjax.studies.noise_scale import noise_scale as noise_scale
from hpjax.studies.noise_scale import noise_scale_of as noise_scale_of
from hpjax.studies.quadratic import NoisyQuadratic as NoisyQuadratic
