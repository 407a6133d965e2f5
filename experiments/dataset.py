"""The corrupted data set of a run, its network and its devices: what all its models share."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dsink_jax.data import corruption, sources
from dsink_jax.data.augment import Compose, RandomCrop, RandomFlip
from dsink_jax.data.checksums import checksum, spread_rows
from dsink_jax.data.human_labels import load_human_labels
from dsink_jax.data.noise import transition_matrix
from dsink_jax.data.streaming import Selected, Source, is_streamed, read_rows
from dsink_jax.errors import InputError
from dsink_jax.methods import Method
from dsink_jax.models import Model, make_model
from dsink_jax.training import Standardization, TrainingSettings
from dsink_jax.training.parallel import memory_for_data
from dsink_jax.training_set import TrainingSet
from experiments.config import Config
from experiments.run_directory import RunDirectory, known

# Long tail, noise and meta set have streams of the data seed of their own.
_VALIDATION_STREAM = 3
_TEST_PARTS_SEED = 0  # the halves of the test images are the same in every run
_BLOCK = 1024  # images at once


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Everything the models of a run share.

    Attributes:
      drawn: the corrupted set as it was drawn.
      corruption: what is left of it to train on.
      validation: positions in `drawn` that are held out, perhaps none.
      test_index: which test images of the data set `data` has, in its order.
    """

    config: Config
    data: sources.ImageData
    drawn: corruption.Corruption
    corruption: corruption.Corruption
    validation: np.ndarray
    test_index: np.ndarray
    devices: Sequence[jax.Device]

    @functools.cached_property
    def images(self) -> np.ndarray | Source:
        """Training images `[M, H, W, channels]` that are left; to be streamed if `streams`."""
        if self.streams:
            return Selected(self.data.train.images, self.corruption.index)
        return self.data.train.images[self.corruption.index]

    @functools.cached_property
    def validation_images(self) -> np.ndarray | Source:
        """Images that are held out."""
        index = self.drawn.index[self.validation]
        return Selected(self.data.train.images, index) if self.streams else self.data.train.images[index]

    @property
    def streams(self) -> bool:
        """Whether images are read when a batch needs them, instead of lying on every device."""
        if self.config.streaming != "auto":
            return self.config.streaming == "on"
        images = self.data.train.images
        size = images.dtype.itemsize * np.prod(images.shape[1:], dtype=float) * len(self.corruption.index)
        return bool(size > memory_for_data(self.devices))

    @functools.cached_property
    def checksums(self) -> dict[str, str]:
        """Checksums of the images and test labels, by which a run knows that it goes on with the same.

        Training images that are read from disk one by one have only that of `some training images`, evenly
        spaced, which the others have too.
        """
        images, test, index = self.data.train.images, self.data.test, self.drawn.index
        some = index[spread_rows(len(index))]
        found = {
            "test images": checksum([test.images, test.labels]),
            "some training images": checksum([read_rows(images, some)]),
        }
        if is_streamed(images):
            return found
        blocks = (images[index[start : start + _BLOCK]] for start in range(0, len(index), _BLOCK))
        return {**found, "training images": checksum(blocks)}

    @functools.cached_property
    def training_set(self) -> TrainingSet:
        """What models are trained on, and what methods may know of it."""
        drawn = self.corruption
        counts = {
            "observed": drawn.noisy_counts,
            "clean": drawn.clean_counts,
            "uniform": np.ones(drawn.num_classes),
        }[self.config.prior]
        return TrainingSet(
            self.images,
            drawn.noisy_labels,
            self.data.num_classes,
            counts,
            drawn.clean_labels,
            self._transition_matrix(),
            Standardization(np.float32(self.data.mean), np.float32(1) / np.float32(self.data.std)),
            self.config.data_seed,
        )

    @property
    def training_settings(self) -> TrainingSettings:
        """How long and in what steps to train a model of one stage."""
        config = self.config
        crop = (RandomCrop(config.crop_padding),) if config.crop_padding else ()
        flip = (RandomFlip(),) if config.flip else ()
        return dataclasses.replace(
            config.training_settings, preprocess=Compose((*crop, *flip)) if crop or flip else None
        )

    def _transition_matrix(self):
        """Rows P(observed | true) that synthetic noise was drawn with."""
        drawn = self.corruption
        if drawn.noise.startswith("human_"):
            return None
        if drawn.noise == "asymmetric":  # its class map is the file's, whatever the map seed
            identity = np.eye(drawn.num_classes)
            return (1 - drawn.nominal_rate) * identity + drawn.nominal_rate * identity[drawn.class_map]
        return transition_matrix(
            drawn.noise,
            0.0 if drawn.noise == "none" else drawn.nominal_rate,
            drawn.num_classes,
            map_seed=self.config.map_seed,
            class_counts=drawn.clean_counts,
        )

    def model_for(self, method: Method) -> Model:
        """The network, or networks, with the last layer that a method needs."""
        return make_model(
            self.config.model,
            self.data.num_classes,
            classifier=method.classifier,
            networks=method.networks,
            compute_dtype=self.config.compute_dtype,
            final_norm=self.config.final_norm,
        )


