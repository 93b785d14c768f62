"""A trained QIN ranker as a function of requests and candidates."""

from __future__ import annotations

import numpy as np

from pr2_jax.config import QinConfig
from pr2_jax.data.batches.training_batches import SlateReader
from pr2_jax.encoders.batching import in_blocks, padded_size
from pr2_jax.ranking.features import Scaler, columns, groups
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.types import ModelFunction

REQUEST_BLOCK = 64
RESULT_BLOCK = 512
"""Most requests and results scored in one call; both are padded to a power of two."""


class Ranker:
    """Scores search results. Training reads the shown position; serving has none."""

    def __init__(
        self, function: ModelFunction, config: QinConfig, requests: SlateReader, scaler: Scaler, *, again: bool = False
    ) -> None:
        """`config` and `again` select the feature columns that the function reads."""
        self._function, self._requests, self._scaler = function, requests, scaler
        self._heads = len(config.prediction_heads)
        self._columns, self.needs = columns(config, again=again), groups(config, again=again)

    def logits(
        self, encoded: EncodedRequests, video_NxS: np.ndarray, features_NxSxF: np.ndarray, is_feed: bool = False
    ) -> np.ndarray:
        """`[N, S, T]` logits; `video_NxS` is padded with 0, whose logits mean nothing; features are raw."""
        r, results = encoded.requests, video_NxS.shape[1]
        width = padded_size(results, RESULT_BLOCK)
        parts = []
        for start in range(0, len(r), REQUEST_BLOCK):
            rows = slice(start, start + REQUEST_BLOCK)
            request = self._requests.live(r.user_B[rows], r.time_ms_B[rows], r.words_BxQ[rows], encoded.query_BxD[rows])
            request["is_feed_B"] = np.full(len(r.user_B[rows]), is_feed, np.float32)
            blocks = [
                self._block(request, video_NxS[rows, at : at + width], features_NxSxF[rows, at : at + width], width)
                for at in range(0, results, width)
            ]
            parts.append(np.concatenate(blocks, axis=1)[:, :results])
        return np.concatenate(parts) if parts else np.zeros((0, results, self._heads), np.float32)

    def _block(self, request: dict, video_BxS: np.ndarray, features_BxSxF: np.ndarray, width: int) -> np.ndarray:
        pad = [(0, 0), (0, width - video_BxS.shape[1])]
        scaled = self._scaler(features_BxSxF)[..., self._columns]
        batch = request | {
            "video_BxS": np.pad(video_BxS, pad).astype(np.int32),
            "features_BxSxF": np.pad(scaled, [*pad, (0, 0)]),
            "position_BxS": np.full((len(video_BxS), width), -1, np.int32),
        }
        return in_blocks(self._function, batch, REQUEST_BLOCK)
