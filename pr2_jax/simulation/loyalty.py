"""Loyalty model: people visit, search and leave by how the joy of their searches compares with their expectation.

    joy of a need  = (1 - exp(-minutes watched / watch_minutes)) + like_joy * [liked]
                     - skip_cost * results examined but not clicked - retry_cost * reformulations
    satisfaction   <- a running mean of joy; expectation follows slowly; surprise = satisfaction - expectation
    logit P(visit) = logit(own share of days) + visit_weight * surprise + habit_weight * (habit - own share)
    searches       ~ Poisson(own rate a visit * exp(search_weight * surprise))
    P(leaves)      = leave_rate * exp(-leave_weight * surprise), on a visit

Expectation settles between the joy here and the joy elsewhere. So one part of a change in quality wears off (novelty),
and the other part lasts. All [ours]. The model does not know which system serves.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import expit, logit

from pr2_jax.config import LoyaltyConfig
from pr2_jax.simulation.users import Users

MOST_EAGER = 4.0
"""Searches a visit grow and fall by this factor at most."""


@dataclasses.dataclass(frozen=True)
class Loyalty:
    """Loyalty state of U people."""

    satisfaction_U: np.ndarray  # float64, running mean of joy
    expectation_U: np.ndarray  # float64
    habit_U: np.ndarray  # float64 in [0, 1], recent share of days with a visit
    left_U: np.ndarray  # bool

    @staticmethod
    def start(config: LoyaltyConfig, users: Users) -> Loyalty:
        """The steady state under the quality found elsewhere."""
        joy_U = np.full(len(users), config.elsewhere_joy)
        return Loyalty(joy_U, joy_U, users.visit_U, np.zeros(len(users), bool))

    @property
    def surprise_U(self) -> np.ndarray:
        return self.satisfaction_U - self.expectation_U


def visit_chance(config: LoyaltyConfig, users: Users, loyalty: Loyalty) -> np.ndarray:
    """float64 [U]: P(opens the app today)."""
    pull_U = config.visit_weight * loyalty.surprise_U + config.habit_weight * (loyalty.habit_U - users.visit_U)
    return np.where(loyalty.left_U, 0.0, expit(logit(users.visit_U) + pull_U))


def searches_a_visit(config: LoyaltyConfig, users: Users, loyalty: Loyalty) -> np.ndarray:
    """float64 [U]: expected needs to search on a visit."""
    eager_U = np.exp(config.search_weight * loyalty.surprise_U)
    return users.search_rate_U / users.visit_U * np.clip(eager_U, 1 / MOST_EAGER, MOST_EAGER)


def joy(
    config: LoyaltyConfig, watched_ms_N: np.ndarray, liked_N: np.ndarray, passed_N: np.ndarray, retries_N: np.ndarray
) -> np.ndarray:
    """float64 [N]: joy of needs. `passed_N`: results examined but not clicked; `retries_N`: reformulations."""
    minutes_N = watched_ms_N / 60_000
    effort_N = config.skip_cost * passed_N + config.retry_cost * retries_N
    return 1 - np.exp(-minutes_N / config.watch_minutes) + config.like_joy * liked_N - effort_N


def tomorrow(
    config: LoyaltyConfig,
    loyalty: Loyalty,
    visited_U: np.ndarray,
    user_N: np.ndarray,
    joy_N: np.ndarray,
    draw_U: np.ndarray,
) -> Loyalty:
    """The state a day later. `user_N`, `joy_N`: the day's needs; `draw_U`: a draw in [0, 1) for each person."""
    people = len(visited_U)
    needs_U = np.bincount(user_N, minlength=people)
    mean_U = np.bincount(user_N, joy_N, people) / np.maximum(needs_U, 1)
    learnt_U = 1 - 0.5 ** (needs_U / config.satisfaction_searches)
    satisfaction_U = loyalty.satisfaction_U + learnt_U * (mean_U - loyalty.satisfaction_U)
    settled_U = config.lasting * config.elsewhere_joy + (1 - config.lasting) * satisfaction_U
    daily = 1 - 0.5 ** (1 / config.expectation_days)
    expectation_U = loyalty.expectation_U + daily * (settled_U - loyalty.expectation_U)
    kept = 0.5 ** (1 / config.habit_days)
    habit_U = kept * loyalty.habit_U + (1 - kept) * visited_U
    surprise_U = satisfaction_U - expectation_U
    leaves_U = visited_U & (draw_U < config.leave_rate * np.exp(-config.leave_weight * surprise_U))
    returns_U = loyalty.left_U & (draw_U < config.return_rate)
    # Who comes back gives the platform another chance.
    satisfaction_U = np.where(returns_U, expectation_U, satisfaction_U)
    return Loyalty(satisfaction_U, expectation_U, habit_U, (loyalty.left_U | leaves_U) & ~returns_U)
