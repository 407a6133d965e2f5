"""Features of a set, made once and kept under a name that tells what they are of."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence

import numpy as np

from dsink_jax.atomic import replacing
from dsink_jax.data.npz_files import read_npz
from dsink_jax.errors import InputError, StorageError
from experiments.natural.data import SETS, NaturalSet, read_set
from experiments.natural.encoders import ENCODERS, Encoder

_SHOWN = 16  # digits of the digest in a file's name


def read_ready(name: str, data_dir: pathlib.Path, features_dir: pathlib.Path) -> NaturalSet:
    """A set as models take it: features where its kind has an encoder, images as they are otherwise.

    Args:
      name: one of `data.SETS`.
      data_dir: the folder of the data.
      features_dir: where features are kept.

    Raises:
      InputError: as `data.read_set`, or if there are no features yet and the encoder is not installed.
      StorageError: if features cannot be written.
    """
    natural = read_set(name, data_dir)
    if SETS[name].encoder is None:
        return natural
    encoder = ENCODERS[SETS[name].encoder]
    train, test = (
        kept_features(inputs, encoder, features_dir) for inputs in (natural.inputs, natural.test_inputs)
    )
    return dataclasses.replace(natural, inputs=train, test_inputs=test)


def kept_features(
    inputs: Sequence[str] | np.ndarray, encoder: Encoder, features_dir: pathlib.Path
) -> np.ndarray:
    """Features float32 `[M, D]` of texts or images, from the file of them if there is one.

    The file's name has a digest of the inputs, of the encoder's name and of its version: other inputs have
    another file. A damaged file is told of and made anew.

    Args:
      inputs: M texts, or uint8 images `[M, H, W, channels]`.
      encoder: what makes the features.
      features_dir: where they are kept.

    Raises:
      InputError: if the encoder is needed and not installed.
      StorageError: if the file cannot be written.
    """
    digest = digest_of(inputs, encoder)
    path = features_dir / f"{encoder.name}-{digest[:_SHOWN]}.npz"
    if path.exists():
        found = _read(path, digest, len(inputs))
        if found is not None:
            return found
        print(f"{path} is damaged or of something else: its features are made again.", flush=True)
    features = np.asarray(encoder(inputs), np.float32)
    try:
        features_dir.mkdir(parents=True, exist_ok=True)
        with replacing(path, "wb") as file:
            np.savez(file, features=features, digest=np.array(digest), encoder=np.array(encoder.name))
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"{path} cannot be written: {reason}. Give another --features-dir.") from error
    return features


def digest_of(inputs: Sequence[str] | np.ndarray, encoder: Encoder) -> str:
    """SHA-256 of inputs and encoder, in hexadecimal digits."""
    found = hashlib.sha256(f"{encoder.name}\n{encoder.version}\n".encode())
    if isinstance(inputs, np.ndarray):
        found.update(f"{inputs.dtype} {list(inputs.shape)}\n".encode())
        found.update(np.ascontiguousarray(inputs))
    else:
        for text in inputs:
            encoded = text.encode()
            found.update(f"{len(encoded)}\n".encode() + encoded)
    return found.hexdigest()


def _read(path, digest, count):
    """The features of a file, None if it is damaged or of something else."""
    try:
        arrays = read_npz(path)
        features = arrays["features"]
        whole = str(arrays["digest"]) == digest and features.shape[:1] == (count,) and features.ndim == 2
    except (InputError, KeyError):
        return None
    return features if whole and np.isfinite(features).all() else None
