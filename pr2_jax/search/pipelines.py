"""Search pipelines: which channels are merged, which ranker orders, and on whose candidates its scores were fused."""

from __future__ import annotations

import dataclasses

from pr2_jax.config.schema import CHANNELS, Config

PERSONAL = frozenset({"qrcf", "pdr"})
"""Channels that read the person's past."""
COMPARED = ("base", "pr2")
"""The control, without the person, and the treatment."""


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Channels, ranker and score maps under one name."""

    name: str
    channels: tuple[str, ...]  # in the order of `CHANNELS`
    ranker: str  # "base" or "qin"
    scores_from: str  # of COMPARED: the pipeline on whose candidates the ranker's scores were fused

    @property
    def merged(self) -> str:
        """Evaluation's name of the merged list before ranking."""
        return "+".join(self.channels) if self.ranker == "base" else self.name

    @property
    def impersonal(self) -> bool:
        return self.ranker == "base" and not PERSONAL & set(self.channels)


BASE = Pipeline("base", ("bm25", "dr"), "base", "base")
STEPS = (
    BASE,
    Pipeline("+qrcf", (*BASE.channels, "qrcf"), "base", "base"),
    Pipeline("+pdr", (*BASE.channels, "pdr"), "base", "base"),
    Pipeline("+qrcf+pdr", (*BASE.channels, "qrcf", "pdr"), "base", "base"),
    Pipeline("+qin", BASE.channels, "qin", "pr2"),
)
"""From `base` to `pr2` step by step, for experiments."""
NAMES = (*(step.name for step in STEPS), "pr2")


def pipelines(config: Config) -> dict[str, Pipeline]:
    """By name, all of `NAMES`; `pr2` merges the configured channels."""
    chosen = tuple(name for name in CHANNELS if name in config.retrieval.channels)
    return {one.name: one for one in (*STEPS, Pipeline("pr2", chosen, "qin", "pr2"))}
