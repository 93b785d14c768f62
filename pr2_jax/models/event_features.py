"""How a past view becomes a vector: what was watched, how it went, where, and how long ago."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from pr2_jax.models.layers import time_gap_bucket

GAP_BUCKETS = 24  # log2 seconds: the last bucket begins at 2^23 s, some 97 days
SIGNALS = 8
"""Columns of `signals_BxHxG`: click, like, follow, forward, long play, log seconds played, share played, is search."""


def event_features(signals_BxHxG: Array, gap_seconds_BxH: Array) -> Array:
    """Engagement, channel, dwell and time gap of events, `[B, H, G + GAP_BUCKETS]`: what is not looked up in a table.

    The gap's bucket is one-hot beside the signals: with so few buckets a matrix product is cheaper than a lookup, whose
    gradient scatters every event into a handful of rows one after the other.
    """
    gap_BxHxK = jax.nn.one_hot(time_gap_bucket(gap_seconds_BxH, GAP_BUCKETS), GAP_BUCKETS, dtype=signals_BxHxG.dtype)
    return jnp.concatenate([signals_BxHxG, gap_BxHxK], axis=-1)


class EventFeatures(nn.Module):
    """`event_features` as vectors, `[B, H, D]`."""

    width: int

    @nn.compact
    def __call__(self, signals_BxHxG: Array, gap_seconds_BxH: Array) -> Array:
        return nn.Dense(self.width)(event_features(signals_BxHxG, gap_seconds_BxH))


class EngagementGate(nn.Module):
    """`g_b = sigmoid(MLP(engagement_b))`, one number an event [QIN]."""

    width: int = 16

    @nn.compact
    def __call__(self, signals_BxHxG: Array) -> Array:
        hidden = nn.swish(nn.Dense(self.width)(signals_BxHxG))
        return nn.sigmoid(nn.Dense(1)(hidden))[..., 0]


class Profile(nn.Module):
    """Embeds P profile fields, each with a small vocabulary of its own, into `[B, D]`."""

    sizes: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, profile_BxP: Array) -> Array:
        parts = [
            nn.Embed(size, self.width, name=f"field_{field}")(profile_BxP[:, field])
            for field, size in enumerate(self.sizes)
        ]
        return jnp.concatenate(parts, axis=-1)
