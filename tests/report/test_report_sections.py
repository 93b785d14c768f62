"""Sections of what only some work directories have, from made-up files: A/B tests, ablations, the sweep."""

from __future__ import annotations

import copy
import json
import math

import pytest

from pr2_jax import artifacts
from pr2_jax.config import Config
from pr2_jax.config.loader import to_dict
from pr2_jax.drawing.charts import BETTER, PLAIN, UNSURE, WORSE, Plot, Rows
from pr2_jax.drawing.painters import svg
from pr2_jax.errors import StaleArtifact
from pr2_jax.report import build_report
from pr2_jax.report.blocks import Charts, Table, numbers_of
from pr2_jax.report.sections import (
    ablations_section,
    abtest_section,
    costs_section,
    frontier_section,
    results_section,
)
from pr2_jax.report.workdir_reader import Work

NOTHING = dict.fromkeys(("control", "treated", "lift", "p", "low", "high", "low_at_any_time", "high_at_any_time")) | {
    "people": 0
}


def _lift(low: float, high: float) -> dict:
    lift = (low + high) / 2
    return {
        "control": 0.25, "treated": 0.25 * (1 + lift), "lift": lift, "p": 0.03125, "low": low, "high": high,
        "low_at_any_time": low - 0.01, "high_at_any_time": high + 0.01, "people": 90,
    }  # fmt: skip


@pytest.fixture
def experiment() -> dict:
    """As `pr2 abtest` writes it, of four days."""
    lifts = {"ctr": _lift(0.02, 0.06), "no_click": _lift(-0.05, -0.01), "like": _lift(-0.02, 0.03), "day_28": NOTHING}
    lifts |= {"a_metric_of_its_own": _lift(0.1, 0.2)}
    titles = {
        "ctr": ("CTR@10 <b>", 1),
        "no_click": ("without a click", -1),
        "like": ("likes", 1),
        "day_28": ("day 28", 0),
        "a_metric_of_its_own": ("mine", 0),
    }
    days = {name: [one, NOTHING, one, one] for name, one in lifts.items()}
    return {
        "plan": {
            "arms": ["base", "pr2"],
            "days": 4,
            "aa_days": 2,
            "warm_up": 1,
            "salt": "pr2",
            "common_random_numbers": True,
        },
        "people_by_arm": {"base": 51, "pr2": 49},
        "metrics": {name: {"title": title, "unit": "", "better": better} for name, (title, better) in titles.items()},
        "lifts": {"pr2": lifts},
        "before": {"pr2": {name: _lift(-0.01, 0.01) for name in lifts}},
        "by_day": {"pr2": days},
        "aa": {"splits": 200, "below": 0.055, "uniform_p": 0.5},
        "decided_after": {"pr2": 3},
        "guardrail": {"pr2": "kept"},
        "daily": {arm: {"ctr": [0.25, None, 0.26, 0.27, 0.25, 0.24, 0.25]} for arm in ("base", "pr2")},
    }


def _work(place, name: str, found: object) -> Work:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    manifest = path.with_name("manifest.json")
    if place / "abtest" in path.parents and not manifest.exists():
        manifest.write_text(json.dumps({"fingerprint": {"inputs": {}, "world": to_dict(Config())["world"]}}))
    return Work(place, Config())


def _charts(section) -> dict[str, Plot | Rows]:
    return {chart.slug: chart for block in section.blocks if isinstance(block, Charts) for chart in block.charts}


def _tables(section) -> dict[str, Table]:
    return {block.slug: block for block in section.blocks if isinstance(block, Table)}


def test_lifts_are_those_of_the_experiment(tmp_path, experiment):
    section = abtest_section.section(_work(tmp_path, "abtest/base+pr2/abtest.json", experiment))
    assert section.finding == "pr2 against base, 100 people, 4 days: CTR@10 <b> +4.0% [+2.0%, +6.0%]."
    said = section.blocks[0].text
    assert "split 200 other ways: p below 0.05 in 5.5% of them." in said
    assert (
        "CTR@10 <b> told apart from day 3 on, looking every day. pr2: guardrail (true relevance at most 1% lower) kept."
        in said
    )
    (table,) = _tables(section).values()
    header, rows = numbers_of(table)
    first = dict(zip(header, rows[0], strict=True))
    assert (first["lift"], first["lift low"], first["lift high"]) == (0.04, 0.02, 0.06)
    assert (first["at any time low"], first["at any time high"], first["people"]) == (0.01, pytest.approx(0.07), 90)
    assert [row[0] for row in rows] == ["CTR@10 <b>", "likes", "without a click", "day 28", "mine"]
    forest = _charts(section)["abtest_1_pr2_lifts"]
    assert [row.tone for row in forest.rows] == [BETTER, UNSURE, BETTER, PLAIN], (
        "fewer searches without a click are better"
    )


