"""Training batches as pure functions of the step number, so that a resumed run sees the same data (training/loop.py).

Every call allocates new arrays, because a device array may alias the NumPy buffer that it came from.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Protocol

import numpy as np

from pr2_jax.config import LABELS, ContentConfig, DataConfig, PdrConfig, QinConfig
from pr2_jax.data.batches.sessions import impressions_of, training_sessions
from pr2_jax.data.batches.slates import Slates
from pr2_jax.data.batches.training_length import TrainingLength
from pr2_jax.data.columns import FEED_SURFACE
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.labels import columns_of, labels_of
from pr2_jax.data.history.video_attributes import query_words
from pr2_jax.data.outcomes import result_known_ms
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import BadInput

HostBatch = dict[str, np.ndarray]
Rows = slice | np.ndarray
ALL = slice(None)
"""Every row of a batch. Of several processes each builds some ascending rows. Random numbers are drawn for the whole
batch, so that any number of processes builds the same batch."""


class EpochOrder:
    """Shuffled passes over n rows, cut into equal batches; the last rows of a pass open the next batch."""

    def __init__(self, n: int, batch: int, seed: int) -> None:
        self.n, self.batch, self._seed = n, batch, seed
        self._permutation = functools.lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, epoch]).permutation(self.n)

    def rows(self, step: int) -> np.ndarray:
        if not self.batch:
            return np.zeros(0, np.int64)
        position = np.arange(step * self.batch, (step + 1) * self.batch, dtype=np.int64)
        epoch, within = position // self.n, position % self.n
        return np.concatenate([self._permutation(int(e))[within[epoch == e]] for e in np.unique(epoch)])


def _parts(rows: Rows, *sizes: int) -> list[np.ndarray]:
    """Splits rows of a batch that consists of parts of these sizes: the rows within each part."""
    place = np.arange(sum(sizes))[rows]
    first = np.cumsum((0, *sizes))
    return [place[(place >= a) & (place < b)] - a for a, b in itertools.pairwise(first)]


class ContentBatches:
    """Batches of (query, clicked video) pairs and of pseudo-queries (caption words, video)."""

    def __init__(
        self, store: LogStore, sessions_N: np.ndarray, caption_VxC: np.ndarray, config: ContentConfig, data: DataConfig
    ) -> None:
        """BadInput if there is neither a click nor a caption to learn from."""
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
        """Videos in the proportions in which they are positives, for the logQ correction."""
        odds = self._pseudo / max(self._order.batch, 1)
        repeats = max(1, round(odds * len(self._video_P) / max(1, len(self._captioned))))
        return np.concatenate([self._video_P, np.repeat(self._captioned, repeats)])

    @property
    def length(self) -> TrainingLength:
        rows = max(len(self._video_P), len(self._captioned))
        return TrainingLength.in_batches(rows, self._order.batch or self._pseudo, self._config.optim)

    def __call__(self, step: int, rows: Rows = ALL) -> HostBatch:
        rng = np.random.default_rng([self._config.optim.seed, 1, step])
        clicked, pseudo = _parts(rows, self._order.batch, self._pseudo)
        pair = self._order.rows(step)[clicked]
        pseudo_video = rng.choice(self._captioned, self._pseudo) if self._pseudo else np.zeros(0, np.int64)
        words = query_words(self._store, self._query_P[pair], self._data)
        return {
            "words_BxQ": np.concatenate([words, self._pseudo_queries(pseudo_video, pseudo, rng)]),
            "video_B": np.concatenate([self._video_P[pair], pseudo_video[pseudo]]).astype(np.int32),
            "uniform_N": rng.integers(1, self._store.counts.videos, self._config.uniform_negatives, dtype=np.int32),
        }

    def _pseudo_queries(self, videos_B: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One to three caption words of each of these rows, drawn without replacement."""
        chance_BxC = rng.random((len(videos_B), self._caption.shape[1]))[rows]
        keep = rng.integers(1, 4, len(videos_B))[rows]
        caption_BxC = self._caption[videos_B[rows]]
        order = np.argsort(np.where(caption_BxC > 0, chance_BxC, 2.0), axis=1)
        width = self._data.query_tokens
        picked_BxQ = np.take_along_axis(caption_BxC, order[:, :width], axis=1)
        picked_BxQ = np.where(np.arange(picked_BxQ.shape[1])[None, :] < keep[:, None], picked_BxQ, 0)
        return np.pad(picked_BxQ, [(0, 0), (0, width - picked_BxQ.shape[1])]).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Positives:
    """Positives of PDR: P engaged events of the training days, clicked results first, then feed views."""

    session_S: np.ndarray  # session row of each clicked result
    event_F: np.ndarray  # event row of each feed view
    user_P: np.ndarray
    time_ms_P: np.ndarray
    video_P: np.ndarray
    feedback_PxT: np.ndarray  # bool: labels of `PdrConfig.feedback_heads`, False if not known in time

    @classmethod
    def of(cls, reader: EventReader, config: PdrConfig) -> Positives:
        """A feed view is a positive if it has any of the labels."""
        store, e = reader.store, reader.store.events
        use = columns_of(head.label for head in config.feedback_heads)
        sessions = training_sessions(store)
        row, owner = impressions_of(store, sessions)
        clicked = np.asarray(store.impressions.clicks)[row] > 0
        session, row = sessions[owner[clicked]], row[clicked]
        early = (np.asarray(e.surface) == FEED_SURFACE) & (np.asarray(e.known_ms) < store.cuts.validation_ms)
        event = np.flatnonzero(early)
        feed_FxT = labels_of(e, event, reader.long_play)[:, use]
        event, feed_FxT = event[feed_FxT.any(1)], feed_FxT[feed_FxT.any(1)]
        s = store.sessions
        pairs = ((s.user, e.user), (s.time_ms, e.time_ms))
        user_P, time_ms_P = (np.concatenate([np.asarray(a)[session], np.asarray(b)[event]]) for a, b in pairs)
        video_P = np.concatenate([np.asarray(store.impressions.video)[row], np.asarray(e.video)[event]])
        results_SxT = _result_labels(reader, session, row)[:, use]
        return cls(session, event, user_P, time_ms_P, video_P, np.concatenate([results_SxT, feed_FxT]))

    def __len__(self) -> int:
        return len(self.user_P)

    @property
    def searches(self) -> int:
        """Number of clicked results."""
        return len(self.session_S)


