"""D-SINK on arrays of one's own: images, or feature vectors of a frozen encoder."""

from dsink_jax.estimator.fitted import FittedDSink, Predicted, Role
from dsink_jax.estimator.fitting import fit
from dsink_jax.estimator.inputs import InputKind
from dsink_jax.estimator.priors import Prior
from dsink_jax.estimator.settings import Settings

__all__ = ["FittedDSink", "InputKind", "Predicted", "Prior", "Role", "Settings", "fit"]
