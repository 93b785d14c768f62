"""The sweep of QRCF on a finished work directory: what it measures, that it carries on, that it never looks ahead."""

from __future__ import annotations

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from pr2_jax import pipeline
from pr2_jax.cli import entry
from pr2_jax.config.loader import override, read
from pr2_jax.errors import BadConfig, BadInput
from pr2_jax.evaluation.judged_day import day_of
from pr2_jax.export.artifact_writer import Writer
from pr2_jax.retrieval.qrcf import cosine_sample
from pr2_jax.search.fitted_artifacts import FittedArtifacts
from pr2_jax.search.pipelines import pipelines
from pr2_jax.search.system import System
from pr2_jax.stages import export_artifact
from pr2_jax.studies import qrcf_sweep
from pr2_jax.studies.qrcf_sweep import ALONE, MERGED, REFITTED, Grid, Point, Study, configured, points_of
from pr2_jax.types import Requests

GRID = Grid(quantile=(0.3, 0.9), adaptive=(0.5, 0.9), k=(2, 10, 50, 10_000), refitted=1)
OUT = qrcf_sweep.DIRECTORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swept(finished, micro_config, tmp_path_factory):
    """A copy of the work directory with the study in it."""
    place = shutil.copytree(finished, tmp_path_factory.mktemp("sweep") / "w")
    pipeline.sweep(place, micro_config, "qrcf", GRID)
    return place


