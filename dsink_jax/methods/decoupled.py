"""Decoupled training: a new classifier, or normalised weights, on a backbone trained by cross-entropy."""

import dataclasses

import jax.numpy as jnp

from dsink_jax.losses._checks import check_at_least, check_range
from dsink_jax.methods import hooks
from dsink_jax.methods.cross_entropy import CrossEntropy


@dataclasses.dataclass(frozen=True)
class ClassifierRetraining(hooks.TwoStages, CrossEntropy):
    """cRT: the backbone of cross-entropy, then a new classifier on classes drawn equally often.

    Kang et al., Decoupling Representation and Classifier, ICLR 2020, arXiv 1910.09217. The backbone is frozen
    with its batch statistics.

    Attributes:
      share: epochs of the second stage as a share of the first's, in (0, 1].
      learning_rate_factor: highest learning rate of the second stage over that of the first, positive.
    """

    share: float = 0.1
    learning_rate_factor: float = 1.0

    needs = ("classifier",)

    def __post_init__(self):
        self.check(check_range, "share", 0.0, 1.0, low_open=True)
        self.check(check_range, "learning_rate_factor", 0.0, 1e6, low_open=True)

    @property
    def first_stage(self):
        """Cross-entropy."""
        return CrossEntropy()

    def second_stage(self, epochs):
        """A short training of the classifier alone."""
        return hooks.SecondStage(
            max(round(self.share * epochs), 1),
            self.learning_rate_factor,
            only_classifier=True,
            class_balanced=True,
        )

    def start(self, trained, fresh):
        """The trained backbone under a fresh classifier."""
        return {**trained, "params": {**trained["params"], "classifier": fresh["params"]["classifier"]}}


@dataclasses.dataclass(frozen=True)
class TauNormalization(hooks.ChangesVariables, CrossEntropy):
    """Cross-entropy, and at test the classifier's weights w_c / |w_c|^tau without bias.

    Kang et al., ICLR 2020, arXiv 1910.09217. The paper scans tau on a selection set; here it is one number.

    Attributes:
      tau: 0 leaves the weights alone, 1 makes them equally long; at least 0.
    """

    tau: float = 1.0

    needs = ("classifier",)

    def __post_init__(self):
        self.check(check_at_least, "tau", 0)

    def inference_variables(self, variables):
        """Variables with the normalised classifier."""
        layer = variables["params"]["classifier"]
        norms = jnp.sqrt((layer["kernel"] ** 2).sum(0))
        normalised = {name: jnp.zeros_like(value) for name, value in layer.items()}
        normalised["kernel"] = layer["kernel"] / jnp.maximum(norms, 1e-12)[None] ** self.tau
        return {**variables, "params": {**variables["params"], "classifier": normalised}}
