"""A log small enough to count by hand: 3 people, 7 videos, 4 searches, 9 events."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

HOUR = 3_600_000


def _group(**columns) -> SimpleNamespace:
    return SimpleNamespace(**{name: np.asarray(column) for name, column in columns.items()})


@pytest.fixture
def store() -> SimpleNamespace:
    """What features and readers use of a LogStore. Times are hours; row 0 is unknown everywhere."""
    # user, video, hour, surface, click
    events = [(1, 1, 1, 0, 1), (1, 2, 2, 0, 0), (1, 3, 3, 1, 1), (1, 1, 5, 0, 1), (1, 4, 9, 1, 1)]
    events += [(2, 3, 2, 0, 1), (2, 5, 4, 1, 1), (2, 5, 6, 0, 1), (3, 1, 8, 0, 0)]
    user, video, hour, surface, click = np.array(events).T
    never = np.zeros(len(events), bool)
    return SimpleNamespace(
        users=_group(first_event=np.searchsorted(user, np.arange(5)), profile=np.array([[0], [1], [2], [1]])),
        videos=_group(
            raw_id=np.arange(7),
            author=[0, 1, 1, 2, 2, 0, 3],
            category=[[0, 0], [1, 2], [1, 0], [3, 0], [1, 3], [0, 0], [2, 0]],
            first_word=[0, 0, 1, 3, 4, 5, 5, 6],
            words=[1, 1, 2, 2, 3, 1],
        ),
        events=_group(
            user=user, video=video, time_ms=hour * HOUR, surface=surface, click=click > 0, like=never, follow=never,
            forward=never, play_ms=np.zeros(9, int), duration_ms=np.zeros(9, int),
            known_ms=hour * HOUR, told=np.full(9, 30, np.uint8),
        ),
        # at hour 3 by user 1 (query 1), at 4 by user 2 (query 1), at 7 by user 3 (query 2), at 9 by user 1 (query 1)
        sessions=_group(user=[1, 2, 3, 1], query=[1, 1, 2, 1], time_ms=np.array([3, 4, 7, 9]) * HOUR,
                        first_impression=[0, 3, 5, 7, 9]),
        impressions=_group(video=[3, 1, 5, 5, 3, 6, 3, 4, 3], clicks=[1, 0, 0, 1, 0, 0, 0, 1, 0]),
        counts=SimpleNamespace(videos=7, words=4),
    )  # fmt: skip