@pytest.fixture(scope="module")
def rows(swept) -> list[dict[str, str]]:
    with (swept / OUT / "points.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def study(finished, micro_config) -> Study:
    return Study(System.open(finished, micro_config), micro_config)


def test_every_point_is_there_once(rows, micro_config):
    """K beyond the history is left out; what is configured is a point too, and is marked."""
    qrcf = micro_config.retrieval.qrcf
    got = [(row["threshold"], float(row["quantile"]), int(row["k"])) for row in rows]
    want = {("quantile", q, k) for q in (0.3, 0.9) for k in (2, 10, 50)} | {
        ("adaptive", q, k) for q in (0.5, 0.9) for k in (2, 10)
    }
    assert set(got[: len(want) + 1]) == want | {("quantile", qrcf.epsilon_quantile, qrcf.k)}
    assert len(got) == len(set(got))
    assert [(r["threshold"], r["k"]) for r in rows if r["configured"] == "1"] == [("quantile", str(qrcf.k))]


def test_the_configured_point_is_what_the_system_does(rows, finished, micro_config):
    """Every figure of it, from the channel itself and from the merge that serves, by plain loops."""
    system = System.open(finished, micro_config)
    cuts = system.store.cuts
    day = day_of(system, cuts.validation_ms, cuts.test_ms)
    channels = system.channels(system.fitted.snapshot(cuts.validation_ms), exact=True)
    depth, encoded = micro_config.retrieval.depth, system.encode(day.requests)
    found = {name: channel.retrieve(encoded, depth) for name, channel in channels.items()}
    merged = system.merged(pipelines(micro_config)["pr2"], day.requests, found, 100)
    row = next(row for row in rows if row["configured"] == "1")
    assert float(row["epsilon"]) == pytest.approx(system.fitted.choices.epsilon, abs=1e-6)
    for by, ids in ((ALONE, found["qrcf"].ids_BxK), (MERGED, merged.ids_BxK)):
        for k in (10, 100):
            each = [len(set(one[:k]) & set(videos)) / len(videos) for one, videos in zip(ids, day.clicked, strict=True)]
            assert float(row[f"{by}.recall@{k}"]) == pytest.approx(np.mean(each), abs=0.01)  # ties share their ranks
    seeds = system.seeds(day.requests)
    assert float(row["alone.coverage"]) == pytest.approx(seeds.coverage, abs=1e-6)
    assert float(row["alone.seeds"]) == pytest.approx((seeds.strength_BxK > 0).sum(1).mean(), abs=1e-6)
    assert float(row["alone.relevance_low"]) <= float(row["alone.relevance"]) <= float(row["alone.relevance_high"])


def test_stricter_points_cover_less(rows):
    for threshold in ("quantile", "adaptive"):
        for k in ("2", "10"):
            mine = sorted((float(r["quantile"]), r) for r in rows if (r["threshold"], r["k"]) == (threshold, k))
            for name in ("alone.coverage", "alone.seeds"):
                values = [float(row[name]) for _, row in mine]
                assert len(values) == 2
                assert values[0] >= values[1] > 0


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_families_are_compared_at_equal_numbers_of_seeds(study, quantile):
    """As near as any of 41 other quantiles comes, and with the seeds that the filter itself would keep."""
    one = study.judge(Point("adaptive", 10, quantile))
    other = study.alike(one)
    assert (other.threshold, other.k) == ("quantile", 10)

    def seeds(point):
        return (study._filter(point)(study.day.requests).strength_BxK > 0).sum(1).mean()

    wanted = one.metrics[ALONE]["seeds"].mean()
    gap = abs(seeds(other) - wanted)
    assert gap <= min(abs(seeds(Point("quantile", 10, q)) - wanted) for q in np.linspace(0, 1, 41).tolist()) + 1e-6
    assert gap < 0.1


def test_refitted_weights_are_no_worse_than_the_index_s(rows):
    refitted = [row for row in rows if row["weight.qrcf"]]
    assert 2 <= len(refitted) <= 3
    assert any(row["configured"] == "1" for row in refitted)
    for row in refitted:
        assert sum(float(row[f"weight.{name}"]) for name in ("bm25", "dr", "qrcf", "pdr")) == pytest.approx(1, abs=1e-4)
        value = {by: float(row[f"{by}.recall@100"]) + float(row[f"{by}.ndcg@10"]) for by in (MERGED, REFITTED)}
        assert value[REFITTED] >= value[MERGED] - 1e-5


def test_tables_and_picture(swept, rows):
    text, mark = ((swept / OUT / name).read_text() for name in ("table.txt", "table.md"))
    for row in rows:
        label = f"{'adaptive' if row['threshold'] == 'adaptive' else 'one epsilon'} {row['quantile']} K {row['k']}"
        assert label in text
        assert label in mark
    assert "Best by the mean of recall@100 and NDCG@10" in text
    assert (swept / OUT / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_fresh_is_skipped_and_another_grid_is_not(swept, micro_config, monkeypatch, capsys):
    before = (swept / OUT / "manifest.json").stat().st_mtime_ns
    monkeypatch.setattr(Study, "judge", _never)
    pipeline.sweep(swept, micro_config, "qrcf", GRID)
    said = capsys.readouterr()
    assert "fresh, skipped" in said.err
    assert said.out == (swept / OUT / "table.txt").read_text()
    assert (swept / OUT / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(AssertionError, match="judged again"):
        pipeline.sweep(swept, micro_config, "qrcf", Grid(quantile=(0.2,), adaptive=(), k=(2,)))


def _never(*_):
    raise AssertionError("judged again")


@pytest.mark.parametrize("after", [2, 8])
def test_killed_it_carries_on_from_the_last_point(finished, swept, micro_config, monkeypatch, tmp_path, after):
    """Same bytes as in one go; no point that was finished is judged again. A file cut short by the kill is not used."""
    place = shutil.copytree(finished, tmp_path / "w")
    real, judged, points = Study.judge, [], points_of(GRID, micro_config.retrieval.qrcf)

    def dies(study, point):
        if len(judged) == after:
            (place / f"{OUT}.partial" / "points" / f"{point.name}.npz").write_bytes(b"PK")
            raise KeyboardInterrupt
        judged.append(point)
        return real(study, point)

    monkeypatch.setattr(Study, "judge", dies)
    with pytest.raises(KeyboardInterrupt):
        pipeline.sweep(place, micro_config, "qrcf", GRID)
    assert not (place / OUT).exists()
    monkeypatch.setattr(Study, "judge", lambda study, point: judged.append(point) or real(study, point))
    pipeline.sweep(place, micro_config, "qrcf", GRID)
    assert judged[: len(points)] == points
    assert len(judged) == len(set(judged))
    for name in ("points.csv", "table.txt", "table.md", "frontier.png"):
        assert (place / OUT / name).read_bytes() == (swept / OUT / name).read_bytes()
    assert not (place / f"{OUT}.partial").exists()


def test_thresholds_know_nothing_from_the_validation_day_on(study):
    system, config = study._system, study._config
    cuts = system.store.cuts
    ahead = Study(system.over(system.store.truncated(cuts.validation_ms)), config)
    queries_BxD = np.asarray(system.fitted.query_vectors_NqxD)[1:40]
    for point in (Point("quantile", 10, 0.6), Point("adaptive", 10, 0.6), Point("adaptive", 10, 0.95)):
        one, other = study._filter(point), ahead._filter(point)
        assert one.epsilon == other.epsilon
        assert np.array_equal(one.cuts(queries_BxD), other.cuts(queries_BxD))
    size = config.retrieval.qrcf.adaptive_sample
    later = cosine_sample(system.store, cuts.end_ms, size)
    assert not np.array_equal(later, cosine_sample(system.store, cuts.validation_ms, size)), "the test would see a leak"


def test_the_test_day_is_not_read(swept, finished, micro_config, tmp_path, monkeypatch):
    """The same study over a log that ends with the validation day."""
    cuts = System.open(finished, micro_config).store.cuts
    shut = System.open(finished, micro_config).store.truncated(cuts.test_ms)
    system = System.open(finished, micro_config)
    monkeypatch.setattr(qrcf_sweep.System, "open", lambda *_: system.over(shut))
    judged, pairs, _ = qrcf_sweep.judge(finished, micro_config, tmp_path, GRID)
    for one in [*judged, *(other for _, other in pairs)]:
        kept = qrcf_sweep._read(swept / OUT, one.point, one.point.name)
        for by in (ALONE, MERGED):
            for name, value_S in kept.metrics[by].metrics.items():
                np.testing.assert_array_equal(one.metrics[by][name], value_S)


def test_a_day_is_sampled_evenly(study):
    day = study.day
    few = day.sample(5)
    assert len(few.sessions) == len(few.clicked) == len(few.requests) == 5
    assert [few.sessions[0], few.sessions[-1]] == [day.sessions[0], day.sessions[-1]]
    at = np.searchsorted(day.sessions, few.sessions)
    assert np.array_equal(few.requests.user_B, day.requests.user_B[at])
    assert all(np.array_equal(few.requests.seen[n], day.requests.seen[a]) for n, a in enumerate(at))
    assert np.array_equal(day.sample(10_000).sessions, day.sessions)


def test_nothing_to_judge_by(study, monkeypatch):
    silent = study.day.sample(0)
    monkeypatch.setattr(qrcf_sweep, "day_of", lambda *_: silent)
    with pytest.raises(BadInput, match="no search of the validation day has a click"):
        _ = Study(study._system, study._config).day


def test_without_the_channel_there_is_nothing_to_sweep(finished, micro_config, tmp_path, monkeypatch):
    config = override(micro_config, ["--config.retrieval.channels=bm25+dr"])
    monkeypatch.setattr(qrcf_sweep.workdir, "require", lambda *_: None)
    with pytest.raises(BadConfig, match="lacks qrcf"):
        pipeline.sweep(finished, config, "qrcf", GRID)


def test_a_stale_index_is_one_line(swept, capsys):
    assert entry.main(["evaluate", "--workdir", str(swept), "--sweep", "qrcf", "--config.retrieval.qrcf.k=7"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("pr2: error: ")
    assert "retrieval.qrcf.k was 50, is now 7" in said[-1]
    assert "pr2 index" in said[-1]


def test_an_adaptive_system_is_fitted_indexed_and_served(finished, micro_config, tmp_path):
    """The sample is in index/fitted.json and travels into an artifact, which filters unseen queries the same way."""
    asked = ["--config.retrieval.qrcf.threshold=adaptive", "--config.retrieval.qrcf.adaptive_quantile=0.9"]
    config = override(micro_config, asked)
    place = shutil.copytree(finished, tmp_path / "w")
    pipeline.index(place, config)
    system = System.open(place, config)
    fitted = json.loads((place / "index" / "fitted.json").read_text())
    sample = cosine_sample(system.store, system.store.cuts.validation_ms, config.retrieval.qrcf.adaptive_sample)
    assert fitted["cosine_sample"] == sample.tolist()
    assert configured(config.retrieval.qrcf) == Point("adaptive", config.retrieval.qrcf.k, 0.9)
    assert "cosine_sample" not in json.loads((finished / "index" / "fitted.json").read_text())

    (tmp_path / "served").mkdir()
    export_artifact._take_what_search_reads(system, Writer(tmp_path / "served"))
    kept = read(tmp_path / "served" / "config.json")
    fitted = FittedArtifacts(tmp_path / "served", kept, system.store, verified=True)
    towers = system.models.functions("content", place / "content")
    served = System(system.log, fitted, SimpleNamespace(functions=lambda model, directory: towers))
    end_ms = np.full(3, system.store.cuts.end_ms)
    words_BxQ = np.array([[1, 2, 3, 0], [5, 0, 0, 0], [0, 0, 0, 0]], np.int32)
    requests = Requests(np.array([1, 2, 3], np.int32), end_ms, words_BxQ)
    mine = system.seeds(requests).strength_BxK
    assert np.array_equal(served.seeds(requests).strength_BxK, mine)
    assert not np.array_equal(System.open(finished, micro_config).seeds(requests).strength_BxK, mine)