def test_the_course_over_the_days_has_both_bands_and_gaps(tmp_path, experiment):
    charts = _charts(abtest_section.section(_work(tmp_path, "abtest/a/abtest.json", experiment)))
    course = charts["abtest_1_pr2_ctr_lift"]
    always, once = course.series
    assert list(once.x) == [1, 2, 3, 4]
    assert [round(v, 3) for v in once.high if math.isfinite(v)] == [0.06] * 3
    assert [round(v, 3) for v in always.high if math.isfinite(v)] == [0.07] * 3
    drawn = svg(course)
    assert drawn.count("<polygon") == 4, "two bands, each broken at the day without a number"
    daily = charts["abtest_1_pr2_ctr_daily"]
    assert list(daily.series[0].x) == [-2, -1, 0, 1, 2, 3, 4], "counted days begin at 1"
    assert math.isnan(daily.series[0].y[1])


def test_every_experiment_gets_its_place(tmp_path, experiment, work):
    _work(tmp_path, "abtest/b/abtest.json", experiment)
    _work(tmp_path, "abtest/a.partial/abtest.json", "{}")
    other = copy.deepcopy(experiment) | {"daily": {}, "by_day": {}}
    section = abtest_section.section(_work(tmp_path, "abtest/a/abtest.json", other))
    assert set(_tables(section)) == {"abtest_1_pr2_table", "abtest_2_pr2_table"}
    assert not any(slug.startswith("abtest_1") and slug.endswith("daily") for slug in _charts(section))
    facts = {"simulated": True, "version": "1", "sessions": 3}
    html = build_report.render("t", results_section.headline(work), [("abtest", "A/B test", section)], facts)
    assert "CTR@10 &lt;b&gt;" in html
    assert "<b>" not in html.partition('<section id="abtest"')[2]


def test_arms_stand_as_planned_and_more_of_them_in_one_line(tmp_path, experiment):
    """JSON has them by name, where `+pdr` comes before `base`."""
    more = copy.deepcopy(experiment)
    more["plan"]["arms"] = ["base", "pr2", "+pdr"]
    more["people_by_arm"]["+pdr"] = 50
    for part in ("lifts", "before", "by_day"):
        more[part]["+pdr"] = more[part]["pr2"]
    more["lifts"]["+pdr"] = more["lifts"]["pr2"] | {"ctr": NOTHING}
    section = abtest_section.section(_work(tmp_path, "abtest/a/abtest.json", more))
    assert section.blocks[0].text.startswith("People by arm: base 51, pr2 49, +pdr 50.")
    assert section.finding == "CTR@10 <b> of 3 arms against base: pr2 +4.0% [+2.0%, +6.0%]; +pdr –."
    assert list(_tables(section)) == ["abtest_1_pr2_table", "abtest_1__pdr_table"]


def test_models_made_anew_are_said(tmp_path, experiment):
    experiment["plan"]["refresh"] = 2
    section = abtest_section.section(_work(tmp_path, "abtest/a/abtest.json", experiment))
    assert "100 people, 4 days, models made anew every 2: CTR@10" in section.finding
    assert "Models made anew from each arm's own log every 2 days." in section.blocks[0].text


def test_what_no_run_finished_is_not_shown(tmp_path, experiment, tried):
    for place in ("abtest/a/abtest.json", "abtest/trial/trial.json"):
        work = _work(tmp_path, place, experiment if "/a/" in place else tried)
        (tmp_path / place).with_name("manifest.json").unlink()
    assert abtest_section.section(work).missing == "pr2 abtest --workdir DIR"


