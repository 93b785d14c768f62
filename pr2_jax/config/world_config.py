"""Knobs of the simulated platform and of the people on it; `Config.world` holds them.

Marks as in `config/schema.py`. How they act is in `simulation/`.
"""

from __future__ import annotations

import dataclasses
import datetime

from pr2_jax.config.checks import check_order, check_values, require


@dataclasses.dataclass(frozen=True)
class PeopleConfig:
    """How simulated people decide [ours]. No unit unless one is given; brackets hold the useful range."""

    taste_width: int = 6  # [2, 32] latent tastes that no word shows
    communities: int = 12  # [1, 64] groups of people with like tastes
    interests: int = 5  # [1, subtopics] subtopics a person cares for
    favourites: int = 6  # [1, 50] creators a person follows in the heart
    interest_weight: float = 1.0  # [0, 3] parts of affinity, in its logits before the slope
    taste_weight: float = 1.0  # [0, 3]
    favourite_weight: float = 1.0  # [0, 3]
    duration_weight: float = 0.4  # [0, 3]
    affinity_slope: float = 5.0  # [0.5, 8] steepness of the choice
    search_offset: float = 1.0  # [-1, 3] what a searched video must overcome
    feed_offset: float = 0.4  # [-1, 3] what a feed video must overcome
    intent_floor: float = 0.6  # [0, 1] interest lent to what was searched for
    position_decay: float = 0.25  # [0, 1] P(looked at) = (1 + position)^-decay, position from 0
    like_rate: float = 0.12  # [0, 1] P(like | watched, affinity 1)
    follow_rate: float = 0.04  # [0, 1] P(follow | watched, affinity 1)
    forward_rate: float = 0.02  # [0, 1] P(forward | watched, affinity 1)
    mood_share: float = 0.4  # [0, 1] sessions whose intent is today's mood
    trend_share: float = 0.12  # [0, 1] sessions whose intent is what everyone searches
    trigger_share: float = 0.15  # [0, 1] sessions that start from a feed view of the same day
    mood_persistence: float = 0.5  # [0, 1] P(today's mood = yesterday's)
    interest_drift: float = 0.02  # [0, 1] P(one interest is replaced) a person and day
    taste_drift: float = 0.03  # [0, 0.3] share of a taste that is renewed a day
    misspelt_share: float = 0.03  # [0, 1] queries with a misspelt word

    def __post_init__(self) -> None:
        probabilities = ("intent_floor", "position_decay", "like_rate", "follow_rate", "forward_rate")
        drifts = ("mood_persistence", "interest_drift", "taste_drift")
        intents = ("mood_share", "trend_share", "trigger_share", "misspelt_share")
        check_values(
            self,
            positive=("taste_width", "communities", "interests", "favourites", "affinity_slope"),
            signed=("search_offset", "feed_offset"),
            shares=(*probabilities, *drifts, *intents),
        )


