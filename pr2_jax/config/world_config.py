"""The fields of `Config.world`: the simulated platform (`simulation/`) and its people. Marks as in `schema.py`."""

from __future__ import annotations

import dataclasses
import datetime

from pr2_jax.config.checks import Positive, Section, Share, Signed, Size, check_order, require


@dataclasses.dataclass(frozen=True)
class PeopleConfig(Section):
    """The click model of simulated people [ours]. No unit unless one is given; brackets hold the useful range."""

    taste_width: Size = 6  # [2, 32] latent tastes that no word shows
    communities: Size = 12  # [1, 64] groups of people with like tastes
    interests: Size = 5  # [1, subtopics] subtopics a person cares for
    favourites: Size = 6  # [1, 50] creators whom a person likes
    interest_weight: float = 1.0  # [0, 3] parts of affinity, in its logits before the slope
    taste_weight: float = 1.0  # [0, 3]
    favourite_weight: float = 1.0  # [0, 3]
    duration_weight: float = 0.4  # [0, 3]
    affinity_slope: Positive = 5.0  # [0.5, 8] steepness of the choice
    search_offset: Signed = 1.0  # [-1, 3] what a searched video must overcome
    feed_offset: Signed = 0.4  # [-1, 3] what a feed video must overcome
    intent_floor: Share = 0.6  # [0, 1] interest lent to what was searched for
    position_decay: Share = 0.25  # [0, 1] P(looked at) = (1 + position)^-decay, position from 0
    like_rate: Share = 0.12  # [0, 1] P(like | watched, affinity 1)
    follow_rate: Share = 0.04  # [0, 1] P(follow | watched, affinity 1)
    forward_rate: Share = 0.02  # [0, 1] P(forward | watched, affinity 1)
    mood_share: Share = 0.4  # [0, 1] sessions whose intent is today's mood
    trend_share: Share = 0.12  # [0, 1] sessions whose intent is what everyone searches
    trigger_share: Share = 0.15  # [0, 1] sessions that start from a feed view of the same day
    mood_persistence: Share = 0.5  # [0, 1] P(today's mood = yesterday's)
    interest_drift: Share = 0.02  # [0, 1] P(one interest is replaced) a person and day
    taste_drift: Share = 0.03  # [0, 0.3] share of a taste that is renewed a day
    misspelt_share: Share = 0.03  # [0, 1] queries with a misspelt word


@dataclasses.dataclass(frozen=True)
class LoyaltyConfig(Section):
    """Retention and repeated search (simulation/loyalty.py) [ours]. Brackets hold the useful range.

    Joy is the utility of a search: a search that ends in a watch without end has joy 1.
    """

    visit_share: Share = 0.6  # [0.1, 0.95] mean share of days on which a person opens the app
    visit_spread: float = 0.8  # [0, 2] standard deviation of its logit over people
    watch_minutes: Positive = 1.0  # [0.2, 10] watching after a search that gives 63 % of an endless watch's joy
    like_joy: float = 0.3  # [0, 1] more if anything was liked
    skip_cost: float = 0.03  # [0, 0.2] joy lost by each result examined and not clicked
    retry_cost: float = 0.15  # [0, 1] joy lost by a reformulation
    retry_share: Share = 0.5  # [0, 1] P(reformulates | nothing clicked)
    retries: int = 2  # [0, 5] reformulations at most
    elsewhere_joy: Signed = 0.4  # [-1, 1] joy of a search elsewhere: what people expect when the log begins
    satisfaction_searches: Positive = 4.0  # [1, 30] half-life of satisfaction, in searches
    expectation_days: Positive = 14.0  # [1, 100] half-life of the way from expectation to where it settles
    lasting: Share = 0.5  # [0, 1] weight of elsewhere in the expectation; the rest is the weight of this platform
    visit_weight: float = 1.0  # [0, 5] logits of a visit a unit of joy above expectation
    search_weight: float = 1.0  # [0, 5] log searches a visit, likewise
    habit_weight: float = 1.5  # [0, 5] logits of a visit between never and always having come lately
    habit_days: Positive = 7.0  # [1, 60] half-life of habit
    leave_rate: Share = 0.002  # [0, 0.1] P(churn) a visit, where satisfaction meets expectation
    leave_weight: float = 3.0  # [0, 10] log of that chance a unit of joy below expectation
    return_rate: Share = 0.01  # [0, 0.2] P(comes back) a day, after churn
    interest_pull: Share = 0.03  # [0, 0.5] share of interests that a day of much watching renews
    taste_pull: Share = 0.03  # [0, 0.5] share of a taste, likewise

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.visit_share < 1, self, f"visit_share = {self.visit_share:g}, expected between 0 and 1")


@dataclasses.dataclass(frozen=True)
class LoggingConfig(Section):
    """The biased system that served the log: words and popularity with noise, never the person's taste [ours]."""

    caption_weight: float = 0.35  # of the BM25 of captions
    said_weight: float = 0.65  # of the BM25 of speech and pictures, which the log does not hold
    popularity_weight: float = 0.8  # BM25 score units a standard deviation of log popularity
    noise: float = 1.5  # standard deviation, BM25 score units
    feed_popular: Share = 0.35  # shares of feed views by policy; the rest is random
    feed_interest: Share = 0.45
    feed_favourite: Share = 0.1
    popularity_half_life_days: Positive = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        total = self.feed_popular + self.feed_interest + self.feed_favourite
        told = f"feed_popular + feed_interest + feed_favourite = {total:g}, expected 1 or less; lower one"
        require(total <= 1, self, told)


@dataclasses.dataclass(frozen=True)
class WorldConfig(Section):
    """The simulated platform. Sizes are people, videos and days; rates are per user and day."""

    users: Size = 2_000
    videos: Size = 20_000
    days: int = 19  # as KuaiSAR
    start: str = "2023-05-22"  # first day, Beijing time, as KuaiSAR
    creators: Size = 1_500
    topics: Size = 24  # first level of the topic tree
    subtopics: Size = 8  # children of each topic
    words_per_subtopic: int = 24
    shared_words: Size = 400  # words that say nothing about a topic
    ambiguous_share: Share = 0.15  # share of topic words that two subtopics own
    sessions_per_day: float = 0.32  # reformulations come on top
    slate: Size = 10
    refind_share: Share = 0.0  # [0, 1] P(a search of the log looks for a video clicked on an earlier day)
    views_per_day: float = 4.5
    search_outcomes: bool = False  # writes outcomes of search results (playing time, like, ...); KuaiSAR has none
    content_width: Size = 32  # F, of the content.npy that the world writes
    content_share: Share = 0.9  # share of videos in content.npy
    seed: int = 0
    people: PeopleConfig = PeopleConfig()
    loyalty: LoyaltyConfig = LoyaltyConfig()
    logging: LoggingConfig = LoggingConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.days >= 3, self, f"days = {self.days}, expected 3 or more: one each to train, validate and test")
        words = self.words_per_subtopic
        require(words >= 8, self, f"words_per_subtopic = {words}, expected 8 or more: captions need them")
        interests, subtopics = self.people.interests, self.topics * self.subtopics
        told = f"people.interests = {interests} is above topics * subtopics = {subtopics}"
        require(interests <= subtopics, self, f"{told}; lower it or raise one of them")
        check_order(self, "slate", "videos")
        try:
            datetime.date.fromisoformat(self.start)
        except ValueError:
            require(False, self, f"start = {self.start!r}, expected a date as 2023-05-22")
