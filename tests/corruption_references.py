"""What the tests of the corrupted set share."""

from dsink_jax.data.corruption import (
    corrupt,
)

CIFAR10_RATIO_10 = [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]
CIFAR10_RATIO_100 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
MAP_10_SEED_1 = [6, 9, 6, 0, 0, 1, 8, 6, 2, 4]

SIGMAS = 5.0  # of a binomial: about one draw in two million falls outside


def drawn(labels, num_classes, **changes):
    options = {"imbalance_ratio": 10.0, "noise": "symmetric", "noise_rate": 0.4, "data_seed": 0} | changes
    return corrupt(labels, num_classes, **options)
