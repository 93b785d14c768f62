"""The finished work directory and its world, at the end of the log."""

from __future__ import annotations

import pytest

from pr2_jax.abtest.population import Replay
from pr2_jax.search.system import System, open_system
from pr2_jax.simulation.world import World


@pytest.fixture(scope="session")
def system(finished) -> System:
    return open_system(finished)


@pytest.fixture(scope="session")
def ground(system) -> Replay:
    return Replay.of(World.build(system.config.world), system.log.reader.long_play.label)