@pytest.mark.parametrize("damage", ["", "[1]", "nothing"])
def test_a_damaged_experiment_names_what_to_remove(tmp_path, experiment, damage):
    work = _work(tmp_path, "abtest/a/abtest.json", experiment)
    for file in ("manifest.json", "abtest.json"):
        path = tmp_path / "abtest" / "a" / file
        before = path.read_text()
        path.write_text(damage)
        with pytest.raises(StaleArtifact, match=r"remove .*abtest/a and make it anew with `pr2 abtest`"):
            abtest_section.section(work)
        path.write_text(before)


@pytest.fixture
def tried() -> dict:
    """As `pr2 abtest --validate` writes it; with independent draws one metric could not be counted."""
    one = {"truth": 0.03125, "found": 0.5, "covered": 0.96, "error": 0.0125, "spread": 0.0625}
    aa = {"runs": 80, "below": 0.05, "uniform_p": 0.5, "ever_below": 0.25, "ever_left_0": 0.0125}
    shared = {"no_click": one | {"truth": -0.125}, "ctr": one, "day_28": one}
    plan = {"days": 28, "decided_by": "ctr", "share": 0.1, "among": 100}
    planted = {"shared": shared, "own": {"ctr": one | {"found": 0.25}}}
    return {"plan": plan, "runs": 20, "aa": aa, "planted": planted}


def test_a_validation_has_its_metrics_with_and_without_common_random_numbers(tmp_path, experiment, tried):
    _work(tmp_path, "abtest/trial/trial.json", tried)
    section = abtest_section.section(_work(tmp_path, "abtest/a/abtest.json", experiment))
    note, table = section.blocks[-2:]
    assert "CTR@10 has p below 0.05 in 5.0%" in note.text
    assert "in 10% of searches the best of the first 100 videos" in note.text
    assert "another world" not in note.text
    header, rows = numbers_of(table)
    assert [row[1] for row in rows] == ["CTR@10", "searches without a click", "day-28 retention", "CTR@10"]
    assert list(table.headings) == [0, 3]
    assert dict(zip(header, rows[3], strict=True))["found"] == 0.25
    assert dict(zip(header, rows[1], strict=True))["truth"] == -0.125
    assert [text for text, _ in build_report.cells_of(table, 1)[1:]] == ["-12.50%", "50.0%", "96.0%", "1.25%", "6.25%"]


def test_a_trial_alone_and_of_another_world_and_plan(tmp_path, tried):
    made_in = {"fingerprint": {"world": to_dict(Config())["world"] | {"seed": 99}}}
    _work(tmp_path, "abtest/trial,days=3/manifest.json", made_in)
    _work(tmp_path, "abtest/trial,days=3/trial.json", tried)
    section = abtest_section.section(_work(tmp_path, "abtest/trial/trial.json", tried))
    assert (section.missing, section.finding[:17]) == ("", "No experiment yet")
    assert [note.heading for note in section.blocks[::2]] == [
        "Validation on known effects",
        "Validation on known effects (days=3)",
    ]
    assert ["another world" in note.text for note in section.blocks[::2]] == [False, True]
    assert set(_tables(section)) == {"abtest_trial", "abtest_trial_days_3"}


@pytest.mark.parametrize("damage", ["", "[1]", "nothing", "null", '{"planted": {}}', '"text"'])
def test_a_damaged_trial_names_what_to_remove(tmp_path, tried, damage):
    with pytest.raises(StaleArtifact, match=r"remove .*abtest/trial and make it anew with `pr2 abtest --validate N`"):
        abtest_section.section(_work(tmp_path, "abtest/trial/trial.json", damage))


def test_a_trial_with_words_for_numbers_is_damaged(tmp_path, tried):
    tried["planted"]["own"]["ctr"]["truth"] = "x"
    with pytest.raises(StaleArtifact, match="trial is damaged"):
        abtest_section.section(_work(tmp_path, "abtest/trial/trial.json", tried))


def test_real_logs_are_told_that_nobody_can_answer(tmp_path):
    section = abtest_section.section(Work(tmp_path, Config()))
    assert section.missing == "pr2 abtest --workdir DIR"
    assert "another kind" in section.intro


