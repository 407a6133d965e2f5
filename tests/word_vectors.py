"""Stands in for sentence-transformers, whose models are downloaded: each word has a direction of its own."""

import zlib

import numpy as np


class SentenceTransformer:
    """Encodes texts in 384 features, equal words alike."""

    def __init__(self, name):
        self.name = name

    def encode(self, texts, normalize_embeddings=False):
        found = np.array([sum(map(_direction, text.split())) for text in texts], np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True) if normalize_embeddings else found


def _direction(word):
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(384)
