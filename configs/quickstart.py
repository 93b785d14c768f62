"""bash launch/quickstart.sh, or: pr2 run --config configs/quickstart.py --workdir work/quickstart

The whole of it on the simulated short-video world: 2,000 users, 20,000 videos, 19 days.
measured: (to be filled in: machine, wall time, peak memory; recall@100 and NDCG@10 of pr2 and base)

Variant `tiny`: every stage in under a minute, numbers without meaning.
measured: (to be filled in: machine, wall time)
"""

from pr2_jax.config import Config, DataConfig
from pr2_jax.config_variants import tiny

VARIANTS = ("tiny",)


def get_config(variant: str = "") -> Config:
    """The simulated world with every knob at its default."""
    config = Config(name="quickstart", data=DataConfig(source="short_video_world"))
    return tiny(config) if variant == "tiny" else config
