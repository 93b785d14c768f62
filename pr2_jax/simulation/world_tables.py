"""Writes a simulated log as KuaiSAR's five tables, words.csv and some visual vectors."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pr2_jax.config import WorldConfig
from pr2_jax.data.schema import OUTCOMES
from pr2_jax.errors import BadInput
from pr2_jax.simulation.day_log import BEIJING_MS, SOURCES, DayLog, Searches, Views
from pr2_jax.simulation.refinds import with_refinds
from pr2_jax.simulation.world import World, seed_of
from pr2_jax.simulation.world_catalogue import PICTURE_SET, UPLOAD_TYPES

ASIDE_TYPES = ("USER", "LIVE", "COMMODITY", "MUSIC", "ADVERT")
_ASIDE_SHARES = (0.5, 0.2, 0.1, 0.1, 0.1)
_ASIDE_SESSIONS = 0.06  # sessions that show one result of another type
_ASIDE_CLICKED = 0.15
_ASIDE_FIRST_ID = 9_000_000_000
_CLICKED_TWICE = 0.05
_FOLLOWS = 3  # people followed by a person, on average


def write_world(directory: Path, config: WorldConfig) -> None:
    """Simulates `config.days` and writes the log's tables (see `write_tables`). Same config, same bytes."""
    world = World.build(config)
    logs = list(world.simulate())
    logs = with_refinds(world, logs, config.refind_share) if config.refind_share else logs
    write_tables(directory, world, logs, seed_of(config, 5))


