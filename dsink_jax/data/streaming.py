"""Images that are read when a batch needs them, for training sets that do not fit on a device."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from dsink_jax.extras import needs

# Batches that are read ahead of the one in use, each by a thread of its own.
_AHEAD = 4


class Source(Protocol):
    """Images by position: anything like a TFDS data source of images, or a memory-mapped array.

    Attributes:
      shape: (M, H, W, channels).
      dtype: uint8 or float32.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        """Number of images, M."""

    def __getitem__(self, position: int) -> np.ndarray:
        """The image `[H, W, channels]` at a position; called from several threads."""


class Selected:
    """Some images of a source or an array in an order of their own: an `Source`."""

    def __init__(self, images: "np.ndarray | Source", index: np.ndarray):
        """Takes the images at the positions `index`, an integer array `[M]`."""
        self._images, self._index = images, index
        self.shape, self.dtype = (len(index), *images.shape[1:]), images.dtype

    def __len__(self):
        return len(self._index)

    def __getitem__(self, position):
        return self._images[int(self._index[position])]


def is_streamed(images: Any) -> bool:
    """Whether the images are a source to read from, not an array to be placed on the devices.

    A memory-mapped file is a source: who maps a file does not want it in memory. A copy of one, of the same
    type, has no file.
    """
    if isinstance(images, np.memmap):
        return images.filename is not None
    return not isinstance(images, np.ndarray | jax.Array)


def read_rows(images: Any, positions: Any) -> np.ndarray:
    """The images at some positions of an array or a source: `[*positions.shape, H, W, channels]`."""
    if not is_streamed(images):
        return images[positions]
    batch = np.empty((positions.size, *images.shape[1:]), images.dtype)
    for row, position in enumerate(positions.reshape(-1)):
        batch[row] = images[int(position)]
    return batch.reshape(*positions.shape, *images.shape[1:])


def read_batches(images: Source, positions: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Reads one batch after another, the next ones in threads while the present one is in use.

    Which batches is said beforehand, so a training that goes on in the middle of an epoch reads from there.

    Args:
      images: the source.
      positions: of each batch an integer array, of any shape.

    Yields:
      `[*shape, H, W, channels]` for each.

    Raises:
      InputError: if Grain is not installed.
    """
    with needs("large", "Streaming"):
        import grain

    batches = grain.MapDataset.source(positions).map(lambda index: read_rows(images, index))
    options = grain.ReadOptions(num_threads=_AHEAD, prefetch_buffer_size=_AHEAD)
    return iter(batches.to_iter_dataset(options))
