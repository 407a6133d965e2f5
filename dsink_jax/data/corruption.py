"""A corrupted training set: a long-tailed subset of a clean one, with wrong labels, as a file."""

import dataclasses
import hashlib
import numbers
import pathlib

import numpy as np

from dsink_jax.atomic import replacing
from dsink_jax.data import noise as label_noise
from dsink_jax.data.npz_files import first_line
from dsink_jax.errors import InputError

_ARRAYS = ("index", "clean_labels", "noisy_labels", "counts_before", "class_map")
_FACTS = ("noise", "nominal_rate", "imbalance_ratio", "data_seed")


@dataclasses.dataclass(frozen=True, eq=False)
class Corruption:
    """Which examples are left, and how they are labelled.

    Attributes:
      index: int32 `[M]`, ascending positions in the clean training set.
      clean_labels: int32 `[M]`, true labels.
      noisy_labels: int32 `[M]`, observed labels.
      counts_before: int64 `[C]`, examples of each class before the long tail.
      class_map: int32 `[C]`, the class that each class is mostly mistaken for where the noise has one,
        else -1.
      noise: kind of noise.
      nominal_rate: the rate asked for, NaN for human labels.
      imbalance_ratio: largest over smallest class, 1 for no long tail.
      data_seed: seed of the draw.
    """

    index: np.ndarray
    clean_labels: np.ndarray
    noisy_labels: np.ndarray
    counts_before: np.ndarray
    class_map: np.ndarray
    noise: str
    nominal_rate: float
    imbalance_ratio: float
    data_seed: int

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.counts_before)

    @property
    def clean_counts(self) -> np.ndarray:
        """int64 `[C]`, examples left of each class by true label."""
        return np.bincount(self.clean_labels, minlength=self.num_classes)

    @property
    def noisy_counts(self) -> np.ndarray:
        """int64 `[C]`, the same by observed label."""
        return np.bincount(self.noisy_labels, minlength=self.num_classes)

    @property
    def realised_rate(self) -> float:
        """Share of wrong labels, in [0, 1]."""
        return float(np.mean(self.clean_labels != self.noisy_labels))

    @property
    def sha256(self) -> str:
        """Digest of all arrays and settings; equal for equal corrupted sets."""
        digest = hashlib.sha256()
        for name in _ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name), "<i8").tobytes())
        digest.update(repr([str(getattr(self, name)) for name in _FACTS]).encode())
        return digest.hexdigest()


def long_tail_counts(max_count: int, num_classes: int, imbalance_ratio: float) -> np.ndarray:
    """Exponential long tail: int(max_count * (1 / ratio)^(c / (C - 1))) examples of class c.

    Args:
      max_count: examples of class 0.
      num_classes: C, at least 2.
      imbalance_ratio: class 0 over class C - 1, at least 1.

    Returns:
      int64 `[C]`, not increasing.

    Raises:
      InputError: for a ratio below 1, fewer than 2 classes, or a class left empty.

    Source: Cui et al. (arXiv 1901.05555) and Cao et al. (arXiv 1906.07413); their `imb_factor` is
    1 / imbalance_ratio.

    >>> long_tail_counts(5000, 10, 10).tolist()
    [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]
    """
    if not (isinstance(imbalance_ratio, numbers.Real) and 1.0 <= imbalance_ratio < float("inf")):
        raise InputError(f"The imbalance ratio must be at least 1, got {imbalance_ratio}.")
    if not 1 <= max_count < 2**53:
        raise InputError(f"The largest class must have at least 1 example, got {max_count}.")
    if num_classes < 2:
        raise InputError(f"A long tail needs at least 2 classes, got {num_classes}.")
    share = (1.0 / imbalance_ratio) ** (np.arange(num_classes) / (num_classes - 1.0))
    # A product such as 49 * (1 / 49) may fall short of its whole number by rounding.
    counts = np.floor(max_count * share + 1e-9).astype(np.int64)
    if counts[-1] < 1:
        empty = int((counts < 1).sum())
        raise InputError(
            f"Imbalance ratio {imbalance_ratio:g} leaves {empty} of {num_classes} classes empty: "
            f"the largest class has {max_count} examples. Use a ratio of at most {max_count}, or 1 for the "
            "classes as they are."
        )
    return counts


