"""Features of images from patches, learned without labels: an encoder for machines without accelerator.

Coates, Ng and Lee, An Analysis of Single-Layer Networks in Unsupervised Feature Learning, AISTATS 2011:
patches are brought to one contrast and whitened, k-means finds centroids, a patch is described by how much
nearer than average each centroid is, and these are summed over the quarters of the image.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.cluster import MiniBatchKMeans

_CONTRAST, _WHITENING = 10.0, 0.1  # regularisation of both, the paper's, for pixels on the scale 0..255
_BATCH = 128


class PatchEncoder(NamedTuple):
    """What was learned.

    Attributes:
      size: side of a patch.
      mean: float32 `[P]` of the patches, P numbers in each.
      whitening: float32 `[P, P]`.
      centroids: float32 `[K, P]`.
    """

    size: int
    mean: np.ndarray
    whitening: np.ndarray
    centroids: np.ndarray

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features float32 `[M, 4 K]` of images uint8 `[M, H, W, channels]`."""
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            padded = np.pad(batch, ((0, _BATCH - len(batch)), *[(0, 0)] * 3))
            parts.append(np.asarray(_encode(padded, self.size, *self[1:]))[: len(batch)])
        return np.concatenate(parts)


def learn_patch_encoder(
    images: np.ndarray, centroids: int = 300, size: int = 6, patches: int = 100_000, seed: int = 0
) -> PatchEncoder:
    """Learns from images uint8 `[M, H, W, channels]`, without their labels.

    Args:
      images: to learn from.
      centroids: K.
      size: side of the patches.
      patches: how many to draw.
      seed: of the draw and of k-means.
    """
    rng = np.random.default_rng(seed)
    rows, columns = (rng.integers(0, n - size + 1, patches) for n in images.shape[1:3])
    which = rng.integers(0, len(images), patches)
    drawn = np.stack(
        [images[i, r : r + size, c : c + size].ravel() for i, r, c in zip(which, rows, columns, strict=True)]
    )
    drawn = np.asarray(_one_contrast(jnp.asarray(drawn, jnp.float32)))
    mean = drawn.mean(0)
    values, vectors = np.linalg.eigh(np.cov(drawn, rowvar=False).astype(np.float64))
    whitening = ((vectors / np.sqrt(values + _WHITENING)) @ vectors.T).astype(np.float32)
    means = MiniBatchKMeans(centroids, batch_size=4096, n_init=1, max_iter=20, random_state=seed)
    means.fit((drawn - mean) @ whitening)
    return PatchEncoder(size, mean, whitening, means.cluster_centers_.astype(np.float32))


def _one_contrast(patches):
    patches = patches - patches.mean(-1, keepdims=True)
    return patches / jnp.sqrt(patches.var(-1, keepdims=True) + _CONTRAST)


@partial(jax.jit, static_argnums=1)
def _encode(images, size, mean, whitening, centroids):
    count, height, width, channels = images.shape
    rows, columns = height - size + 1, width - size + 1
    down, across = (jnp.arange(places)[:, None] + jnp.arange(size) for places in (rows, columns))
    taken = images.astype(jnp.float32)[:, down][:, :, :, across]
    patches = taken.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows, columns, size * size * channels)
    patches = (_one_contrast(patches) - mean) @ whitening
    squared = (patches**2).sum(-1, keepdims=True) - 2 * patches @ centroids.T + (centroids**2).sum(-1)
    distance = jnp.sqrt(jnp.maximum(squared, 0))
    near = jnp.maximum(distance.mean(-1, keepdims=True) - distance, 0)
    half = rows // 2, columns // 2
    quarters = [
        near[:, r, c].sum((1, 2))
        for r in (slice(half[0]), slice(half[0], None))
        for c in (slice(half[1]), slice(half[1], None))
    ]
    return jnp.concatenate(quarters, axis=-1)
