"""Systems that serve by themselves, without a work directory: the bounds of every comparison, and who asks whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pr2_jax.simulation.logging_policies import SearchRequests, SearchSystem, is_member
from pr2_jax.simulation.queries import interpret
from pr2_jax.simulation.users import attraction
from pr2_jax.simulation.world import World, WorldState

BLOCK = 64
"""Requests that meet the whole catalogue at once."""


@dataclasses.dataclass(frozen=True)
class RandomPolicy:
    """Videos drawn by chance from all that are out."""

    world: World

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        out_V = np.flatnonzero(self.world.catalogue.upload_day_V <= requests.day)
        key_BxV = rng.random((len(requests.user_B), len(out_V)), dtype=np.float32)
        return out_V[np.argpartition(key_BxV, min(slate, len(out_V) - 1), axis=1)[:, :slate]].astype(np.int32)


@dataclasses.dataclass
class OraclePolicy:
    """Who knows people's tastes of today and what words mean to them, and ranks by the chance of a click.

    It reads words as a person with these interests means them; what is in the head of this very search (a mood, a facet
    left unsaid) it does not know. `state` is set before each day.
    """

    world: World
    state: WorldState | None = None

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        parts = [
            self._block(requests.take(np.arange(n, min(n + BLOCK, len(requests.user_B)))), slate)
            for n in range(0, len(requests.user_B), BLOCK)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, slate), np.int32)

    def chance(self, requests: SearchRequests, video_BxK: np.ndarray) -> np.ndarray:
        """float [B, K]: of a click on each video, once it is looked at; -1 for what is not out or was clicked before,
        and where `video_BxK` is -1."""
        world, catalogue = self.world, self.world.catalogue
        users = self.state.users.take(requests.user_B)
        queries = interpret(world.vocabulary, requests.words_BxQ, users.interest_UxG)
        chance_BxK = attraction(world.config.people, catalogue, world.vocabulary, users, queries, video_BxK)
        key_BxK = requests.user_B.astype(np.int64)[:, None] * len(catalogue) + video_BxK
        gone_BxK = (catalogue.upload_day_V[video_BxK] > requests.day) | is_member(requests.engaged, key_BxK)
        return np.where(gone_BxK | (video_BxK < 0), -1.0, chance_BxK)

    def _block(self, requests: SearchRequests, slate: int) -> np.ndarray:
        every_V = np.arange(len(self.world.catalogue), dtype=np.int32)
        score_BxV = self.chance(requests, np.broadcast_to(every_V, (len(requests.user_B), len(every_V))))
        best_BxS = np.argpartition(-score_BxV, slate - 1, axis=1)[:, :slate]
        order_BxS = np.argsort(-np.take_along_axis(score_BxV, best_BxS, 1), axis=1, kind="stable")
        return np.take_along_axis(best_BxS, order_BxS, 1).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class ArmRouter:
    """Each person is served by the system of their arm."""

    systems: Mapping[int, SearchSystem]  # by arm
    arm_U: np.ndarray

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        slates_BxS = np.full((len(requests.user_B), slate), -1, np.int32)
        streams = rng.spawn(len(self.systems))  # one arm's draws are not another's
        rows = [np.flatnonzero(self.arm_U[requests.user_B] == arm) for arm in self.systems]
        asked = [(*one, own) for *one, own in zip(self.systems.values(), rows, streams, strict=True) if len(one[1])]
        with ThreadPoolExecutor(max(len(asked), 1)) as pool:  # most of it is array work, which does not hold the others
            answers = pool.map(lambda one: one[0].search(requests.take(one[1]), slate, one[2]), asked)
            for (_, own_rows, _), found_BxS in zip(asked, answers, strict=True):
                slates_BxS[own_rows] = found_BxS
        return slates_BxS