def _result_labels(reader: EventReader, session_N: np.ndarray, row_N: np.ndarray) -> np.ndarray:
    """Labels of clicked results, bool `[N, Y]`: the click, and others if known in time."""
    store, i = reader.store, reader.store.impressions
    label_NxY = labels_of(i, row_N, reader.long_play)
    if i.told is not None:
        play, duration, told = (np.asarray(x)[row_N] for x in (i.play_ms, i.duration_ms, i.told))
        known_ms_N = result_known_ms(np.asarray(store.sessions.time_ms)[session_N], play, duration, told)
        known_Nx1 = (known_ms_N < store.cuts.validation_ms)[:, None]
        label_NxY &= known_Nx1 | (np.array(LABELS) == "click")
    return label_NxY


@dataclasses.dataclass(frozen=True)
class HardNegatives:
    """Hard negatives of the searches that were mined. Row 0 is nobody's and empty: no hard negative."""

    video_MxK: np.ndarray  # int32 video rows, 0 = none
    row_S: np.ndarray  # the row of each clicked result, 0 where its search was not mined

    def of(self, clicked: np.ndarray) -> np.ndarray:
        """`[B, K]` of some clicked results."""
        return self.video_MxK[self.row_S[clicked]]


class PdrBatches:
    """Batches of positives from search and from the feed, whose query is empty, in fixed shares."""

    def __init__(
        self,
        reader: EventReader,
        positives: Positives,
        query_vectors_NqxD: np.ndarray,
        preference_PxD: np.ndarray,
        config: PdrConfig,
        data: DataConfig,
        hard: HardNegatives | None = None,
    ) -> None:
        """`preference_PxD`: preference embeddings of the people just before the positives."""
        self._reader, self._positives, self._config, self._data = reader, positives, config, data
        self._queries, self._preference, self._hard = query_vectors_NqxD, preference_PxD, hard
        feed, optim = len(positives.event_F), config.optim
        feed_rows = round(config.feed_share * optim.batch) if feed else 0
        self._feed_order = EpochOrder(max(1, feed), feed_rows, optim.seed + 1)
        self._order = EpochOrder(max(1, positives.searches), optim.batch - feed_rows, optim.seed)

    @property
    def length(self) -> TrainingLength:
        return TrainingLength.in_batches(self._positives.searches, self._order.batch, self._config.optim)

    def __call__(self, step: int, rows: Rows = ALL) -> HostBatch:
        rng = np.random.default_rng([self._config.optim.seed, 2, step])
        store, p, c = self._reader.store, self._positives, self._config
        searched, viewed = _parts(rows, self._order.batch, self._feed_order.batch)
        whole = self._order.rows(step)
        clicked, view = whole[searched], self._feed_order.rows(step)[viewed]
        row = np.concatenate([clicked, p.searches + view])
        session, nothing = p.session_S[clicked], np.zeros(len(view), np.int64)
        user, time_ms = p.user_P[row], p.time_ms_P[row]
        query = np.concatenate([np.asarray(store.sessions.query)[session], nothing])
        hard = np.zeros((len(user), 0 if self._hard is None else c.hard_negatives), np.int32)
        if self._hard is not None:
            pool = self._hard.of(clicked)
            pick = rng.integers(0, pool.shape[1], (len(whole), c.hard_negatives))[searched]
            hard[: len(session)] = np.take_along_axis(pool, pick, axis=1)
        chance = rng.random(len(whole))[searched]
        return {
            "words_BxQ": query_words(store, query, self._data),
            "query_content_BxD": self._queries[query],
            "profile_BxP": np.asarray(store.users.profile)[user],
            "preference_BxD": np.asarray(self._preference[row]),
            "video_B": p.video_P[row].astype(np.int32),
            "shown_B": np.concatenate([self._shown(session, chance), nothing]).astype(np.int32),
            "uniform_N": rng.integers(1, store.counts.videos, c.uniform_negatives, dtype=np.int32),
            "hard_BxK": hard,
            "feedback_BxT": p.feedback_PxT[row].astype(np.float32),
            "session_B": np.concatenate([session, -1 - viewed]).astype(np.int32),
            **self._reader.engaged(user, time_ms, c.history),
        }

    def _shown(self, session_B: np.ndarray, chance_B: np.ndarray) -> np.ndarray:
        """A random result of each session, clicked or not: the engine ranked it as relevant."""
        store = self._reader.store
        first = np.asarray(store.sessions.first_impression)
        length = first[session_B + 1] - first[session_B]
        pick = first[session_B] + (chance_B * length).astype(np.int64)
        return np.asarray(store.impressions.video)[pick]


