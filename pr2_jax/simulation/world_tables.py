"""Writes a simulated log as KuaiSAR's five tables, words.csv and some visual vectors."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pr2_jax import artifacts
from pr2_jax.config import WorldConfig
from pr2_jax.data.schema import DAY_MS, OUTCOMES
from pr2_jax.errors import BadInput
from pr2_jax.simulation.counter_rng import sample_in_groups
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
    artifacts.remove(partial)
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


def _beijing(time_ms_N: np.ndarray, pattern: str = "%Y-%m-%d %H:%M:%S") -> pl.Series:
    return pl.Series(time_ms_N + BEIJING_MS).cast(pl.Datetime("ms")).dt.strftime(pattern)


def _word_lists(words_BxQ: np.ndarray) -> pl.Series:
    """Returns "[3, 17]" for each row; 0 is no word."""
    joined = pl.concat_str(pl.all().replace(0, None), separator=", ", ignore_nulls=True)
    return pl.DataFrame(words_BxQ).select("[" + joined + "]").to_series()


def _searches(world: World, logs: Sequence[DayLog], rng: np.random.Generator) -> pl.DataFrame:
    searches, catalogue = Searches.joined([log.searches for log in logs]), world.catalogue
    answer, slates_BxS = searches.responses, searches.slates_BxS
    row_E, place_E = at = np.nonzero(slates_BxS >= 0)
    video_E = slates_BxS[at]
    clicks_E = answer.click_BxS[at] * (1 + (rng.random(len(row_E)) < _CLICKED_TWICE))
    results = {
        "row": row_E,
        "place": place_E.astype(np.float64),
        "item_id": catalogue.raw_id_V[video_E],
        "click_cnt": clicks_E,
        "item_type": np.where(catalogue.upload_type_V[video_E] == PICTURE_SET, "IMAGE_ATLAS", "VIDEO"),
    }
    if world.config.search_outcomes:
        values = (answer.play_ms_BxS, catalogue.duration_ms_V[slates_BxS])
        values += (answer.like_BxS, answer.follow_BxS, answer.forward_BxS)
        results |= {name: value_BxS[at].astype(np.int64) for name, value_BxS in zip(OUTCOMES, values, strict=True)}
    row_X = np.flatnonzero(rng.random(len(slates_BxS)) < _ASIDE_SESSIONS)
    type_X = rng.choice(len(ASIDE_TYPES), len(row_X), p=_ASIDE_SHARES)
    aside = {
        "row": row_X,
        "item_id": _ASIDE_FIRST_ID + 1_000_000 * type_X + rng.integers(0, 5_000, len(row_X)),
        "place": rng.integers(0, slates_BxS.shape[1], len(row_X)) - 0.5,
        "click_cnt": (rng.random(len(row_X)) < _ASIDE_CLICKED).astype(np.int64),
        "item_type": np.array(ASIDE_TYPES)[type_X],
    }
    shown = pl.concat([pl.DataFrame(results), pl.DataFrame(aside)], how="diagonal").fill_null(0).sort("row", "place")
    sessions = pl.DataFrame(
        {
            "user_id": world.users.raw_id_U[searches.user_B],
            "search_session_id": searches.session_B,
            "search_session_time": _beijing(searches.time_ms_B),
            "search_session_timestamp": searches.time_ms_B,
            "keyword": _word_lists(searches.queries.words_BxQ),
            "search_source": np.array(SOURCES)[searches.source_B],
        }
    )
    return sessions[shown["row"]].hstack(shown.drop("row", "place"))


def _views(world: World, logs: Sequence[DayLog]) -> pl.DataFrame:
    views = Views.joined([log.views for log in logs])
    frame = pl.DataFrame(
        {
            "user_id": world.users.raw_id_U[views.user_N],
            "item_id": world.catalogue.raw_id_V[views.video_N],
            "playing_time": views.play_ms_N,
            "duration_ms": world.catalogue.duration_ms_V[views.video_N],
            "time": _beijing(views.time_ms_N),
            "timestamp": views.time_ms_N,
            "click": views.click_N,
            "forward": views.forward_N,
            "like": views.like_N,
            "follow": views.follow_N,
            "search": views.search_N,
            "search_item_related": views.related_N,
        }
    ).with_columns(pl.col(pl.Boolean).cast(pl.Int64))
    return frame.sort("timestamp", maintain_order=True)  # a search just before midnight is followed by views after it


def _users(world: World) -> pl.DataFrame:
    users = world.users
    fields = ("search_active_level", "rec_active_level", "onehot_feat1", "onehot_feat2")
    profile = {name: users.profile_UxP[:, column] for column, name in enumerate(fields)}
    return pl.DataFrame({"user_id": users.raw_id_U, **profile})


def _follows(world: World, rng: np.random.Generator) -> pl.DataFrame:
    """Follow edges between people with the same onehot_feat2, who mostly share a taste."""
    group_U = world.users.profile_UxP[:, 3]
    from_N = np.repeat(np.arange(len(group_U)), rng.poisson(_FOLLOWS, len(group_U)))
    to_N = sample_in_groups(group_U, group_U[from_N], rng.random(len(from_N)))
    pairs_Mx2 = np.unique(np.stack([from_N, to_N], axis=1)[from_N != to_N], axis=0)
    raw_U = world.users.raw_id_U
    return pl.DataFrame({"user_id": raw_U[pairs_Mx2[:, 0]], "user_follow_id": raw_U[pairs_Mx2[:, 1]]})


def _videos(world: World) -> pl.DataFrame:
    catalogue, vocabulary, label_V = world.catalogue, world.vocabulary, world.catalogue.labelled_V
    topics = len(vocabulary.topic_T)
    names = np.array(["empty", *(vocabulary.text[w] for w in (*vocabulary.topic_T, *vocabulary.owned_GxN[:, 0]))])
    row_4xV = np.zeros((4, len(catalogue)), np.int64)
    row_4xV[:2] = np.where(label_V >= 0, [1 + vocabulary.topic_of_G[label_V], 1 + topics + label_V], 0)
    levels = {}
    for level, row_V in zip(("first", "second", "third", "fourth"), row_4xV, strict=True):
        column = f"{level}_level_category"
        levels |= {f"{column}_id": row_V, f"{column}_name": names[row_V], f"{column}_name_en": names[row_V]}
    upload_ms_V = world.start_ms + catalogue.upload_day_V.astype(np.int64) * DAY_MS
    return pl.DataFrame(
        {
            "item_id": catalogue.raw_id_V,
            "caption": _word_lists(catalogue.captions_VxN),
            "author_id": catalogue.creator_raw_C[catalogue.creator_V],
            "item_type": "NORMAL",
            "upload_time": _beijing(upload_ms_V, "%Y-%m-%d"),
            "upload_type": np.array(UPLOAD_TYPES)[catalogue.upload_type_V],
            **levels,
        }
    )
