"""Every message that a config section can give, each with its values and its remedy."""

from __future__ import annotations

import dataclasses
import re

import pytest

from pr2_jax.config import (
    Config,
    ContentConfig,
    DataConfig,
    EvaluationConfig,
    Head,
    LoggingConfig,
    OptimConfig,
    PdrConfig,
    PeopleConfig,
    QinConfig,
    QrcfConfig,
    RetrievalConfig,
    ScoresConfig,
    SearchConfig,
    TableConfig,
    WorldConfig,
    schema,
    training_config,
    world_config,
)
from pr2_jax.config.checks import RANGES, choices_of
from pr2_jax.errors import BadConfig

CLASHES = [
    (DataConfig, {"source": "kuaishou"}, "source = 'kuaishou', expected one of kuaisar, short_video_world"),
    (DataConfig, {"max_bad_share": 1.5}, "max_bad_share = 1.5, expected a share from 0 to 1"),
    (DataConfig, {"long_play_quantile": 2}, "long_play_quantile = 2.0, expected a share from 0 to 1"),
    (DataConfig, {"query_tokens": 0}, "query_tokens = 0, expected a number above 0"),
    (PeopleConfig, {"like_rate": 1.2}, "like_rate = 1.2, expected a share from 0 to 1"),
    (LoggingConfig, {"feed_popular": 0.8}, "feed_popular + feed_interest + feed_favourite = 1.35, expected 1 or less"),
    (WorldConfig, {"days": 2}, "days = 2, expected 3 or more: one each to train, validate and test"),
    (WorldConfig, {"slate": 30, "videos": 20}, "slate = 30 is above videos = 20; lower slate or raise videos"),
    (WorldConfig, {"words_per_subtopic": 4}, "words_per_subtopic = 4, expected 8 or more"),
    (WorldConfig, {"topics": 2, "subtopics": 2}, "people.interests = 5 is above topics * subtopics = 4; lower it"),
    (WorldConfig, {"start": "22 May"}, "start = '22 May', expected a date as 2023-05-22"),
    (OptimConfig, {"batch": 0}, "batch = 0, expected a number above 0"),
    (OptimConfig, {"batch": 2.5}, "batch = 2.5, expected int"),
    (OptimConfig, {"batch": True}, "batch = True, expected int"),
    (OptimConfig, {"learning_rate": "fast"}, "learning_rate = 'fast', expected float"),
    (OptimConfig, {"learning_rate": float("nan")}, "learning_rate = nan, expected a finite number"),
    (OptimConfig, {"weight_decay": -0.1}, "weight_decay = -0.1, expected a number of 0 or more"),
    (OptimConfig, {"warmup_share": 1.01}, "warmup_share = 1.01, expected a share from 0 to 1"),
    (ContentConfig, {"temperature": 0.0}, "temperature = 0.0, expected a number above 0"),
    (ContentConfig, {"dropout": 1.0}, "dropout = 1.0, expected a share below 1"),
    (ContentConfig, {"optim": 3}, "optim = 3, expected OptimConfig"),
    (PdrConfig, {"width": 10, "heads": 4}, "heads = 4 does not divide width = 10; take one of 1, 2, 5, 10"),
    (PdrConfig, {"hard_rank_from": 600}, "hard_rank_from = 600 is above hard_rank_to = 500; lower hard_rank_from or"),
    (PdrConfig, {"hard_start": 1.5}, "hard_start = 1.5, expected a share from 0 to 1"),
    (
        PdrConfig,
        {"relevance_weight": 0, "feedback_heads": (Head("click", weight=0), Head("like", weight=0))},
        "nothing to learn, all are 0: relevance_weight, feedback_heads.click.weight, feedback_heads.like.weight; raise",
    ),
    (QinConfig, {"keep_video": 200}, "keep_video = 200 is above keep_query = 100; lower keep_video or"),
    (QinConfig, {"keep_query": 900}, "keep_query = 900 is above history = 500; lower keep_query or raise history"),
    (Head, {"name": "comment"}, "label = 'comment', expected one of click, long_play, like, follow, forward"),
    (Head, {"name": "a b", "label": "like"}, "name = 'a b', expected letters, digits and _"),
    (QinConfig, {"prediction_heads": ()}, "prediction_heads = (), expected Heads"),
    (
        QinConfig,
        {"prediction_heads": (Head("click"), Head("click", "like"))},
        "prediction_heads are called click, click, expected each name once",
    ),
    (
        QinConfig,
        {"prediction_heads": (Head("like"), Head("click"))},
        "prediction_heads begins with the label like, expected click: results are ranked by it",
    ),
    (QinConfig, {"heads": 5}, "heads = 5 does not divide width = 32; take one of 1, 2, 4, 8, 16, 32"),
    (OptimConfig, {"table_optimizer": "sgd"}, "table_optimizer = 'sgd', expected one of adam, lazy_adam, row_adagrad"),
    (TableConfig, {"optimizer": "sgd"}, "optimizer = 'sgd', expected one of adam, lazy_adam, row_adagrad, ''"),
    (TableConfig, {"hashed_rows": 1}, "hashed_rows = 1, expected 2 or more (row 0 is unknown), or 0 for exact"),
    (ScoresConfig, {"calibration": "beta"}, "calibration = 'beta', expected one of auto, platt, isotonic, query"),
    (ScoresConfig, {"floor_tolerance": -1.0}, "floor_tolerance = -1.0, expected a number of 0 or more"),
    (QrcfConfig, {"similarity": "pearson"}, "similarity = 'pearson', expected one of swing, cosine"),
    (QrcfConfig, {"k": 2_000}, "k = 2000 is above history = 1000; lower k or raise history"),
    (QrcfConfig, {"neighbours": 10}, "content_fallback = 20 is above neighbours = 10; lower content_fallback or raise"),
    (RetrievalConfig, {"bm25_b": 1.5}, "bm25_b = 1.5, expected a share from 0 to 1"),
    (RetrievalConfig, {"depth": 50}, "ann_recall_at = 100 is above depth = 50; lower ann_recall_at or raise depth"),
    (EvaluationConfig, {"bootstrap": 0}, "bootstrap = 0, expected a number above 0"),
    (
        Config,
        {"search": SearchConfig(candidates=5_000)},
        "search.candidates = 5000 is above retrieval.depth = 1000; lower it or raise depth",
    ),
    (
        Config,
        {"search": SearchConfig(candidates=20)},
        "qin.sampled_negatives = 24 is above search.candidates = 20, their source; lower it or raise",
    ),
    (
        Config,
        {"qin": QinConfig(sampled_negatives=12)},
        "qin.sampled_negatives = 12, base.sampled_negatives = 24: both train on one set; set both",
    ),
    (
        Config,
        {"qin": QinConfig(negative_queries=9)},
        "qin.negative_queries = 9, base.negative_queries = 20000: both train on one set; set both",
    ),
    (PdrConfig, {"hard_searches": 0}, "hard_searches = 0, expected a number above 0"),
    (
        Config,
        {"qin": QinConfig(prediction_heads=(Head("click"), Head("follow")))},
        "qin.prediction_heads = click (click), follow (follow), base.prediction_heads = click (click), long_play (long",
    ),
    (Config, {"base": QinConfig()}, "base.personal = True, expected False: it is the ranker to compare with"),
]


