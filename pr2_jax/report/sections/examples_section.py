"""Random searches of the test day with the results of base and of PR², and their explanations."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.report.blocks import Searches, Section
from pr2_jax.report.workdir_reader import Work
from pr2_jax.search.side_by_side import Comparison, Shown, SideBySide

COUNT, RESULTS, PAST = 12, 10, 8
NAMES = {"base": "base", "pr2": "PR²"}


@dataclasses.dataclass(frozen=True)
class Example:
    """One search."""

    comparison: Comparison
    clicked: tuple[str, ...]  # captions of what the person clicked in that search
    only_ours: int  # of PR²'s results, how many base does not have


def section(work: Work) -> Section:
    """Both systems search as of the end of the log."""
    chosen = choose(work)
    if not len(chosen):
        return Section(intro="No search of the test day has a query.")
    both = SideBySide.load(work.directory)
    examples = [_example(work, both, int(row)) for row in chosen]
    withheld = both.system.fitted.choices.withholds_clicked
    differ = sum(one.only_ours for one in examples) / max(1, sum(len(one.comparison.lists["pr2"]) for one in examples))
    return Section(
        f"In {len(examples)} searches drawn at random, {differ:.0%} of PR²'s first {RESULTS} are not among base's.",
        f"Not picked by hand: NumPy's generator with the evaluation's seed ({work.config.evaluation.seed}) puts the "
        f"searches of the test day in a random order; the first {COUNT} with a query, a person and a query each at "
        "most once, are shown, whatever they look like. Both systems answer as of the end of the log: what the person "
        f"clicked in that search {'is left out of' if withheld else 'may stand in'} both lists; it stands above them.",
        [Searches(examples)],
    )


def choose(work: Work) -> np.ndarray:
    """Session rows of the examples."""
    rows, store = work.test_sessions(), work.store
    order = np.random.default_rng(work.config.evaluation.seed).permutation(len(rows))
    kept: dict[int, tuple[int, int]] = {}
    for row in rows[order].tolist():
        user, query = int(store.sessions.user[row]), int(store.sessions.query[row])
        new = query != 0 and all(user != other and query != asked for other, asked in kept.values())
        if new and words_of(work, query):
            kept[row] = user, query
        if len(kept) == COUNT:
            break
    return np.array(list(kept), np.int64)


def words_of(work: Work, query: int) -> str:
    """The query as a person types it; word ids where the log has no words."""
    store = work.store
    rows = np.asarray(store.queries.words[store.queries.first_word[query] : store.queries.first_word[query + 1]])
    return store.text_of(rows.tolist())


def _example(work: Work, both: SideBySide, row: int) -> Example:
    store = work.store
    user = int(store.users.raw_id[store.sessions.user[row]])
    shown = slice(int(store.sessions.first_impression[row]), int(store.sessions.first_impression[row + 1]))
    videos = np.asarray(store.impressions.video[shown])[np.asarray(store.impressions.clicks[shown]) > 0]
    clicked = tuple(both.caption(int(store.videos.raw_id[video])) for video in videos.tolist())
    comparison = both.search(user, words_of(work, int(store.sessions.query[row])), RESULTS, PAST)
    ours = comparison.lists["pr2"]
    return Example(comparison, clicked, sum(one.elsewhere == (None,) for one in ours))


def lines_of(examples: list[Example]) -> tuple[list[str], list[list]]:
    """Header and rows of the CSV file: every result of both systems."""
    header = ["search", "person", "query", "system", "place", "video", "caption", "place in the other", "score"]
    rows = [
        [number, str(seen.user), seen.query, name, place, *_cells(result)]
        for number, seen in enumerate((one.comparison for one in examples), 1)
        for name, shown in seen.lists.items()
        for place, result in enumerate(shown, 1)
    ]
    return [*header, "click", "found by", "because"], rows


def _cells(shown: Shown) -> list:
    result = shown.result
    because = "; ".join(f"{caption} ({share:.0%})" for caption, share in shown.because)
    found = " ".join(f"{name} {score:.2f}" for name, score in result.channels.items())
    (other,) = shown.elsewhere
    return [str(result.video_id), shown.caption, other, result.score, result.heads.get("click"), found, because]
