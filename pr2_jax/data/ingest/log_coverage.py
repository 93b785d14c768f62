"""Reports what a log lacks and what can therefore not be learned, for ingest and for the report."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.batches.sessions import impressions_of, training_sessions
from pr2_jax.data.columns import FEED_SURFACE, TOLD_BY
from pr2_jax.data.store.log_store import LogStore


def labels_told(store: LogStore) -> dict[str, bool]:
    """By label: does a row of the training days tell it?"""
    told = _told(store)
    out = {label: any((bits & bit).any() for bits in told) for label, bit in TOLD_BY.items()}
    return out | {"click": True}  # shown results are clicked or not: no log is without


def _told(store: LogStore) -> list[np.ndarray]:
    """uint8: what is known of each feed view, and of each shown result, of the training days."""
    e, parts = store.events, []
    viewed_E = (np.asarray(e.surface) == FEED_SURFACE) & (np.asarray(e.time_ms) < store.cuts.validation_ms)
    for columns, rows in ((e, viewed_E), (store.impressions, impressions_of(store, training_sessions(store))[0])):
        if columns.told is not None:
            parts.append(np.asarray(columns.told)[rows])
    return parts


def lacks(store: LogStore) -> list[str]:
    """Sentences for people, none where nothing is lacking."""
    return [*_of_feed(store), *_of_attributes(store), *_of_searches(store)]


def _of_feed(store: LogStore) -> list[str]:
    told, e = labels_told(store), store.events
    feed_E = np.asarray(e.surface) == FEED_SURFACE
    if not feed_E.any():
        out = ["no feed views: the preference space is empty, people are known by their searches and clicks alone"]
    elif not (feed_E & (np.asarray(e.time_ms) < store.cuts.validation_ms)).any():
        out = ["no feed views on the training days: the preference space is empty"]
    elif not np.asarray(e.told)[feed_E].any():
        out = ["feed views without playing time, click, like, follow or forward: nothing is learned from the feed"]
    else:
        out = []
    if not (told["long_play"] or told["like"]):
        return [*out, "no long plays and no likes: only clicks are learned"]
    if not told["long_play"]:
        out.append("no long plays (no row has a playing time and a duration): that head is not trained")
    if not told["like"]:
        out.append("no likes: that head is not trained")
    return out


def _of_attributes(store: LogStore) -> list[str]:
    out, videos = [], store.videos
    if not np.any(store.users.profile):
        out.append("no user features: no model knows a profile")
    captions, categories, authors = (bool(np.any(x)) for x in (videos.words, videos.category, videos.author))
    brought = videos.content is not None and bool(np.any(videos.content))
    if not (captions or categories or authors or brought):
        out.append(
            "no captions, authors, categories or content vectors: BM25 and content vectors find nothing, a video is "
            "known by who clicked it and for which query"
        )
    elif not captions:
        out.append("no captions: BM25 finds nothing, words are learned from clicks alone")
    elif not (categories or authors):
        out.append("no authors and no categories: videos have nothing in common but words and people")
    if not np.any(videos.upload_ms):
        out.append("no upload times: the age of a video is not known")
    return out


def _of_searches(store: LogStore) -> list[str]:
    out = []
    if not np.diff(np.asarray(store.queries.first_word)).any():
        out.append("no query has words: searches are answered by preference and by what is popular")
    clicks = np.asarray(store.impressions.clicks)
    if len(clicks) and (clicks > 0).all():
        out.append(
            "every shown result was clicked: rankers learn from drawn negatives alone, and neither the order among "
            "shown results nor the rate of clicks can be judged"
        )
    return out
