"""Training batches. Each builder is a pure function of the step number: position in the data = step (training/loop.py).

Arrays are fresh memory every time: a device array may alias the NumPy buffer that it came from.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable

import numpy as np

from pr2_jax.config import ContentConfig, DataConfig, PdrConfig, QinConfig
from pr2_jax.data.batches.sessions import impressions_of, training_sessions
from pr2_jax.data.batches.slates import Slates
from pr2_jax.data.columns import FEED_SURFACE
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.video_attributes import query_words
from pr2_jax.data.outcomes import result_known_ms
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import BadInput

HostBatch = dict[str, np.ndarray]
Rows = slice | np.ndarray
ALL = slice(None)
"""Every row of a batch. With several processes each builds its own ascending rows; what a batch draws by chance is
always drawn whole, so that the shares of any number of processes make up the same batch."""
PreferenceOf = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(users [B], times [B]) -> the people just before those times in the preference space, [B, D]."""


class EpochOrder:
    """Shuffled passes over n rows, cut into batches of one size; the last rows of a pass open the next batch."""

    def __init__(self, n: int, batch: int, seed: int) -> None:
        self.n, self.batch, self._seed = n, batch, seed
        self._permutation = functools.lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, epoch]).permutation(self.n)

    def rows(self, step: int) -> np.ndarray:
        """The rows of a step, `[batch]`."""
        if not self.batch:
            return np.zeros(0, np.int64)
        position = np.arange(step * self.batch, (step + 1) * self.batch, dtype=np.int64)
        epoch, within = position // self.n, position % self.n
        return np.concatenate([self._permutation(int(e))[within[epoch == e]] for e in np.unique(epoch)])


def steps_for(rows: int, batch: int, epochs: float, max_steps: int) -> int:
    """Steps of a run, from counts: `epochs` passes, at most `max_steps`, at least one."""
    return max(1, min(max_steps, round(rows * epochs / batch)))


def _parts(rows: Rows, *sizes: int) -> list[np.ndarray]:
    """Of a batch that is made of parts of these sizes: which rows of each part are asked for."""
    place = np.arange(sum(sizes))[rows]
    first = np.cumsum((0, *sizes))
    return [place[(place >= a) & (place < b)] - a for a, b in itertools.pairwise(first)]


