"""Trained towers of a small catalogue, as the encoders' tests have them; captions as a store holds them."""

from types import SimpleNamespace

import numpy as np

from tests.encoders.conftest import catalogue, content, fresh, sizes

__all__ = ["catalogue", "content", "fresh", "sizes", "store_of"]


def store_of(captions: list[list[int]], words: int) -> SimpleNamespace:
    """What BM25 reads of a LogStore; `captions[0]` belongs to row 0."""
    return SimpleNamespace(
        videos=SimpleNamespace(
            first_word=np.r_[0, np.cumsum([len(c) for c in captions])].astype(np.int64),
            words=np.array([w for c in captions for w in c], np.int32),
        ),
        counts=SimpleNamespace(words=words),
    )