def load_dataset(config: Config, directory: RunDirectory, devices: Sequence[jax.Device]) -> Dataset:
    """Loads the data and reads or draws the corrupted set."""
    lazy = config.streaming == "on"
    data = sources.load(config.dataset, config.data_dir, download=config.download, lazy=lazy)
    tested = choose_test_images(config, data)
    if len(tested) < len(data.test.labels):
        test = sources.Split(data.test.images[tested], data.test.labels[tested])
        data = dataclasses.replace(data, test=test)
    side = min(data.train.images.shape[1:3])
    if config.crop_padding > side:
        raise InputError(f"--crop-padding {config.crop_padding} is more than the images' side, {side}.")
    drawn = directory.corruption() or read_or_draw(config, data)
    check_fits(drawn, data)
    kept, held = _held_out(drawn, config)
    dataset = Dataset(config, data, drawn, kept, held, tested, devices)
    directory.check_images(dataset.checksums)
    return dataset


def choose_test_images(config: Config, data: sources.ImageData) -> np.ndarray:
    """Which test images of a data set a run has, in its order.

    The halves `tuning` and `report` share no image and are the same whatever the seeds; where a class has an
    odd number of images, `report` has one more. A limit is taken of the part.
    """
    labels, num_classes = data.test.labels, data.num_classes
    index = np.arange(len(labels))
    if config.test_part != "all":
        index = _half(labels, num_classes, config.test_part)
    if config.limit_test is not None:
        index = index[_equal_share(labels[index], num_classes, config.limit_test, "--limit-test")]
    return index


def _half(labels, num_classes, part):
    rng, found = np.random.default_rng(_TEST_PARTS_SEED), []
    for number in range(num_classes):
        members = rng.permutation(np.flatnonzero(labels == number))
        if len(members) < 2:
            raise InputError(f"--test-part {part}: class {number} has {len(members)} test images, not two.")
        middle = len(members) // 2
        found.append(members[:middle] if part == "tuning" else members[middle:])
    return np.sort(np.concatenate(found))


def human_kind(config: Config) -> str | None:
    """Kind of the human labels that a run has, as `worse`; None where labels are made wrong by chance."""
    return config.noise.removeprefix("human_") if config.noise.startswith("human_") else None


