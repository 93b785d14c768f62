"""Policies without a work directory: the random and oracle bounds, and the router that serves each arm."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pr2_jax.simulation.logging_policies import SearchRequests, SearchSystem, is_member
from pr2_jax.simulation.queries import interpret
from pr2_jax.simulation.world import World, WorldState

BLOCK = 64
"""Requests scored against the whole catalogue at once."""


@dataclasses.dataclass(frozen=True)
class RandomPolicy:
    """A random policy shows uploaded videos uniformly at random."""

    world: World

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        uploaded_V = np.flatnonzero(self.world.catalogue.upload_day_V <= requests.day)
        key_BxV = rng.random((len(requests.user_B), len(uploaded_V)), dtype=np.float32)
        best_BxS = np.argpartition(key_BxV, min(slate, len(uploaded_V) - 1), axis=1)[:, :slate]
        return uploaded_V[best_BxS].astype(np.int32)


@dataclasses.dataclass(frozen=True)
class OraclePolicy:
    """An oracle policy ranks the whole catalogue by the true click probability.

    It knows the day's interests and tastes and reads the words by them. The intent of the single search (a mood, an
    unsaid facet) stays hidden.
    """

    world: World
    state: WorldState  # as the day began

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        count = len(requests.user_B)
        blocks = np.split(np.arange(count), range(BLOCK, count, BLOCK))
        return np.concatenate([self._search_block(requests.take(rows), slate) for rows in blocks])

    def click_probability(self, requests: SearchRequests, video_BxK: np.ndarray) -> np.ndarray:
        """float [B, K]: P(click | examined); -1 for padding and for videos not uploaded yet or clicked before."""
        catalogue = self.world.catalogue
        users = self.state.users.take(requests.user_B)
        queries = interpret(self.world.vocabulary, requests.words_BxQ, users.interest_UxG)
        probability_BxK = self.world.attraction(users, queries, video_BxK)
        key_BxK = requests.user_B.astype(np.int64)[:, None] * len(catalogue) + video_BxK
        hidden_BxK = (catalogue.upload_day_V[video_BxK] > requests.day) | is_member(requests.engaged, key_BxK)
        return np.where(hidden_BxK | (video_BxK < 0), -1.0, probability_BxK)

    def _search_block(self, requests: SearchRequests, slate: int) -> np.ndarray:
        every_V = np.arange(len(self.world.catalogue), dtype=np.int32)
        score_BxV = self.click_probability(requests, np.broadcast_to(every_V, (len(requests.user_B), len(every_V))))
        best_BxS = np.argpartition(-score_BxV, slate - 1, axis=1)[:, :slate]
        order_BxS = np.argsort(-np.take_along_axis(score_BxV, best_BxS, 1), axis=1, kind="stable")
        return np.take_along_axis(best_BxS, order_BxS, 1).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class ArmRouter:
    """Routes each request to the system of the person's arm."""

    systems: Mapping[int, SearchSystem]  # by arm
    arm_U: np.ndarray

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        slates_BxS = np.full((len(requests.user_B), slate), -1, np.int32)
        rows = [np.flatnonzero(self.arm_U[requests.user_B] == arm) for arm in self.systems]

        def serve(system: SearchSystem, own: np.ndarray, own_rng: np.random.Generator) -> None:
            if len(own):
                slates_BxS[own] = system.search(requests.take(own), slate, own_rng)

        with ThreadPoolExecutor(len(self.systems)) as pool:  # NumPy releases the interpreter lock in most of it
            list(pool.map(serve, self.systems.values(), rows, rng.spawn(len(self.systems))))
        return slates_BxS