@dataclasses.dataclass(frozen=True)
class LoyaltyConfig:
    """Why people come back, search again, or leave (simulation/loyalty.py) [ours].

    Joy is in units of an endless watch: a search that ends in one has joy 1. Brackets hold the useful range.
    """

    visit_share: float = 0.6  # [0.1, 0.95] mean share of days on which a person opens the app
    visit_spread: float = 0.8  # [0, 2] standard deviation of its logit over people
    watch_minutes: float = 1.0  # [0.2, 10] watching after a search that gives 63 % of an endless watch's joy
    like_joy: float = 0.3  # [0, 1] more if anything was liked
    skip_cost: float = 0.03  # [0, 0.2] joy lost a result looked at and passed over
    retry_cost: float = 0.15  # [0, 1] joy lost a question that had to be put in other words
    retry_share: float = 0.5  # [0, 1] P(asked again in other words | nothing clicked)
    retries: int = 2  # [0, 5] at most so often
    elsewhere_joy: float = 0.4  # [-1, 1] joy of a search on another platform, what people expect when the log begins
    satisfaction_searches: float = 4.0  # [1, 30] half-life of satisfaction, in searches
    expectation_days: float = 14.0  # [1, 100] half-life of the way from expectation to where it settles
    lasting: float = 0.5  # [0, 1] weight of elsewhere in what people come to expect, the rest is what they get here
    visit_weight: float = 1.0  # [0, 5] logits of a visit a unit of joy above expectation
    search_weight: float = 1.0  # [0, 5] log searches a visit, likewise
    habit_weight: float = 1.5  # [0, 5] logits of a visit between never and always having come lately
    habit_days: float = 7.0  # [1, 60] half-life of habit
    leave_rate: float = 0.002  # [0, 0.1] P(leaves for good) a visit of who gets what they expect
    leave_weight: float = 3.0  # [0, 10] log of that chance a unit of joy below expectation
    return_rate: float = 0.01  # [0, 0.2] P(comes back) a day of who has left
    interest_pull: float = 0.03  # [0, 0.5] share of interests that a day of much watching renews
    taste_pull: float = 0.03  # [0, 0.5] share of a taste, likewise

    def __post_init__(self) -> None:
        shares = ("visit_share", "retry_share", "lasting", "leave_rate", "return_rate", "interest_pull", "taste_pull")
        halves = ("watch_minutes", "satisfaction_searches", "expectation_days", "habit_days")
        check_values(self, positive=halves, signed=("elsewhere_joy",), shares=shares)
        require(0 < self.visit_share < 1, self, f"visit_share = {self.visit_share:g}, expected between 0 and 1")


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """The biased system that served the log: words and popularity with noise, never the person's taste [ours]."""

    caption_weight: float = 0.35  # of the BM25 of captions
    said_weight: float = 0.65  # of the BM25 of what a video says and shows, which the log does not hold
    popularity_weight: float = 0.8  # BM25 score units a standard deviation of log popularity
    noise: float = 1.5  # standard deviation, BM25 score units
    feed_popular: float = 0.35  # shares of feed views by what chose them; the rest is drawn at random
    feed_interest: float = 0.45
    feed_favourite: float = 0.1
    popularity_half_life_days: float = 10.0

    def __post_init__(self) -> None:
        feeds = ("feed_popular", "feed_interest", "feed_favourite")
        check_values(self, positive=("popularity_half_life_days",), shares=feeds)
        total = self.feed_popular + self.feed_interest + self.feed_favourite
        require(total <= 1, self, f"{' + '.join(feeds)} = {total:g}, expected 1 or less; lower one")


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """The simulated platform. Sizes are people, videos and days; rates are per user and day."""

    users: int = 2_000
    videos: int = 20_000
    days: int = 19  # as KuaiSAR
    start: str = "2023-05-22"  # first day, Beijing time, as KuaiSAR
    creators: int = 1_500
    topics: int = 24  # first level of the topic tree
    subtopics: int = 8  # children of each topic
    words_per_subtopic: int = 24
    shared_words: int = 400  # words that say nothing about a topic
    ambiguous_share: float = 0.15  # share of topic words that two subtopics own
    sessions_per_day: float = 0.32  # needs to search; what is asked again in other words comes on top
    slate: int = 10
    refind_share: float = 0.0  # [0, 1] P(a search of the log asks again for what was found on an earlier day)
    views_per_day: float = 4.5
    search_outcomes: bool = False  # writes what came of search results (playing time, like, ...): KuaiSAR has none
    content_width: int = 32  # F, of the content.npy that the world writes
    content_share: float = 0.9  # share of videos in content.npy
    seed: int = 0
    people: PeopleConfig = PeopleConfig()
    loyalty: LoyaltyConfig = LoyaltyConfig()
    logging: LoggingConfig = LoggingConfig()

    def __post_init__(self) -> None:
        sizes = ("users", "videos", "creators", "topics", "subtopics", "shared_words", "slate", "content_width")
        check_values(self, positive=sizes, shares=("ambiguous_share", "refind_share", "content_share"))
        require(self.days >= 3, self, f"days = {self.days}, expected 3 or more: one each to train, validate and test")
        words = self.words_per_subtopic
        require(words >= 8, self, f"words_per_subtopic = {words}, expected 8 or more: captions need them")
        interests, subtopics = self.people.interests, self.topics * self.subtopics
        require(
            interests <= subtopics,
            self,
            f"people.interests = {interests} is above topics * subtopics = {subtopics}; lower it or raise one of them",
        )
        check_order(self, "slate", "videos")
        try:
            datetime.date.fromisoformat(self.start)
        except ValueError:
            require(False, self, f"start = {self.start!r}, expected a date as 2023-05-22")
