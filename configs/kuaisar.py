"""pr2 run --config kuaisar --workdir work/kuaisar --input DIR_OR_ZIP

A log in KuaiSAR's format: KuaiSAR_v2 or KuaiSAR-small as downloaded, or tables of your own. Nothing here is set for one
data set; sizes follow from the log's counts.
measured: movielens-search (610 people, 9,742 films, 15,778 searches, 123,816 feed views) on 2 CPU cores: 7 min;
test day: recall@100 of retrieval .665 (BM25 + content .569); NDCG@10 of the pipeline .294, of base .232

Variant `tiny`: few steps and short lists, to see every stage work on the log before the long run.
measured: not on a log of its own; on the small simulated world 2 min 10 s on 2 CPU cores (quickstart:tiny)
"""

from pr2_jax.config import Config, tiny

VARIANTS = ("tiny",)


def get_config(variant: str = "") -> Config:
    """The defaults are meant for this."""
    config = Config(name="kuaisar")
    return tiny(config) if variant == "tiny" else config
