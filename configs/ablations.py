"""pr2 evaluate --workdir work/kuaisar --ablations --seeds 3

What each part earns: the whole system with one part left out, trained and judged again. By group and name, the fields
that differ from the work directory's config. Variants that change a ranker, or the preference space, are judged whole;
all others end at the merged list, before any ranker, which keeps them cheap. Any field of the config may stand here.
"""

from pr2_jax.config.schema import CHANNELS

ABLATIONS = {
    "qin": {
        "no query filter": {"qin.query_filter": False},
        "no video filter": {"qin.video_filter": False},
        "no GSU (the latest views)": {"qin.query_filter": False, "qin.video_filter": False, "qin.keep_query": 30},
        "no ESU (their mean)": {"qin.esu": False},
        "no fused attention": {"qin.fused_attention": False},
        "no engagement gate": {"qin.engagement_gate": False},
        "no real-time part": {"qin.realtime": 0},
        "shared bottom (one expert)": {"qin.experts": 1},
        "single task (click)": {
            "qin.prediction_heads.long_play.weight": 0.0,
            "qin.prediction_heads.like.weight": 0.0,
            "qin.feed_share": 0.0,
        },
        "no click label": {"qin.prediction_heads.click.weight": 0.0, "qin.listwise_weight": 0.0},
        "no long-play label": {"qin.prediction_heads.long_play.weight": 0.0},
        "no like label": {"qin.prediction_heads.like.weight": 0.0},
        "no listwise loss": {"qin.listwise_weight": 0.0},
        "no sampled negatives": {"qin.sampled_negatives": 0, "base.sampled_negatives": 0},
        "no item-to-item inputs": {"qin.inputs": ["relevance", "video", "habits", "preference"]},
        "no preference inputs": {"qin.inputs": ["relevance", "video", "links", "habits"]},
        "no numbers of the person": {"qin.inputs": ["relevance", "video"]},
    },
    "preference": {
        "vectors as trained, only people fitted": {"preference.fit_sweeps": 0},
    },
    "pdr": {
        "no user": {"pdr.use_history": False, "pdr.use_profile": False, "pdr.use_preference": False},
        "no history": {"pdr.use_history": False},
        "no profile": {"pdr.use_profile": False},
        "no preference vector": {"pdr.use_preference": False},
        "no relevance loss": {"pdr.relevance_weight": 0.0},
        "no hard negatives": {"pdr.hard_negatives": 0},
        "no logQ": {"pdr.log_q": False},
        "no uniform negatives": {"pdr.uniform_negatives": 0},
        "no feed views": {"pdr.feed_share": 0.0},
    },
    "qrcf": {
        "cosine for Swing": {"retrieval.qrcf.similarity": "cosine"},
        "plain Swing (power 1)": {"retrieval.qrcf.swing_power": 1.0},
        "no content neighbours": {"retrieval.qrcf.content_fallback": 0},
        "no query filter (every view a seed)": {"retrieval.qrcf.epsilon_quantile": 0.0},
    },
    "channels": {
        f"no {left_out}": {"retrieval.channels": [channel for channel in CHANNELS if channel != left_out]}
        for left_out in CHANNELS
    },
}
