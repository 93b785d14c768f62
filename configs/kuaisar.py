"""pr2 run --config configs/kuaisar.py --workdir work/kuaisar --input DIR_OR_ZIP

Any log in KuaiSAR's format: KuaiSAR_v2 or KuaiSAR-small as downloaded, or five tables of your own. Nothing here is set
for one data set; sizes follow from the log's counts.
measured: (to be filled in: log, machine, wall time, peak memory; recall@100 and NDCG@10 of pr2 and base)

Variant `tiny`: few steps and short lists, to see every stage work on the log before the long run.
measured: (to be filled in: log, machine, wall time)
"""

from pr2_jax.config import Config
from pr2_jax.config_variants import tiny

VARIANTS = ("tiny",)


def get_config(variant: str = "") -> Config:
    """The defaults are meant for this."""
    config = Config(name="kuaisar")
    return tiny(config) if variant == "tiny" else config
