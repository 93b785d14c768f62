"""Nobody in particular asks: what is promised to a person without a past, channel by channel up to the ranked list."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.config.schema import CHANNELS
from pr2_jax.ranking.features import FEATURES, GROUPS
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.retrieval.merge import merge
from pr2_jax.search.pipelines import COMPARED
from pr2_jax.search.searcher import LEAST_CANDIDATES, Searcher

DEPTH, CANDIDATES = 200, 64
NOBODY = 0
"""The row of everybody whom the log does not know."""


@pytest.fixture(scope="module")
def system(engine):
    return engine.system


@pytest.fixture(scope="module")
def snapshot(system):
    return system.fitted.snapshot(system.store.cuts.end_ms)


@pytest.fixture(scope="module", params=COMPARED)
def searcher(request, system, snapshot) -> Searcher:
    return Searcher.open(system, snapshot, request.param, exact=True)


@pytest.fixture(scope="module")
def asked(engine, known_query, watcher) -> EncodedRequests:
    """Nobody with known words, nobody with none, and who has the longest past with the same known words."""
    words = engine.system.store.word_rows(known_query.split())
    users = np.array([NOBODY, NOBODY, engine.system.store.user_row(watcher)], np.int32)
    encoded = engine.encode(users, [words, np.zeros(0, np.int32), words])
    row = engine.system.store.query_of_words[words.tobytes()]
    assert encoded.requests.query_B.tolist() == [row, 0, row]
    return encoded


def _real(ids_BxK: np.ndarray, row: int) -> list[int]:
    return ids_BxK[row][ids_BxK[row] > 0].tolist()


def test_qrcf_has_nothing_to_go_by(system, snapshot, asked):
    seeds = asked.seeds
    assert not seeds.strength_BxK[:2].any()
    assert not seeds.video_BxK[:2].any()
    assert seeds.strength_BxK[2].any()
    found = system.channels(snapshot, exact=True)["qrcf"].retrieve(asked, DEPTH)
    assert (found.ids_BxK[:2] == -1).all()
    assert np.isneginf(found.scores_BxK[:2]).all()
    assert _real(found.ids_BxK, 2)


def test_nothing_is_withheld(asked):
    assert [len(videos) for videos in asked.requests.seen[:2]] == [0, 0]
    assert len(asked.requests.seen[2])


def test_no_personal_number_is_told_of_nobody(system, snapshot, asked):
    """Although row 0 is a row of every table, and there are counters with its number."""
    videos = np.tile(np.arange(1, 41, dtype=np.int32), (len(asked), 1))
    features_NxSxF = system.features(asked, videos, snapshot.similarity)
    personal_F = np.isin(FEATURES, (*GROUPS["links"], *GROUPS["habits"]))
    assert personal_F.sum() == len(GROUPS["links"]) + len(GROUPS["habits"])
    assert not features_NxSxF[:2][..., personal_F].any()
    assert features_NxSxF[2][..., personal_F].any()
    assert not asked.people.preference_NxD[:2].any()


def test_the_merged_list_is_that_of_the_other_channels(system, snapshot, asked):
    """QRCF's share of the weight is lost to all results alike, and its silence is no result."""
    searcher = Searcher.open(system, snapshot, "pr2", exact=True)
    found = searcher.retrieve(asked)
    merged = searcher.system.merged(searcher.pipeline, asked.requests, found, DEPTH)
    assert (merged.sources_BxKxC[:2, :, merged.channels.index("qrcf")] == 0).all()
    others = {name: candidates for name, candidates in found.items() if name != "qrcf"}
    weights = {name: system.fitted.choices.merge_weights["pr2"][name] for name in others}
    without = merge(others, weights, DEPTH, system.scorers(asked.requests))
    np.testing.assert_array_equal(merged.ids_BxK[:2], without.ids_BxK[:2])
    np.testing.assert_allclose(merged.scores_BxK[:2], without.scores_BxK[:2], atol=1e-6)


def test_the_merged_list_is_well_defined(searcher, asked):
    found = searcher.retrieve(asked)
    merged = searcher.system.merged(searcher.pipeline, asked.requests, found, DEPTH)
    ids = _real(merged.ids_BxK, 0)
    assert len(ids) == len(set(ids)) > LEAST_CANDIDATES
    assert set(ids) <= set().union(*(_real(found[name].ids_BxK, 0) for name in found))
    assert merged.found_BxKxC[0, : len(ids)].any(-1).all()
    scores = merged.scores_BxK[0, : len(ids)]
    assert np.isfinite(scores).all()
    assert (np.diff(scores) <= 0).all()
    assert 0 < scores[0] <= 1 + 1e-6  # weights sum to 1, sources are shares