def write_tables(directory: Path, world: World, logs: Sequence[DayLog], seed: np.random.SeedSequence) -> None:
    """Writes all files into `directory` atomically. BadInput where `directory` is not empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise BadInput(f"{directory} exists and is not empty: name another place for the simulated log or remove it")
    result_rng, content_rng, social_rng = (np.random.default_rng(s) for s in seed.spawn(3))
    partial = directory.with_name(directory.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        _searches(world, logs, result_rng).write_csv(partial / "src_inter.csv")
        _views(world, logs).write_csv(partial / "rec_inter.csv")
        _users(world).write_csv(partial / "user_features.csv")
        _follows(world, social_rng).write_csv(partial / "social_network.csv")
        _videos(world).write_csv(partial / "item_features.csv")
        text = world.vocabulary.text
        pl.DataFrame({"word_id": np.arange(1, len(text)), "word": text[1:]}).write_csv(partial / "words.csv")
        brought_V = content_rng.random(len(world.catalogue)) < world.config.content_share
        np.save(partial / "content.npy", world.catalogue.visual_VxF[brought_V])
        np.save(partial / "content_ids.npy", world.catalogue.raw_id_V[brought_V])
    except BaseException:
        shutil.rmtree(partial)
        raise
    if directory.exists():
        directory.rmdir()
    partial.rename(directory)


def _beijing(time_ms: pl.Expr, pattern: str = "%Y-%m-%d %H:%M:%S") -> pl.Expr:
    return (time_ms + BEIJING_MS).cast(pl.Datetime("ms")).dt.strftime(pattern)


def _word_lists(words_BxQ: np.ndarray) -> pl.Series:
    """Returns "[3, 17]" for each row; 0 is no word."""
    row_E, column_E = np.nonzero(words_BxQ)
    flat = pl.DataFrame({"row": row_E, "word": words_BxQ[row_E, column_E].astype(str)})
    joined = flat.group_by("row", maintain_order=True).agg(pl.col("word").str.join(", "))
    every = pl.DataFrame({"row": np.arange(len(words_BxQ))}).join(joined, on="row", how="left", maintain_order="left")
    return every.select("[" + pl.col("word").fill_null("") + "]").to_series()


def _searches(world: World, logs: Sequence[DayLog], rng: np.random.Generator) -> pl.DataFrame:
    searches = Searches.joined([log.searches for log in logs])
    slates_BxS = searches.slates_BxS
    row_E, position_E = np.nonzero(slates_BxS >= 0)
    video_E = slates_BxS[row_E, position_E]
    clicks_E = searches.responses.click_BxS[row_E, position_E] * (1 + (rng.random(len(row_E)) < _CLICKED_TWICE))
    pictures_E = world.catalogue.upload_type_V[video_E] == PICTURE_SET
    aside_X = np.flatnonzero(rng.random(len(slates_BxS)) < _ASIDE_SESSIONS)
    aside_type_X = rng.choice(len(ASIDE_TYPES), len(aside_X), p=_ASIDE_SHARES)
    aside_id_X = _ASIDE_FIRST_ID + 1_000_000 * aside_type_X + rng.integers(0, 5_000, len(aside_X))
    place_X = rng.integers(0, slates_BxS.shape[1], len(aside_X)) - 0.5
    row_R = np.concatenate([row_E, aside_X])
    order_R = np.lexsort((np.concatenate([position_E, place_X]), row_R))  # sessions are in order of time already
    item_R = np.concatenate([world.catalogue.raw_id_V[video_E], aside_id_X])
    clicks_R = np.concatenate([clicks_E, rng.random(len(aside_X)) < _ASIDE_CLICKED]).astype(np.int64)
    kind_E = np.where(pictures_E, "IMAGE_ATLAS", "VIDEO")
    kind_R = np.concatenate([kind_E, np.array(ASIDE_TYPES)[aside_type_X]])
    row_R = row_R[order_R]
    with_outcomes = world.config.search_outcomes
    outcomes = _outcomes(world, searches, (row_E, position_E), len(aside_X), order_R) if with_outcomes else {}
    frame = pl.DataFrame(
        {
            "user_id": world.users.raw_id_U[searches.user_B][row_R],
            "search_session_id": searches.session_B[row_R],
            "search_session_timestamp": searches.time_ms_B[row_R],
            "keyword": _word_lists(searches.queries.words_BxQ).gather(row_R),
            "search_source": np.array(SOURCES)[searches.source_B][row_R],
            "item_id": item_R[order_R],
            "click_cnt": clicks_R[order_R],
            "item_type": kind_R[order_R],
            **outcomes,
        }
    )
    time = frame.select(_beijing(pl.col("search_session_timestamp")).alias("search_session_time")).to_series()
    return frame.insert_column(2, time)


def _outcomes(
    world: World, searches: Searches, at: tuple[np.ndarray, np.ndarray], aside: int, order_R: np.ndarray
) -> dict[str, np.ndarray]:
    """Outcome columns of the results `at`; 0 for the `aside` results of other types."""
    answer = searches.responses
    duration_E = world.catalogue.duration_ms_V[searches.slates_BxS[at]]
    values = (answer.play_ms_BxS[at], duration_E, answer.like_BxS[at], answer.follow_BxS[at], answer.forward_BxS[at])
    none_X = np.zeros(aside, np.int64)
    columns = (np.concatenate([value_E.astype(np.int64), none_X])[order_R] for value_E in values)
    return dict(zip(OUTCOMES, columns, strict=True))


def _views(world: World, logs: Sequence[DayLog]) -> pl.DataFrame:
    views = Views.joined([log.views for log in logs])
    frame = pl.DataFrame(
        {
            "user_id": world.users.raw_id_U[views.user_N],
            "item_id": world.catalogue.raw_id_V[views.video_N],
            "playing_time": views.play_ms_N,
            "duration_ms": world.catalogue.duration_ms_V[views.video_N],
            "timestamp": views.time_ms_N,
            "click": views.click_N.astype(np.int64),
            "forward": views.forward_N.astype(np.int64),
            "like": views.like_N.astype(np.int64),
            "follow": views.follow_N.astype(np.int64),
            "search": views.search_N.astype(np.int64),
            "search_item_related": views.related_N.astype(np.int64),
        }
    ).sort("timestamp", maintain_order=True)  # a search just before midnight is followed by views after it
    return frame.insert_column(4, frame.select(_beijing(pl.col("timestamp")).alias("time")).to_series())


def _users(world: World) -> pl.DataFrame:
    users = world.users
    fields = ("search_active_level", "rec_active_level", "onehot_feat1", "onehot_feat2")
    profile = {name: users.profile_UxP[:, column] for column, name in enumerate(fields)}
    return pl.DataFrame({"user_id": users.raw_id_U, **profile})


def _follows(world: World, rng: np.random.Generator) -> pl.DataFrame:
    """Follow edges between people with the same onehot_feat2, who mostly share a taste."""
    group_U = world.users.profile_UxP[:, 3]
    order_U = np.argsort(group_U, kind="stable")
    from_N = np.repeat(np.arange(len(group_U)), rng.poisson(_FOLLOWS, len(group_U)))
    low_N = np.searchsorted(group_U[order_U], group_U[from_N], side="left")
    high_N = np.searchsorted(group_U[order_U], group_U[from_N], side="right")
    to_N = order_U[low_N + (rng.random(len(from_N)) * (high_N - low_N)).astype(np.int64)]
    pairs_Mx2 = np.unique(np.stack([from_N, to_N], axis=1)[from_N != to_N], axis=0)
    raw_U = world.users.raw_id_U
    return pl.DataFrame({"user_id": raw_U[pairs_Mx2[:, 0]], "user_follow_id": raw_U[pairs_Mx2[:, 1]]})


def _videos(world: World) -> pl.DataFrame:
    catalogue, vocabulary = world.catalogue, world.vocabulary
    topic_G = vocabulary.topic_of_G
    label_V = catalogue.labelled_V
    topic_names = [vocabulary.text[word] for word in vocabulary.topic_T]
    names = ["empty", *topic_names, *(vocabulary.text[word] for word in vocabulary.owned_GxN[:, 0])]
    first_V = np.where(label_V >= 0, 1 + topic_G[label_V], 0)
    second_V = np.where(label_V >= 0, 1 + len(topic_names) + label_V, 0)
    none_V = np.zeros(len(catalogue), np.int64)
    levels = {}
    for level, rows_V in zip(("first", "second", "third", "fourth"), (first_V, second_V, none_V, none_V), strict=True):
        column, text_V = f"{level}_level_category", np.array(names)[rows_V]
        levels |= {f"{column}_id": rows_V.astype(np.int64), f"{column}_name": text_V, f"{column}_name_en": text_V}
    upload_ms_V = world.start_ms + catalogue.upload_day_V.astype(np.int64) * 86_400_000
    frame = pl.DataFrame(
        {
            "item_id": catalogue.raw_id_V,
            "caption": _word_lists(catalogue.captions_VxN),
            "author_id": catalogue.creator_raw_C[catalogue.creator_V],
            "upload_ms": upload_ms_V,
            "upload_type": np.array(UPLOAD_TYPES)[catalogue.upload_type_V],
            **levels,
        }
    )
    return frame.select(
        "item_id",
        "caption",
        "author_id",
        pl.lit("NORMAL").alias("item_type"),
        _beijing(pl.col("upload_ms"), "%Y-%m-%d").alias("upload_time"),
        "upload_type",
        *levels,
    )