class SlateReader:
    """Requests as rankers read them: all inputs but the results and their features."""

    def __init__(
        self, reader: EventReader, query_vectors_NqxD: np.ndarray | None, config: QinConfig, data: DataConfig
    ) -> None:
        """`query_vectors_NqxD`: not needed for `live`."""
        self._reader, self._queries, self._config, self._data = reader, query_vectors_NqxD, config, data

    def __call__(self, user_B: np.ndarray, time_ms_B: np.ndarray, query_B: np.ndarray) -> HostBatch:
        """Requests by query rows of the store."""
        words = query_words(self._reader.store, query_B, self._data)
        return self.live(user_B, time_ms_B, words, self._queries[query_B])

    def live(
        self, user_B: np.ndarray, time_ms_B: np.ndarray, words_BxQ: np.ndarray, content_BxD: np.ndarray
    ) -> HostBatch:
        """Requests by query words and vectors."""
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


class FeatureRows(Protocol):
    """Ranking features `[N, S, F]` that are read by rows, from an array or from a file."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


class QinBatches:
    """Batches of search slates and feed slates in fixed shares."""

    def __init__(
        self,
        requests: SlateReader,
        search: Slates,
        search_features: FeatureRows,
        feed: Slates,
        feed_features: FeatureRows,
        config: QinConfig,
    ) -> None:
        self._requests, self._config = requests, config
        self._parts = [(search, search_features), (feed, feed_features)]
        self._labels = columns_of(head.label for head in config.prediction_heads)
        feed_rows = round(config.feed_share * config.optim.batch) if len(feed) else 0
        sizes = [config.optim.batch - feed_rows, feed_rows]
        self._orders = [
            EpochOrder(max(1, len(part)), size, config.optim.seed + n)
            for n, ((part, _), size) in enumerate(zip(self._parts, sizes, strict=True))
        ]

    @property
    def length(self) -> TrainingLength:
        return TrainingLength.in_batches(len(self._parts[0][0]), self._orders[0].batch, self._config.optim)

    def __call__(self, step: int, rows: Rows = ALL) -> HostBatch:
        shares = _parts(rows, *(order.batch for order in self._orders))
        picked = [
            (slates, features, order.rows(step)[share])
            for (slates, features), order, share in zip(self._parts, self._orders, shares, strict=True)
            if order.batch
        ]

        def column(name: str) -> np.ndarray:
            return np.concatenate([getattr(slates, name)[mine] for slates, _, mine in picked])

        batch = self._requests(column("user_N"), column("time_ms_N"), column("query_N"))
        return batch | {
            "is_feed_B": column("is_feed_N").astype(np.float32),
            "video_BxS": column("video_NxS"),
            "position_BxS": column("position_NxS"),
            "label_BxSxT": np.take(column("label_NxSxY"), self._labels, -1).astype(np.float32),
            "weight_BxSxT": np.take(column("told_NxSxY"), self._labels, -1).astype(np.float32),
            "features_BxSxF": np.concatenate([features[mine] for _, features, mine in picked]),
        }