def _interval(mean: float, half: float) -> dict:
    return {"mean": mean, "low": mean - half, "high": mean + half, "count": 40}


@pytest.fixture
def ablated() -> dict:
    """As `pr2 evaluate --ablations` writes it, keys in any order."""
    rows = {
        "no history": {"recall@100": _interval(0.01, 0.02), "channel": _interval(0.02, 0.02), "ms a step": 40.0},
        "no user": {"recall@100": _interval(-0.25, 0.125), "channel": _interval(-0.3, 0.02), "ms a step": 30.5},
        "whole system": {"recall@100": _interval(0.75, 0.125), "channel": _interval(0.7, 0.02), "ms a step": 50.0},
    }
    return {"test": {"tables": {"pdr": rows}, "by_seed": {"whole system": [{}, {}]}}, "validation": {}}


def test_ablations_put_the_dearest_part_first(tmp_path, ablated):
    work = _work(tmp_path, "ablations/ablations.json", ablated)
    section = ablations_section.section(work)
    chart = _charts(section)["ablations_pdr"]
    assert [(row.label, row.tone) for row in chart.rows] == [("no user", WORSE), ("no history", UNSURE)]
    table = _tables(section)["ablations_table_pdr"]
    assert [row[0] for row in table.rows] == ["whole system", "no user", "no history"]
    assert [build_report.cells_of(table, n)[2] for n in (0, 1)] == [
        ("0.7500", "±0.1250"),
        ("-0.2500", "[-0.3750, -0.1250]"),
    ]
    assert section.finding == "Dearest to lose: pdr, no user (recall@100 of PR²'s merged list -0.250)."
    assert "2 seeds" in section.intro
    times = _tables(costs_section.section(work))["search_times"]
    assert [list(row) for row in times.rows] == [["pdr", 50.0, None, None, None]]


def test_the_sweep_shows_the_grid_and_rings_what_is_configured(tmp_path):
    lines = [
        "threshold,quantile,k,configured,epsilon,alone.recall@100,alone.seeds,alone.coverage,alone.relevance,alone.entropy"
    ]
    for quantile, k, configured, recall in (
        ("0", 5, 0, 0.2),
        ("0", 9, 0, 0.5),
        ("0.5", 9, 1, 0.4),
        ("0.3125", 9, 0, 0.45),
    ):
        lines.append(f"quantile,{quantile},{k},{configured},0.25,{recall},{10 * recall},1,0.5,")
    _work(tmp_path, "sweep_qrcf/points.csv", "\n".join(lines) + "\n")
    grid = {"fingerprint": {"grid": {"quantile": [0.0, 0.5], "adaptive": []}}}
    section = frontier_section.section(_work(tmp_path, "sweep_qrcf/manifest.json", grid))
    others, line, adaptive, ring = _charts(section)["frontier_seeds"].series
    assert (list(line.labels), list(line.y), list(line.x)) == (["0", "0.5"], [0.5, 0.4], [5, 4])
    assert (list(adaptive.x), list(others.y), list(ring.y)) == ([], [0.2], [0.4])
    assert len(_tables(section)["frontier"].rows) == 3, "without the point of equally many seeds"
    assert "reaches 0.500 (one epsilon 0, K 9); configured 0.400" in section.finding
    assert "<svg" in svg(_charts(section)["frontier_entropy"]), "an axis without a single number"


def test_what_was_made_from_something_else_says_so(tmp_path, experiment):
    _work(tmp_path, "qin/manifest.json", {"schema": "7", "fingerprint": {"config": 1}})
    made_from = {"qin": artifacts.identity(tmp_path / "qin")}
    _work(tmp_path, "abtest/a/manifest.json", {"schema": "1", "fingerprint": {"inputs": made_from}})
    work = _work(tmp_path, "abtest/a/abtest.json", experiment)
    assert abtest_section.section(work).stale == ""
    _work(tmp_path, "qin/manifest.json", {"schema": "7", "fingerprint": {"config": 2}})
    said = "Made from another qin than is here now: `pr2 abtest --workdir DIR` makes it anew."
    assert abtest_section.section(work).stale == said
    (tmp_path / "qin" / "manifest.json").unlink()
    assert abtest_section.section(work).stale == said