def long_tail_index(labels: np.ndarray, counts: np.ndarray, seed: int | tuple[int, ...]) -> np.ndarray:
    """Ascending positions of `counts[c]` examples of each class c, drawn without replacement.

    Raises:
      InputError: if a class has fewer examples than asked for.
    """
    generator = np.random.default_rng(seed)
    chosen = []
    for c, count in enumerate(counts):
        members = np.flatnonzero(labels == c)
        if len(members) < count:
            raise InputError(
                f"The long tail asks for {count} examples of class {c}, which has {len(members)}. "
                "Order the classes by size or use a smaller imbalance ratio."
            )
        chosen.append(generator.permutation(members)[:count])
    return np.sort(np.concatenate(chosen)).astype(np.int32)


def corrupt(
    labels: np.ndarray,
    num_classes: int,
    *,
    imbalance_ratio: float,
    noise: str,
    noise_rate: float,
    data_seed: int,
    map_seed: int = 1,
    human_labels: np.ndarray | None = None,
) -> Corruption:
    """Draws a corrupted training set: the long tail first, then the noise.

    A ratio of 1 keeps every example; above 1 the largest class has as many examples as the smallest clean
    class. The long tail and the noise have their own streams of `data_seed`, so the subset is the same
    whatever the noise.

    Args:
      labels: integer `[L]`, true labels of the clean training set in original order.
      num_classes: C.
      imbalance_ratio: largest over smallest class, at least 1.
      noise: one of `noise.NOISE_KINDS`.
      noise_rate: nominal rate in [0, 1]; not used for human labels.
      data_seed: seed in [0, 2^32), apart from every training seed.
      map_seed: seed of the class map of asymmetric noise.
      human_labels: integer `[L]`, labels by people, for the human kinds.

    Raises:
      InputError: for a bad kind, rate or ratio, a class left empty, or missing human labels.
    """
    label_noise.check_noise(noise, noise_rate)
    for seed, what in ((data_seed, "data seed"), (map_seed, "map seed")):
        if not (isinstance(seed, int | np.integer) and 0 <= seed < 2**32):
            raise InputError(f"The {what} must be an integer in [0, 2^32), got {seed!r}.")
    if num_classes < 2:
        raise InputError(f"A training set needs at least 2 classes, got {num_classes}.")
    labels = check_class_numbers(labels, num_classes, "Labels")
    counts_before = np.bincount(labels, minlength=num_classes)
    if not (counts_before > 0).all():
        missing = np.flatnonzero(counts_before == 0).tolist()
        raise InputError(f"Classes {missing} have no training example. Number the classes without gaps.")
    index = np.arange(len(labels), dtype=np.int32)
    if imbalance_ratio != 1.0:
        counts = long_tail_counts(int(counts_before.min()), num_classes, imbalance_ratio)
        index = long_tail_index(labels, counts, (data_seed, 0))
    clean = labels[index].astype(np.int32)

    class_map = np.full(num_classes, -1, np.int32)
    if noise.startswith("human_"):
        if human_labels is None:
            raise InputError(f"Noise {noise!r} needs human labels, and none were given.")
        human_labels = check_class_numbers(human_labels, num_classes, "Human labels")
        if len(human_labels) != len(labels):
            raise InputError(f"There are {len(human_labels)} human labels for {len(labels)} images.")
        noisy, noise_rate = human_labels[index].astype(np.int32), float("nan")
    else:
        matrix = label_noise.transition_matrix(
            noise, noise_rate, num_classes, map_seed=map_seed, class_counts=np.bincount(clean)
        )
        exact = int(noise_rate * len(clean)) if noise == "joint" else None
        noisy = label_noise.draw_labels(clean, matrix, (data_seed, 1), exact_count=exact)
        if noise.startswith("asymmetric") and noise_rate > 0:
            full = label_noise.transition_matrix(noise, 1.0, num_classes, map_seed=map_seed)
            class_map = full.argmax(1).astype(np.int32)
            class_map[class_map == np.arange(num_classes)] = -1
    return Corruption(
        index=index,
        clean_labels=clean,
        noisy_labels=noisy,
        counts_before=counts_before,
        class_map=class_map,
        noise=noise,
        nominal_rate=float(noise_rate),
        imbalance_ratio=float(imbalance_ratio),
        data_seed=int(data_seed),
    )