class ContentBatches:
    """(query, clicked video) pairs of training sessions and (caption words, video) pseudo-queries."""

    def __init__(
        self,
        store: LogStore,
        sessions_N: np.ndarray,
        caption_VxC: np.ndarray,
        config: ContentConfig,
        data: DataConfig,
    ) -> None:
        """BadInput where there is neither a click nor a caption to learn from."""
        self._store, self._caption, self._config, self._data = store, caption_VxC, config, data
        rows, owner = impressions_of(store, sessions_N)
        clicked = np.asarray(store.impressions.clicks)[rows] > 0
        self._video_P = np.asarray(store.impressions.video)[rows[clicked]]
        self._query_P = np.asarray(store.sessions.query)[sessions_N[owner[clicked]]]
        has_words = np.diff(np.asarray(store.queries.first_word))[self._query_P] > 0
        self._video_P, self._query_P = self._video_P[has_words], self._query_P[has_words]
        self._captioned = np.flatnonzero((caption_VxC > 0).any(1))
        if not len(self._video_P) and not len(self._captioned):
            raise BadInput("the training days hold no clicked search with words and no caption: nothing to learn from")
        batch = config.optim.batch
        share = config.caption_share if len(self._captioned) else 0.0
        self._pseudo = round(share * batch) if len(self._video_P) else batch
        self._order = EpochOrder(max(1, len(self._video_P)), batch - self._pseudo, config.optim.seed)

    @property
    def positives_N(self) -> np.ndarray:
        """Videos as they are drawn as positives: the unigram of logQ."""
        odds = self._pseudo / max(self._order.batch, 1)
        repeats = max(1, round(odds * len(self._video_P) / max(1, len(self._captioned))))
        return np.concatenate([self._video_P, np.repeat(self._captioned, repeats)])

    @property
    def steps(self) -> int:
        """Passes over the clicked pairs or, where they are more, over the captions."""
        optim, rows = self._config.optim, max(len(self._video_P), len(self._captioned))
        return steps_for(rows, self._order.batch or self._pseudo, optim.epochs, optim.max_steps)

    def __call__(self, step: int, rows: Rows = ALL) -> HostBatch:
        rng = np.random.default_rng([self._config.optim.seed, 1, step])
        clicked, pseudo = _parts(rows, self._order.batch, self._pseudo)
        pair = self._order.rows(step)[clicked]
        pseudo_video = rng.choice(self._captioned, self._pseudo) if self._pseudo else np.zeros(0, np.int64)
        words = [query_words(self._store, self._query_P[pair], self._data)]
        words.append(self._pseudo_queries(pseudo_video, pseudo, rng))
        return {
            "words_BxQ": np.concatenate(words),
            "video_B": np.concatenate([self._video_P[pair], pseudo_video[pseudo]]).astype(np.int32),
            "uniform_N": rng.integers(1, self._store.counts.videos, self._config.uniform_negatives, dtype=np.int32),
        }

    def _pseudo_queries(self, videos_B: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One to three words of the captions of these rows, drawn without replacement."""
        chance_BxC = rng.random((len(videos_B), self._caption.shape[1]))[rows]
        keep = rng.integers(1, 4, len(videos_B))[rows]
        caption_BxC = self._caption[videos_B[rows]]
        order = np.argsort(np.where(caption_BxC > 0, chance_BxC, 2.0), axis=1)
        width = self._data.query_tokens
        picked_BxQ = np.take_along_axis(caption_BxC, order[:, :width], axis=1)
        picked_BxQ = np.where(np.arange(picked_BxQ.shape[1])[None, :] < keep[:, None], picked_BxQ, 0)
        return np.pad(picked_BxQ, ((0, 0), (0, width - picked_BxQ.shape[1]))).astype(np.int32)


class PdrBatches:
    """Engaged events of the training days, from search and from the feed (whose query is empty)."""

    def __init__(
        self,
        reader: EventReader,
        query_vectors_NqxD: np.ndarray,
        preference: PreferenceOf,
        config: PdrConfig,
        data: DataConfig,
    ) -> None:
        store = self._store = reader.store
        self._reader, self._queries, self._config, self._data = reader, query_vectors_NqxD, config, data
        sessions = training_sessions(store)
        rows, owner = impressions_of(store, sessions)
        clicked = np.asarray(store.impressions.clicks)[rows] > 0
        self._session_P, self._search_video_P = owner[clicked], np.asarray(store.impressions.video)[rows[clicked]]
        self._search_weight_Px3 = _result_weights(reader, sessions[owner[clicked]], rows[clicked])
        self._hard_PxK: np.ndarray | None = None
        e = store.events
        long_play = reader.long_play.label(np.asarray(e.play_ms), np.asarray(e.duration_ms))
        engaged = np.asarray(e.click) | long_play | np.asarray(e.like)
        feed = (np.asarray(e.surface) == FEED_SURFACE) & (np.asarray(e.known_ms) < store.cuts.validation_ms) & engaged
        self._feed_P = np.flatnonzero(feed)
        self._feed_weight_Px3 = np.stack([e.click[self._feed_P], long_play[self._feed_P], e.like[self._feed_P]], 1)
        feed_rows = round(config.feed_share * config.optim.batch) if len(self._feed_P) else 0
        self._feed_order = EpochOrder(max(1, len(self._feed_P)), feed_rows, config.optim.seed + 1)
        self._order = EpochOrder(max(1, len(self._session_P)), config.optim.batch - feed_rows, config.optim.seed)
        self._people = _People(preference, len(self._session_P) + len(self._feed_P))

    def with_hard(self, hard_PxK: np.ndarray) -> PdrBatches:
        """The same with hard negatives for each search positive, `[P, K]` (0 = none)."""
        other = copy.copy(self)
        other._hard_PxK = hard_PxK
        return other

    @property
    def positives_N(self) -> np.ndarray:
        """Videos as they are drawn as positives: the unigram of logQ."""
        return np.concatenate([self._search_video_P, np.asarray(self._store.events.video)[self._feed_P]])

    @property
    def search_positives(self) -> tuple[np.ndarray, np.ndarray]:
        """Session row and video of every search positive, in the order of `hard_PxK`."""
        return self._session_P, self._search_video_P

    @property
    def steps(self) -> int:
        optim = self._config.optim
        return steps_for(len(self._session_P), self._order.batch, optim.epochs, optim.max_steps)

    def __call__(self, step: int, rows: Rows = ALL) -> HostBatch:
        rng = np.random.default_rng([self._config.optim.seed, 2, step])
        store, c = self._store, self._config
        searched, viewed = _parts(rows, self._order.batch, self._feed_order.batch)
        whole = self._order.rows(step)
        positive, view = whole[searched], self._feed_order.rows(step)[viewed]
        session, feed = self._session_P[positive], self._feed_P[view]
        e, blank = store.events, np.zeros(len(feed), np.int64)
        user = np.concatenate([np.asarray(store.sessions.user)[session], e.user[feed]])
        time_ms = np.concatenate([np.asarray(store.sessions.time_ms)[session], e.time_ms[feed]])
        query = np.concatenate([np.asarray(store.sessions.query)[session], blank])
        weight = np.concatenate([self._search_weight_Px3[positive], self._feed_weight_Px3[view]])
        hard = np.zeros((len(user), 0 if self._hard_PxK is None else c.hard_negatives), np.int32)
        if self._hard_PxK is not None:
            pool = self._hard_PxK[positive]
            pick = rng.integers(0, pool.shape[1], (len(whole), c.hard_negatives))[searched]
            hard[: len(session)] = np.take_along_axis(pool, pick, axis=1)
        video = np.concatenate([self._search_video_P[positive], e.video[feed]])
        chance = rng.random(len(whole))[searched]
        return {
            "words_BxQ": query_words(store, query, self._data),
            "query_content_BxD": self._queries[query],
            "profile_BxP": np.asarray(store.users.profile)[user],
            "preference_BxD": self._people(np.concatenate([positive, len(self._session_P) + view]), user, time_ms),
            "video_B": video.astype(np.int32),
            "shown_B": np.concatenate([self._shown(session, chance), blank]).astype(np.int32),
            "uniform_N": rng.integers(1, store.counts.videos, c.uniform_negatives, dtype=np.int32),
            "hard_BxK": hard,
            "weight_Bx3": weight.astype(np.float32),
            "session_B": np.concatenate([session, -1 - viewed]).astype(np.int32),
            **self._reader.engaged(user, time_ms, c.history),
        }

    def _shown(self, session_B: np.ndarray, chance_B: np.ndarray) -> np.ndarray:
        """One result of each session, clicked or not: the engine held it relevant."""
        first = np.asarray(self._store.sessions.first_impression)
        length = first[session_B + 1] - first[session_B]
        pick = first[session_B] + (chance_B * length).astype(np.int64)
        return np.asarray(self._store.impressions.video)[pick]


def _result_weights(reader: EventReader, session_P: np.ndarray, row_P: np.ndarray) -> np.ndarray:
    """float `[P, 3]` of clicked results: the click, and where the log tells what came of it before the validation day,
    long play and like."""
    store, i = reader.store, reader.store.impressions
    weight_Px3 = np.tile([[1.0, 0.0, 0.0]], (len(row_P), 1))
    if i.told is not None:
        play, duration, told = (np.asarray(x)[row_P] for x in (i.play_ms, i.duration_ms, i.told))
        known_ms_P = result_known_ms(np.asarray(store.sessions.time_ms)[session_P], play, duration, told)
        known = known_ms_P < store.cuts.validation_ms
        weight_Px3[:, 1] = reader.long_play.label(play, duration) & known
        weight_Px3[:, 2] = np.asarray(i.like)[row_P] & known
    return weight_Px3


class _People:
    """Preference vectors of the people behind N training rows, each computed when a batch first asks for it.

    A vector is a sum over up to a thousand events, and every pass asks for the same ones: with all of them computed for
    every batch this is nine tenths of the time that building one takes.
    """

    def __init__(self, preference: PreferenceOf, rows: int) -> None:
        self._preference, self._known_N = preference, np.zeros(rows, bool)
        self._vector_NxD: np.ndarray | None = None

    def __call__(self, row_B: np.ndarray, user_B: np.ndarray, time_ms_B: np.ndarray) -> np.ndarray:
        new_B = ~self._known_N[row_B]
        if new_B.any() or self._vector_NxD is None:
            found = self._preference(user_B[new_B], time_ms_B[new_B])
            if self._vector_NxD is None:
                self._vector_NxD = np.empty((len(self._known_N), found.shape[1]), np.float32)
            self._vector_NxD[row_B[new_B]] = found
            self._known_N[row_B] = True
        return self._vector_NxD[row_B]


class SlateReader:
    """The request side of slates: everything that the ranker reads but the results' features."""

    def __init__(
        self, reader: EventReader, query_vectors_NqxD: np.ndarray | None, config: QinConfig, data: DataConfig
    ) -> None:
        """Without `query_vectors_NqxD` for live requests alone."""
        self._reader, self._queries, self._config, self._data = reader, query_vectors_NqxD, config, data

    def __call__(self, user_B: np.ndarray, time_ms_B: np.ndarray, query_B: np.ndarray) -> HostBatch:
        """Requests whose query is a row of the store."""
        words = query_words(self._reader.store, query_B, self._data)
        return self.live(user_B, time_ms_B, words, self._queries[query_B])

    def live(
        self, user_B: np.ndarray, time_ms_B: np.ndarray, words_BxQ: np.ndarray, content_BxD: np.ndarray
    ) -> HostBatch:
        """Requests with any query."""
        c = self._config
        batch = {
            "words_BxQ": words_BxQ,
            "query_content_BxD": content_BxD,
            "profile_BxP": np.asarray(self._reader.store.users.profile)[user_B],
        }
        if c.personal:
            batch |= self._reader.engaged(user_B, time_ms_B, c.history)
            if c.realtime:
                batch |= self._reader.recent(user_B, time_ms_B, c.realtime)
        return batch


class QinBatches:
    """Slates of search results and of feed views, mixed in fixed shares."""

    def __init__(
        self,
        requests: SlateReader,
        search: Slates,
        search_features: np.ndarray,
        feed: Slates,
        feed_features: np.ndarray,
        config: QinConfig,
    ) -> None:
        self._requests, self._config = requests, config
        self._parts = [(search, search_features), (feed, feed_features)]
        feed_rows = round(config.feed_share * config.optim.batch) if len(feed) else 0
        sizes = [config.optim.batch - feed_rows, feed_rows]
        self._orders = [
            EpochOrder(max(1, len(part)), size, config.optim.seed + n)
            for n, ((part, _), size) in enumerate(zip(self._parts, sizes, strict=True))
        ]

    @property
    def steps(self) -> int:
        optim = self._config.optim
        return steps_for(len(self._parts[0][0]), self._orders[0].batch, optim.epochs, optim.max_steps)

    def __call__(self, step: int, rows: Rows = ALL) -> HostBatch:
        asked = _parts(rows, *(order.batch for order in self._orders))
        picked = [
            (slates, features, order.rows(step)[part])
            for (slates, features), order, part in zip(self._parts, self._orders, asked, strict=True)
            if order.batch
        ]

        def column(name: str) -> np.ndarray:
            return np.concatenate([getattr(slates, name)[mine] for slates, _, mine in picked])

        batch = self._requests(column("user_N"), column("time_ms_N"), column("query_N"))
        return batch | {
            "is_feed_B": column("is_feed_N").astype(np.float32),
            "video_BxS": column("video_NxS"),
            "position_BxS": column("position_NxS"),
            "label_BxSxT": column("label_NxSxT"),
            "weight_BxSxT": column("weight_NxSxT"),
            "features_BxSxF": np.concatenate([features[mine] for _, features, mine in picked]),
        }