@pytest.mark.parametrize(("section", "fields", "message"), CLASHES, ids=[message[:32] for _, _, message in CLASHES])
def test_clash_is_named_with_its_values(section, fields, message):
    with pytest.raises(BadConfig) as error:
        section(**fields)
    assert f"{section.__name__}: {message}" in str(error.value)


def test_every_section_checks_itself():
    sections = [
        kind
        for module in (schema, training_config, world_config)
        for kind in vars(module).values()
        if dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
    ]
    assert len(sections) >= 16
    for kind in sections:
        for field in dataclasses.fields(kind):
            declared = RANGES.get(field.type, [field.type])[0]
            expected = "one of" if field.name in choices_of(kind) else declared
            told = re.escape(f"{kind.__name__}: {field.name} = None, expected {expected}")
            with pytest.raises(BadConfig, match=told):
                kind(**{field.name: None})


def test_zero_is_allowed_where_it_means_derived_or_off():
    assert RetrievalConfig(ann_leaves=0, ann_reorder=0).ann_leaves == 0
    assert PdrConfig(hard_negatives=0, uniform_negatives=0).hard_negatives == 0
    assert PeopleConfig(search_offset=-0.5).search_offset == -0.5


def test_whole_numbers_become_floats():
    assert type(OptimConfig(epochs=3).epochs) is float
    assert OptimConfig(epochs=3) == OptimConfig(epochs=3.0)
