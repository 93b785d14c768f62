"""What the index stage leaves of BM25: the postings of the whole log, which everything after it maps."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.errors import StaleArtifact
from pr2_jax.retrieval import postings
from pr2_jax.search.system import System


def test_the_index_holds_the_postings_of_the_log(finished, micro_config, monkeypatch):
    system = System.open(finished, micro_config)
    made = postings.fit(system.store, micro_config.retrieval)
    saved = postings.Postings.open(finished / "index" / "bm25")
    assert len(made.video) > 1_000
    for name in postings.FILES:
        assert np.array_equal(getattr(saved, name), getattr(made, name))
    monkeypatch.setattr(postings, "fit", None)  # nobody builds them again
    words_BxQ, video_BxS = np.array([[1, 2]]), made.of(1)[0][None]
    assert (system.fitted.bm25.scores(words_BxQ, video_BxS) > 0).all()


def test_nothing_reads_postings_before_there_is_an_index(finished, micro_config, tmp_path):
    for earlier in ("store", "content", "preference", "pdr"):
        (tmp_path / earlier).symlink_to(finished / earlier)
    with pytest.raises(StaleArtifact, match=r"index does not exist .* make it with `pr2 index`"):
        _ = System.open(tmp_path, micro_config).fitted.bm25
