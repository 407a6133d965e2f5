"""D-SINK on arrays of one's own: images, or feature vectors of a frozen encoder."""

from dsink_jax.estimator.fitted import FittedDSink
from dsink_jax.estimator.fitting import fit
from dsink_jax.estimator.inputs import InputKind
from dsink_jax.estimator.parts import Role
from dsink_jax.estimator.settings import Settings

__all__ = ["FittedDSink", "InputKind", "Role", "Settings", "fit"]
