"""A head of one's own is a config entry: from the log's column to training, calibration, fusion and the tables."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from pr2_jax.config import Head
from pr2_jax.data.batches.sessions import training_sessions
from pr2_jax.data.batches.slates import feed_slates, search_slates
from pr2_jax.data.ingest.log_coverage import labels_told
from pr2_jax.models.model_functions import qin_task
from pr2_jax.ranking.calibration import Unlearned
from pr2_jax.search.engine import SearchEngine
from pr2_jax.search.searcher import Calibrated
from pr2_jax.search.system import System
from pr2_jax.stages import train_qin
from pr2_jax.studies.diagnose import diagnose
from pr2_jax.training.embedding_tables import gather, init_tables

NAMES = ["click", "long_play", "like", "subscription"]


@pytest.fixture(scope="module")
def config(micro_config):
    heads = (*micro_config.qin.prediction_heads, Head("subscription", label="follow", weight=0.4))
    rankers = {name: dataclasses.replace(vars(micro_config)[name], prediction_heads=heads) for name in ("qin", "base")}
    return dataclasses.replace(micro_config, **rankers)


@pytest.fixture(scope="module")
def ranked(finished, config, on_one_device, tmp_path_factory):
    """The finished work directory with rankers of four heads in place of its own."""
    place = tmp_path_factory.mktemp("heads") / "w"
    shutil.copytree(finished, place)
    for name in ("qin", "eval"):
        shutil.rmtree(place / name)
    from pr2_jax import pipeline  # not above: it imports what settles JAX's devices

    pipeline.run(place, config, None)
    return place


def test_it_is_trained_calibrated_and_fused(ranked, config, capsys):
    lines = [json.loads(line) for line in (ranked / "qin" / "qin" / "curve.jsonl").read_text().splitlines()]
    assert {*NAMES, "gate_entropy_subscription"} <= lines[-1].keys()
    assert all(np.isfinite(line["subscription"]) and line["subscription"] > 0 for line in lines)
    system = System.open(ranked, config)
    assert labels_told(system.store)["follow"]
    for name in ("pr2", "base"):
        fitted = Calibrated.load(ranked / "qin" / f"{name}.json")
        assert len(fitted.heads) == len(fitted.fusion.alpha_T) == len(NAMES)
        assert not any(isinstance(head, Unlearned) for head in fitted.heads)


def test_it_is_in_answers_and_tables(ranked):
    engine = SearchEngine.load(ranked)
    query = [int(engine.system.store.words.raw_id[word]) for word in engine.system.store.queries.words[:2]]
    for user in (None, int(engine.system.store.users.raw_id[1])):  # by the base ranker, and by the personal one
        for result in engine.search(user, query, 4).results:
            assert list(result.heads) == NAMES
            assert 0 <= result.heads["subscription"] <= 1
    told = json.loads((ranked / "eval" / "metrics.json").read_text())["calibration"]["rankers"]
    assert all("subscription" in parts for parts in told.values())
    assert "subscription" in (ranked / "eval" / "calibration.txt").read_text()


def test_it_is_diagnosed(ranked, config, capsys):
    diagnose.run(ranked, config)
    found = json.loads((ranked / "eval" / diagnose.JSON).read_text())["findings"]
    assert {f"qin.expert_{name}" for name in NAMES} <= {f"{one['part']}.{one['name']}" for one in found}


def test_rows_that_do_not_tell_its_label_add_nothing(ranked, config):
    """Search rows of this log tell of clicks alone: there the new head's labels have no say in the loss."""
    system = System.open(ranked, config)
    search = search_slates(system.store, training_sessions(system.store), 4)
    assert not search.told("follow").any()
    feed = feed_slates(system.log.reader, 0, system.store.cuts.validation_ms, 4)
    told = feed.told("follow")
    assert told.any()
    assert np.array_equal(feed.label("follow")[told], np.asarray(system.store.events.follow)[feed.impression_NxS[told]])
    use = system.columns(config.qin)
    task = qin_task(system.store, config.qin, system.log.catalogue, np.asarray(system.space.videos_VxD), len(use))
    vectors = system.fitted.query_vectors_NqxD
    reading = train_qin.SlateReader(system.log.reader, vectors, config.qin, config.data)
    features = [np.zeros((*part.video_NxS.shape, len(use)), np.float32) for part in (search, feed)]
    batch = train_qin.QinBatches(reading, search, features[0], feed, features[1], config.qin)(0)
    assert batch["label_BxSxT"].shape[2] == batch["weight_BxSxT"].shape[2] == len(NAMES)
    assert batch["weight_BxSxT"][..., 3].any()
    flipped = np.where(batch["weight_BxSxT"] > 0, batch["label_BxSxT"], 1 - batch["label_BxSxT"])
    params, tables = jax.jit(lambda key: (task.init(key), init_tables(task.table_specs(), key)))(jax.random.key(1))

    @jax.jit
    def loss(batch):
        prepared = task.prepare(task.frozen, batch)
        return task.loss(params, gather(tables, task.lookups(prepared)), prepared, jax.random.key(0))[0]

    assert float(loss(batch)) == float(loss(batch | {"label_BxSxT": flipped}))
    told_otherwise = np.where(batch["weight_BxSxT"] > 0, 1 - batch["label_BxSxT"], batch["label_BxSxT"])
    assert float(loss(batch)) != float(loss(batch | {"label_BxSxT": told_otherwise}))


def test_the_other_heads_are_drawn_alike(config, micro_config, finished):
    """Parameters are seeded by their names: one more head leaves those of the others as they were."""
    system = System.open(finished, micro_config)

    def drawn(ranker) -> dict:
        task = qin_task(system.store, ranker, system.log.catalogue, np.asarray(system.space.videos_VxD), 5)
        return jax.jit(task.init)(jax.random.key(1))

    more, fewer = drawn(config.qin), drawn(micro_config.qin)
    for name in NAMES[:3]:
        assert np.array_equal(*(np.asarray(params[f"head_{name}"]["kernel"]) for params in (more, fewer)))
