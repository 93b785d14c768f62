"""Models made anew: from the arm's own people and days, and only the last time counts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pr2_jax.abtest.retraining import RetrainedSystems

ARMS = {"base": 0, "+qrcf": 1}
ALIKE, EVERY = 1, 2


@dataclasses.dataclass
class Retrained:
    """Keeps what it should have trained on, and gives back the system that there is."""

    system: object
    times: dict[str, tuple[set[int], set[int]]] = dataclasses.field(default_factory=dict)

    def __call__(self, place: Path, write):
        write(place / "tables")
        searches = pl.read_csv(place / "tables" / "src_inter.csv")
        views = pl.read_csv(place / "tables" / "rec_inter.csv")
        self.times[place.name] = (set(searches["search_session_id"].to_list()), set(views["user_id"].to_list()))
        return self.system


@pytest.fixture(scope="module")
def days(ground):
    """Five days after the log."""
    state, logs = ground.state, []
    for _ in range(5):
        state, log = ground.world.step_day(state)
        logs.append(log)
    return logs


def platforms(system, ground, place) -> tuple[RetrainedSystems, Retrained, np.ndarray]:
    retrained, arm_U = Retrained(system), np.arange(len(ground.world.users)) % 2
    knobs = {"past": ground.logs, "alike": ALIKE, "every": EVERY, "directory": place, "retrain": retrained}
    return RetrainedSystems(system, ground.world, arm_U, ARMS, **knobs), retrained, arm_U


def test_trained_on_the_past_and_the_arms_own_people(system, ground, days, tmp_path):
    refreshed, retrained, arm_U = platforms(system, ground, tmp_path)
    times = []
    for log in days:
        for arm in ARMS:
            refreshed.served(arm)
        times.append(sorted(retrained.times))
        refreshed.add(log)
    for arm in ARMS:
        refreshed.served(arm)
    assert times == [[], [], [], ["base.003", "qrcf.003"], ["base.003", "qrcf.003"]]
    assert sorted(retrained.times) == ["base.003", "base.005", "qrcf.003", "qrcf.005"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.005", "qrcf.005"]
    for arm, number in ARMS.items():
        sessions, viewers = retrained.times[f"{arm.strip('+')}.003"]
        own = [s for log in ground.logs for s in log.searches.session_B.tolist()]
        own += days[0].searches.session_B.tolist()
        for log in days[1:3]:
            own += log.searches.session_B[arm_U[log.searches.user_B] == number].tolist()
        assert sessions == set(own)
        assert viewers <= set(ground.world.users.raw_id_U.tolist())


def test_carried_on_trains_the_last_time_alone(system, ground, days, tmp_path):
    refreshed, retrained, _ = platforms(system, ground, tmp_path)
    for log in days:
        refreshed.add(log)  # what a lane does with the days that are finished already
    refreshed.served("base")
    assert sorted(retrained.times) == ["base.005"]
    logged = refreshed._platforms["base"]._log.store()
    others = refreshed._platforms["+qrcf"]._log.store()
    assert logged.counts.sessions < others.counts.sessions or logged.counts.sessions == system.store.counts.sessions
