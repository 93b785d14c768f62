"""bash launch/quickstart.sh, or: pr2 run --config quickstart --workdir work/quickstart

The simulated short-video world: 2,000 users, 20,000 videos, 19 days; needs no log. People search somewhat more
often than in the world's default, so that one test day tells systems apart; training is cut short, to end soon.
measured: 2 CPU cores: 7 min 02 s; test day: NDCG@10 of the pipeline .356, of base .275 (paired
+.081 [+.066, +.097]), of the oracle .485

Variant `tiny`: every stage on a small world, numbers without meaning.
measured: 2 CPU cores: 2 min 10 s, most of it compilation
"""

import dataclasses

from pr2_jax.config import Config, DataConfig, OptimConfig, WorldConfig, tiny

VARIANTS = ("tiny",)


def get_config(variant: str = "") -> Config:
    """The simulated world; models as kuaisar.py has them, with fewer epochs."""
    config = Config()
    config = dataclasses.replace(
        config,
        name="quickstart",
        data=DataConfig(source="short_video_world"),
        world=WorldConfig(sessions_per_day=0.5),
        content=dataclasses.replace(config.content, optim=_epochs(config.content.optim, 16.0)),
        pdr=dataclasses.replace(config.pdr, history=64, optim=_epochs(config.pdr.optim, 4.0)),
        qin=dataclasses.replace(config.qin, optim=_epochs(config.qin.optim, 1.5)),
        base=dataclasses.replace(config.base, optim=_epochs(config.base.optim, 1.5)),
    )
    return tiny(config) if variant == "tiny" else config


def _epochs(optim: OptimConfig, epochs: float) -> OptimConfig:
    return dataclasses.replace(optim, epochs=epochs)
