"""Generalised cross-entropy, plain and truncated, and symmetric cross-entropy."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from dsink_jax import losses
from dsink_jax.losses._checks import check_at_least, check_range
from dsink_jax.losses._cross_entropy import integer_cross_entropy
from dsink_jax.methods.base import Method, MethodLoss
from dsink_jax.methods.hooks import LooksAtTrainingSet, rounded_share
from dsink_jax.methods.logit_adjustment import LogitAdjusted


@dataclasses.dataclass(frozen=True)
class GeneralizedCrossEntropy(LogitAdjusted):
    """Generalised cross-entropy (Zhang and Sabuncu, NeurIPS 2018, arXiv 1805.07836).

    With `tau` 1 the logits are shifted by the class prior in the loss, as logit adjustment does, and the
    prediction counts all classes alike: robust to noise and to imbalance at once.

    Attributes:
      q: robustness in (0, 1].
      tau: strength of the logit adjustment, at least 0.
      temperature: what logits are divided by to predict, positive; no part of the training.
    """

    q: float = 0.7
    tau: float = 0.0
    temperature: float = 1.0

    def __post_init__(self):
        self.check(check_range, "q", 0.0, 1.0, low_open=True)
        self.check_adjustment()

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        logits = self.shifted(logits, context.facts)
        return MethodLoss(losses.generalized_cross_entropy(logits, batch.labels, self.q))


@dataclasses.dataclass(frozen=True)
class TruncatedGeneralizedCrossEntropy(LooksAtTrainingSet, Method):
    """Generalised cross-entropy without the examples whose label the model does not believe.

    Late in training, examples with p_y below a bound are left out; who is out is looked up anew every few
    epochs, by a pass over the training set. Zhang and Sabuncu, NeurIPS 2018, section 3.3.

    Attributes:
      q: robustness in (0, 1].
      bound: least p_y of an example that is kept, in [0, 1].
      start_share: share of the training before the first pass, in [0, 1); published is 40 of 120 epochs.
      every: epochs between passes, at least 1.
    """

    q: float = 0.7
    bound: float = 0.5
    start_share: float = 1 / 3
    every: int = 10

    forward_passes = 1.1

    def __post_init__(self):
        self.check(check_range, "q", 0.0, 1.0, low_open=True)
        self.check(check_range, "bound", 0.0, 1.0)
        self.check(check_range, "start_share", 0.0, 1.0, high_open=True)
        self.check(check_at_least, "every", 1)

    def init(self, num_examples, num_classes):
        """All examples are kept: float32 `[num_examples]`."""
        return jnp.ones((num_examples,), jnp.float32)

    def refresh_before(self, epoch, facts):
        """Every few epochs from the start on."""
        first = int(rounded_share(self.start_share, facts.epochs, least=0))
        return epoch >= max(first, 1) and (epoch - first) % self.every == 0

    def refresh(self, logits, labels, example_state, shared_state):
        """Keeps the examples whose label has probability enough."""
        likelihood = np.exp(-np.asarray(integer_cross_entropy(logits, labels)))
        return (likelihood >= self.bound).astype(np.float32), shared_state

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        values = example_state * losses.generalized_cross_entropy(logits, batch.labels, self.q)
        return MethodLoss(values, example_state, {"kept": example_state})


@dataclasses.dataclass(frozen=True)
class SymmetricCrossEntropy(Method):
    """Symmetric cross-entropy (Wang et al., ICCV 2019, arXiv 1908.06112).

    Attributes:
      alpha: weight of cross-entropy, at least 0.
      beta: weight of reverse cross-entropy, at least 0.
    """

    alpha: float = 0.1
    beta: float = 1.0

    def __post_init__(self):
        self.check(check_at_least, "alpha", 0)
        self.check(check_at_least, "beta", 0)

    def loss(self, logits, batch, example_state, context):
        """See `Method.loss`."""
        return MethodLoss(losses.symmetric_cross_entropy(logits, batch.labels, self.alpha, self.beta))