def read_or_draw(config: Config, data: sources.ImageData) -> corruption.Corruption:
    """The corrupted set, from a file or drawn by the data seed."""
    if config.corruption_file is not None:
        return _read(config)
    labels = data.train.labels
    human, kind = None, human_kind(config)
    if kind is not None:
        human = load_human_labels(
            config.dataset,
            kind,
            config.data_dir,
            config.human_labels,
            clean_labels=labels,
        )
    subset = np.arange(len(labels))
    if config.limit_train is not None:
        subset = _equal_share(labels, data.num_classes, config.limit_train, "--limit-train")
    drawn = corruption.corrupt(
        labels[subset],
        data.num_classes,
        imbalance_ratio=config.imbalance_ratio,
        noise=config.noise,
        noise_rate=config.synthetic_rate,
        data_seed=config.data_seed,
        map_seed=config.map_seed,
        human_labels=human,
    )
    return dataclasses.replace(drawn, index=subset[drawn.index].astype(np.int32))


def _read(config):
    """The corrupted set of a file, if it is the one that the flags describe."""
    stored = corruption.load_corruption(config.corruption_file)
    rate = float("nan") if config.noise.startswith("human_") else config.synthetic_rate
    flags = {
        "--imbalance-ratio": (stored.imbalance_ratio, config.imbalance_ratio),
        "--noise": (stored.noise, config.noise),
        "--noise-rate": (known(stored.nominal_rate), known(rate)),
        "--data-seed": (stored.data_seed, config.data_seed),
    }
    other = [f"{flag} {there} (not {here})" for flag, (there, here) in flags.items() if there != here]
    if other:
        raise InputError(f"{config.corruption_file} was drawn with other settings. Give {', '.join(other)}.")
    return stored


def check_fits(drawn: corruption.Corruption, data: sources.ImageData) -> None:
    """Raises `InputError` unless the corrupted set is one of this data set."""
    labels = data.train.labels
    if (
        drawn.num_classes != data.num_classes
        or drawn.index.max() >= len(labels)
        or not np.array_equal(labels[drawn.index], drawn.clean_labels)
    ):
        raise InputError(
            f"The corrupted set was not drawn from {data.name}: its clean labels differ from the data's.\n"
            "Give the corruption.npz of a run on the same data set."
        )


def data_facts(dataset: Dataset) -> dict[str, Any]:
    """The `data` entry of results.json."""
    drawn = dataset.drawn
    return {
        "name": dataset.data.name,
        "source": dataset.data.source,
        "num_classes": drawn.num_classes,
        "class_names": list(dataset.data.class_names),
        "train_images": len(dataset.corruption.index),
        **({"validation_images": len(dataset.validation)} if len(dataset.validation) else {}),
        "test_images": len(dataset.data.test.labels),
        "mean": list(dataset.data.mean),
        "std": list(dataset.data.std),
        "imbalance_ratio": drawn.imbalance_ratio,
        "noise": drawn.noise,
        "nominal_rate": known(drawn.nominal_rate),
        "realised_rate": drawn.realised_rate,
        "counts_before": drawn.counts_before.tolist(),
        "clean_counts": drawn.clean_counts.tolist(),
        "noisy_counts": drawn.noisy_counts.tolist(),
        "class_map": drawn.class_map.tolist() if (drawn.class_map >= 0).any() else None,
        "data_seed": drawn.data_seed,
        "sha256": drawn.sha256,
    }


def _held_out(drawn, config):
    """The set to train on, and the positions of the rest."""
    count = round(config.validation_share * len(drawn.index))
    if not count:
        return drawn, np.zeros(0, int)
    order = np.random.default_rng((config.data_seed, _VALIDATION_STREAM)).permutation(len(drawn.index))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    rows = {name: getattr(drawn, name)[kept] for name in ("index", "clean_labels", "noisy_labels")}
    return dataclasses.replace(drawn, **rows), held


def _equal_share(labels, num_classes, limit, flag):
    """Positions of the first `limit // num_classes` examples of each class."""
    share = limit // num_classes
    if share < 1:
        raise InputError(f"{flag} {limit} leaves no image for each of {num_classes} classes.")
    members = [np.flatnonzero(labels == c)[:share] for c in range(num_classes)]
    return np.sort(np.concatenate(members))
