"""The trained content encoder on NumPy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pr2_jax.encoders.batching import REQUEST_BLOCK, in_blocks
from pr2_jax.types import Functions


class ContentEncoder:
    """Unit vectors of videos and queries in the content space."""

    def __init__(self, functions: Functions, directory: Path) -> None:
        self._query = functions["content_query"]
        self.videos_VxD = np.load(directory / "video_vectors.npy", mmap_mode="r")

    def queries(self, words_BxQ: np.ndarray) -> np.ndarray:
        """Unit vectors `[B, D]`; the zero vector where no word is known."""
        return in_blocks(self._query, {"words_BxQ": words_BxQ}, REQUEST_BLOCK)
