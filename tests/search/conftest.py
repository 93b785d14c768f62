"""One opened engine for all tests of the search room."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.search.engine import SearchEngine


@pytest.fixture(scope="session")
def engine(finished) -> SearchEngine:
    return SearchEngine.load(finished)


@pytest.fixture(scope="session")
def watcher(engine) -> int:
    """Raw id of the user with the most clicks."""
    events = engine.system.store.events
    clicks_U = np.bincount(np.asarray(events.user)[np.asarray(events.click)])
    return int(engine.system.store.users.raw_id[clicks_U.argmax()])


@pytest.fixture(scope="session")
def known_query(engine) -> str:
    """The first query of the log with two words or more, in text."""
    store = engine.system.store
    first = np.asarray(store.queries.first_word)
    row = int(np.flatnonzero(np.diff(first) >= 2)[0])
    return " ".join(store.words.text[word] for word in store.queries.words[first[row] : first[row + 1]])
