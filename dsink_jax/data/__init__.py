"""Data: sources, corruption, the order of an epoch, augmentation."""

from dsink_jax.data.augment import (
    Compose,
    Cutout,
    Preprocess,
    RandAugment,
    RandomCrop,
    RandomFlip,
    apply_to_each,
    example_keys,
    normalize,
)
from dsink_jax.data.batches import (
    EpochOrder,
    class_balanced_order,
    steps_per_epoch,
    training_order,
)
from dsink_jax.data.corruption import (
    Corruption,
    corrupt,
    load_corruption,
    long_tail_counts,
    long_tail_index,
    save_corruption,
)
from dsink_jax.data.human_labels import load_human_labels
from dsink_jax.data.meta_set import draw_meta_set
from dsink_jax.data.noise import NOISE_KINDS, draw_labels, random_class_map, transition_matrix
from dsink_jax.data.sources import ImageData, Split, from_arrays, is_there, load
from dsink_jax.data.streaming import Selected, Source

__all__ = [
    "NOISE_KINDS",
    "Compose",
    "Corruption",
    "Cutout",
    "EpochOrder",
    "ImageData",
    "Preprocess",
    "RandAugment",
    "RandomCrop",
    "RandomFlip",
    "Selected",
    "Source",
    "Split",
    "apply_to_each",
    "class_balanced_order",
    "corrupt",
    "draw_labels",
    "draw_meta_set",
    "example_keys",
    "from_arrays",
    "is_there",
    "load",
    "load_corruption",
    "load_human_labels",
    "long_tail_counts",
    "long_tail_index",
    "normalize",
    "random_class_map",
    "save_corruption",
    "steps_per_epoch",
    "training_order",
    "transition_matrix",
]