def save_corruption(path: pathlib.Path, corruption: Corruption) -> None:
    """Writes the set and its digest to an `.npz` file, whole or not at all."""
    arrays = {name: getattr(corruption, name) for name in (*_ARRAYS, *_FACTS)}
    with replacing(path, "wb") as file:
        np.savez_compressed(file, sha256=corruption.sha256, **arrays)


def load_corruption(path: pathlib.Path) -> Corruption:
    """Reads a set written by `save_corruption`.

    Raises:
      InputError: if the file is missing, is not such a file, or does not match its digest.
    """
    remedy = "Give the corruption.npz of a run, or leave it out to draw the set anew."
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {name: file[name] for name in _ARRAYS}
            values |= {name: file[name].item() for name in _FACTS}
            digest = str(file["sha256"])
        corruption = Corruption(**values)
        is_whole = corruption.sha256 == digest
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.\n{remedy}") from None
    except Exception as error:  # NumPy and zipfile raise many kinds
        # NumPy takes what is no archive for a pickle, and would tell how to trust it.
        reason = "it is no .npz file" if "pickle" in str(error) else first_line(error)
        raise InputError(f"{path} is not a readable corrupted set: {reason}.\n{remedy}") from None
    if not is_whole:
        raise InputError(f"{path} is damaged: its content does not match its digest.\n{remedy}")
    if not _is_sound(corruption):
        raise InputError(f"{path} is no corrupted set: its arrays do not go together.\n{remedy}")
    return corruption


def _is_sound(corruption):
    """Whether the arrays have the shapes and ranges that `Corruption` says."""
    arrays = {name: getattr(corruption, name) for name in _ARRAYS}
    if any(array.ndim != 1 or array.dtype.kind != "i" for array in arrays.values()):
        return False
    index, classes = arrays["index"], corruption.num_classes
    labels = arrays["clean_labels"], arrays["noisy_labels"]
    return (
        classes == len(arrays["class_map"])
        and len(index) > 0
        and all(len(each) == len(index) and 0 <= each.min() <= each.max() < classes for each in labels)
        and index[0] >= 0
        and bool((np.diff(index) > 0).all())
    )


def describe(corruption: Corruption) -> str:
    """The set in a few lines: size, counts before and after, rates, class map."""
    nominal = "as given by people" if np.isnan(corruption.nominal_rate) else f"{corruption.nominal_rate:g}"
    lines = [
        f"{len(corruption.index):,} training images, imbalance ratio {corruption.imbalance_ratio:g}, "
        f"data seed {corruption.data_seed}",
        "noise none: the labels are taken as they are"
        if corruption.noise == "none"
        else f"noise {corruption.noise}: nominal rate {nominal}, "
        f"realised {100 * corruption.realised_rate:.1f} % wrong labels",
        f"images by true label      {_shorten(corruption.clean_counts)}"
        f"  (of {_shorten(corruption.counts_before)})",
        f"images by observed label  {_shorten(corruption.noisy_counts)}",
    ]
    if (corruption.class_map >= 0).any():
        lines.append(f"class map                 {_shorten(corruption.class_map)}")
    return "\n".join(lines)


def check_class_numbers(labels: np.ndarray, num_classes: int, what: str) -> np.ndarray:
    """The labels, int64 `[M]`, or `InputError` unless they are integers in [0, C)."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{what} must be integers [M], got {labels.dtype} {list(labels.shape)}.")
    if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        raise InputError(
            f"{what} must be in [0, {num_classes}), got {labels.min()} to {labels.max()}. "
            "Check num_classes, or number the classes from 0."
        )
    return labels.astype(np.int64)  # NumPy counts no uint64


def check_observed(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels int64 `[M]` in [0, C), or indicators of several labels int64 `[M, C]`; else `InputError`."""
    labels = np.asarray(labels)
    if labels.ndim != 2:
        return check_class_numbers(labels, num_classes, "Labels")
    if not (np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool):
        raise InputError(f"Indicators of labels must be integers or bool, got {labels.dtype}.")
    shape = list(labels.shape)
    if labels.shape[1] != num_classes or not np.isin(labels, (0, 1)).all():
        raise InputError(f"Indicators of labels must be 0 and 1 [M, {num_classes}], got {shape}.")
    return labels.astype(np.int64)


def _shorten(counts):
    if len(set(counts.tolist())) == 1:
        return f"{len(counts)} x {counts[0]}"
    text = [str(count) for count in counts]
    return " ".join(text if len(text) <= 20 else [*text[:5], "...", *text[-5:]])
