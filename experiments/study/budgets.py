"""How much to spend: what a study runs on."""

import dataclasses
from typing import Any, NamedTuple

from experiments.config import CIFAR, DIGITS, Config


class Setting(NamedTuple):
    """One corrupted data set.

    Attributes:
      name: in results, and of its runs.
      changes: what it changes in the budget's settings.
    """

    name: str
    changes: dict[str, Any]

    def with_batches_of(self, size: int) -> "Setting":
        """The same with another batch size."""
        return Setting(f"{self.name}-batch-{size}", {**self.changes, "batch_size": size})


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a study runs on.

    Attributes:
      preset: the settings of every run but for the corrupted set.
      seeds: seeds if none are given.
      seconds_per_image: time of one training step for each image, cross-entropy, for a first estimate; what
        has been run already gives a better one.
      measured_on: what that was measured on; None for a guess.
      meta_per_class: images of each class in a meta set, no more than the rarest class has.
    """

    preset: Config
    seeds: tuple[int, ...]
    seconds_per_image: float
    measured_on: str | None = None
    meta_per_class: int = 5

    @property
    def required_options(self) -> dict[str, Any]:
        """Options that methods must be given: nothing that a person with such data would not know."""
        return {
            "ot_reweighting_meta_per_class": self.meta_per_class,
            "ot_reweighting_meta_labels": "observed",
            "coteaching_noise_rate": "estimated",
        }


# Every evaluation looks at the training set too, about 25 times a training.
_DIGITS = dataclasses.replace(DIGITS, baselines="none", evaluate_every=10, evaluate_training=True)
# What makes cross-entropy learn wrong labels by heart within the epochs that two CPU cores can afford: small
# batches, and images that are the same in every epoch. What f_L and f_N predict for them is then looked up.
_CPU = dataclasses.replace(
    CIFAR,
    model="medium_cnn",
    epochs=15,
    learning_rate=0.05,
    schedule="cosine",
    crop_padding=0,
    flip=False,
    auxiliary_predictions="cached",
    baselines="none",
    evaluate_every=3,
    checkpoint_every=5,
    evaluate_training=True,
)
_PAPER = dataclasses.replace(CIFAR, baselines="none", evaluate_every=5, evaluate_training=True)

BUDGETS = {
    "small": Budget(_DIGITS, (0, 1, 2, 3, 4), 1.5e-4, "one CPU core", meta_per_class=3),
    "cpu": Budget(_CPU, (0, 1, 2), 8e-4, "one CPU core"),
    "paper": Budget(_PAPER, (0, 1, 2), 1e-4),
}


def setting(
    dataset: str, ratio: float, noise: str = "symmetric", rate: float | None = 0.4, **more: Any
) -> Setting:
    """A corrupted set by its protocol; human noise has no rate."""
    human = noise.startswith("human_")
    rate = None if human or noise == "none" else rate
    parts = [dataset, f"ratio-{ratio:g}", noise.replace("_", "-"), *([] if rate is None else [f"{rate:g}"])]
    return Setting(
        "-".join(parts),
        {"dataset": dataset, "imbalance_ratio": float(ratio), "noise": noise, "noise_rate": rate, **more},
    )
