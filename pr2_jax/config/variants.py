"""Variants that every config offers."""

from __future__ import annotations

import dataclasses

from pr2_jax.config.schema import Config, EvaluationConfig, OptimConfig, QinConfig


def tiny(config: Config) -> Config:
    """The same run, every stage of it, in under two minutes on two cores: a small world, few steps, short lists.

    Its numbers mean nothing; it shows that everything works. A log brought with --input keeps its size.
    """
    return dataclasses.replace(
        config,
        name=f"{config.name}:tiny",
        world=dataclasses.replace(
            config.world, users=300, videos=1_500, creators=120, days=6, topics=8, subtopics=3, sessions_per_day=0.8
        ),
        content=dataclasses.replace(config.content, uniform_negatives=64, optim=_few_steps(config.content.optim)),
        preference=dataclasses.replace(
            config.preference, optim=dataclasses.replace(config.preference.optim, epochs=4.0)
        ),
        pdr=dataclasses.replace(config.pdr, history=32, uniform_negatives=64, optim=_few_steps(config.pdr.optim)),
        qin=_short(config.qin),
        base=_short(config.base),
        evaluation=EvaluationConfig(bootstrap=100, probe_sessions=8),
        search=dataclasses.replace(config.search, candidates=50),
    )


def _short(ranker: QinConfig) -> QinConfig:
    return dataclasses.replace(ranker, history=64, keep_query=32, keep_video=8, optim=_few_steps(ranker.optim))


def _few_steps(optim: OptimConfig) -> OptimConfig:
    return dataclasses.replace(optim, batch=64, epochs=1.0, max_steps=40, checkpoint_every=20)
