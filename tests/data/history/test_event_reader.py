"""Histories as the models read them, event by event."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.data.columns import SIGNALS
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.histories import window


@pytest.fixture
def requests(reader) -> tuple[np.ndarray, np.ndarray]:
    """Every session, and the unknown user."""
    s = reader.store.sessions
    return np.append(s.user, 0), np.append(s.time_ms, reader.store.cuts.end_ms)


def plain(reader: EventReader, user: int, time_ms: int, n: int, *, engaged: bool) -> list[tuple]:
    """(video, signals, gap) of the latest n, oldest first, by a loop over all events."""
    e, out = reader.store.events, []
    for row in range(reader.store.counts.events):
        known, searched = e.known_ms[row] < time_ms, e.surface[row] == 1
        active = known and (e.click[row] or e.like[row] or e.follow[row] or e.forward[row])
        if not user or e.user[row] != user or e.time_ms[row] >= time_ms or (engaged and not active):
            continue
        play, duration = float(e.play_ms[row]), float(e.duration_ms[row])
        signals = [float(flag[row]) for flag in (e.click, e.like, e.follow, e.forward)]
        signals += [float(reader.long_play.label(e.play_ms[row], e.duration_ms[row]))]
        signals += [np.log1p(play / 1000) / 5, min(play / duration, 2) if duration else 0]
        signals = [number * known for number in signals] + [float(searched)]
        out.append((e.known_ms[row], int(e.video[row]), signals, (time_ms - int(e.time_ms[row])) / 1000))
    out = sorted(out, key=lambda event: event[0]) if engaged else out
    return [event[1:] for event in out][-n:]


@pytest.mark.parametrize("n", [1, 6, 40])
@pytest.mark.parametrize("engaged", [True, False])
def test_against_a_loop(engaged, n, reader, requests):
    got = (reader.engaged if engaged else reader.recent)(*requests, n)
    video, signals, gap = got.values()
    assert next(iter(got)) == ("history_BxH" if engaged else "recent_BxR")
    assert (video.dtype, signals.dtype, gap.dtype) == (np.int32, np.float32, np.float32)
    for b, (user, time_ms) in enumerate(zip(*requests, strict=True)):
        want = plain(reader, int(user), int(time_ms), n, engaged=engaged)
        pad = n - len(want)
        assert video[b].tolist() == [0] * pad + [row[0] for row in want]
        assert not signals[b, :pad].any()
        assert not gap[b, :pad].any()
        np.testing.assert_allclose(
            signals[b, pad:], np.array([row[1] for row in want]).reshape(-1, len(SIGNALS)), rtol=1e-6
        )
        np.testing.assert_allclose(gap[b, pad:], [row[2] for row in want], rtol=1e-6)
        assert (gap[b, pad:] > 0).all()


def test_a_view_that_is_still_watched_is_seen_without_its_outcome(reader, requests):
    """A view begun before the search, known after it: in the real-time window, every signal 0."""
    e = reader.store.events
    users, times = requests
    rows, signals = window(reader.store, users, times, 400), reader.recent(users, times, 400)["recent_signals_BxRxG"]
    open_BxR = (rows >= 0) & (e.known_ms[rows] >= times[:, None])
    assert not signals[open_BxR].any()
    known_BxR = (rows >= 0) & ~open_BxR
    np.testing.assert_array_equal(signals[known_BxR], reader.signals(rows[known_BxR]))
    assert e.click[rows[open_BxR]].sum() > 5  # clicks that a careless reader would have told too early


def test_both_channels_and_all_kinds_of_engagement_are_read(reader, requests):
    signals = reader.engaged(*requests, 40)["signals_BxHxG"]
    assert signals.reshape(-1, len(SIGNALS)).any(0).all()
    assert (signals[..., :4].any(-1) == signals.any(-1)).all()


def test_removing_the_future_changes_no_bit(reader, requests):
    for row in (5, 40, 79):
        user, time_ms = requests[0][row : row + 1], requests[1][row : row + 1]
        cut = EventReader(reader.store.truncated(int(time_ms[0])), reader.long_play)
        for read, other in ((reader.engaged, cut.engaged), (reader.recent, cut.recent)):
            for x, y in zip(read(user, time_ms, 9).values(), other(user, time_ms, 9).values(), strict=True):
                assert x.tobytes() == y.tobytes()


def test_no_events_at_all(reader):
    empty = EventReader(reader.store.truncated(0), reader.long_play)
    got = empty.engaged(np.array([1, 2]), np.full(2, 2**60), 4)
    assert got["signals_BxHxG"].shape == (2, 4, len(SIGNALS))
    assert not any(x.any() for x in got.values())