def test_popular_videos_fill_up_only_where_next_to_nothing_is_found(searcher, asked):
    found = searcher.retrieve(asked)
    merged = searcher.system.merged(searcher.pipeline, asked.requests, found, CANDIDATES)
    have = [_real(merged.ids_BxK, row) for row in range(len(asked))]
    offered = searcher.candidates(asked, found, CANDIDATES)
    for row, before in enumerate(have):
        ids = _real(offered.ids_BxK, row)
        assert ids[: len(before)] == before
        assert len(ids) == max(len(before), LEAST_CANDIDATES)
        filled = slice(len(before), len(ids))
        assert not offered.found_BxKxC[row, filled].any()
        assert not offered.scores_BxK[row, filled].any()
    assert len(have[0]) >= LEAST_CANDIDATES  # words alone find enough
    if searcher.pipeline.name == "base":
        assert have[1] == []


def test_without_words_and_past_what_is_popular_is_offered_by_base(searcher, system, snapshot, asked):
    """PDR has a vector for everybody, so that pr2 has found videos already and is filled up by none."""
    found = searcher.retrieve(asked)
    offered = _real(searcher.candidates(asked, found, CANDIDATES).ids_BxK, 1)
    silent = [name for name in CHANNELS if name in found and not _real(found[name].ids_BxK, 1)]
    clicks_V = np.asarray(snapshot.popularity_V)
    if searcher.pipeline.name == "base":
        assert silent == ["bm25", "dr"]
        assert clicks_V[offered].tolist() == np.sort(clicks_V[1:])[::-1][: len(offered)].tolist()
    else:
        assert silent == ["bm25", "dr", "qrcf"]
        assert set(offered) <= set(_real(found["pdr"].ids_BxK, 1))


def test_ranked_lists_are_whole(searcher, asked):
    """Finite scores in order, chances in [0, 1], a permutation of the candidates, alone as in company."""
    merged = searcher.candidates(asked, searcher.retrieve(asked), CANDIDATES)
    ranked = searcher.rank(asked, merged)
    for row in (0, 1):
        ids = _real(ranked.ids_BxK, row)
        assert sorted(ids) == sorted(_real(merged.ids_BxK, row))
        assert np.isfinite(ranked.scores_BxK[row, : len(ids)]).all()
        assert (np.diff(ranked.scores_BxK[row, : len(ids)]) <= 0).all()
        chances = ranked.probabilities_BxKxT[row, : len(ids)]
        assert ((chances >= 0) & (chances <= 1)).all()
        one = asked.take(np.array([row]))
        alone = searcher.rank(one, searcher.candidates(one, searcher.retrieve(one), CANDIDATES))
        assert _real(alone.ids_BxK, 0) == ids


def test_what_is_found_for_nobody_is_the_same_at_any_moment(system, snapshot, asked):
    """There is no past that could grow; for a person there is."""
    early = np.full_like(asked.requests.time_ms_B, system.store.cuts.start_ms)
    before = system.encode(dataclasses.replace(asked.requests, time_ms_B=early))
    differs = False
    for name, channel in system.channels(snapshot, exact=True).items():
        now, then = (channel.retrieve(part, DEPTH) for part in (asked, before))
        np.testing.assert_array_equal(now.ids_BxK[:2], then.ids_BxK[:2], name)
        np.testing.assert_array_equal(now.scores_BxK[:2], then.scores_BxK[:2], name)
        differs |= not np.array_equal(now.ids_BxK[2], then.ids_BxK[2])
    assert differs


def test_strangers_get_the_plain_order_of_the_same_candidates(system, snapshot, asked):
    """Nobody, and whoever has one event too few; everybody else gets the personal ranker, alone or in company."""
    personal, plain = (Searcher.open(system, snapshot, name, exact=True) for name in ("pr2", "base"))
    merged = personal.candidates(asked, personal.retrieve(asked), CANDIDATES)
    mixed, all_plain = personal.rank(asked, merged), plain.rank(asked, merged)

    def alike(one: np.ndarray, other: np.ndarray) -> bool:
        """Up to the last bit, which depends on how many are asked at once."""
        return np.allclose(one, other, rtol=1e-6)

    np.testing.assert_array_equal(mixed.ids_BxK[:2], all_plain.ids_BxK[:2])
    assert alike(mixed.scores_BxK[:2], all_plain.scores_BxK[:2])
    assert not alike(mixed.scores_BxK[2], all_plain.scores_BxK[2])
    events = int(np.diff(np.asarray(system.store.users.first_event))[asked.requests.user_B[2]])
    for least, as_plain in ((events, False), (events + 1, True), (0, False)):
        config = dataclasses.replace(
            system.config, search=dataclasses.replace(system.config.search, least_events=least)
        )
        fitted = dataclasses.replace(system.fitted, config=config)
        other = dataclasses.replace(personal, system=dataclasses.replace(system, fitted=fitted))
        found = other.rank(asked, merged)
        assert alike(found.scores_BxK[2], all_plain.scores_BxK[2]) == as_plain
    assert not alike(found.scores_BxK[0], all_plain.scores_BxK[0])  # least 0: nobody is a stranger
