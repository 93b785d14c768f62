"""Each fault planted in arrays of a healthy system: the diagnosis names it, and nothing that it does not imply."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.studies.diagnose import ranking_diagnostics, retrieval_diagnostics
from pr2_jax.studies.diagnose.diagnosis import LOOK, UNKNOWN, Judge, judge
from pr2_jax.studies.diagnose.diagnostic_checks import checks
from pr2_jax.studies.diagnose.ranking_diagnostics import DayRows, Slate

S, V, D, K = 400, 1_000, 16, 10
N, R = 500, 8
JUDGE = Judge(draws=60, seed=0)


def _unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _top(query, videos):
    best = np.argsort(-(query @ videos[1:].T), axis=1)[:, :K] + 1
    return best.astype(np.int32)


def _retrieval(rng):
    """Queries, people and videos of one space; videos are retrieved by both, clicked by chance among the popular."""
    videos = np.r_[np.zeros((1, D)), _unit(rng.normal(size=(V, D)))]
    query, person = _unit(rng.normal(size=(S, D))), 0.5 * _unit(rng.normal(size=(S, D)))
    popularity = np.r_[0, rng.zipf(1.8, V).clip(max=500)].astype(np.float32)
    return {
        "videos": videos,
        "content": rng.uniform(-0.2, 0.5, V),  # cosine by content with the nearest by PDR
        "own": _unit(query + person),
        "nobody": query,
        "asked": _unit(np.roll(query, 1, axis=0) + person),
        "dr": _top(query, videos),
        "popularity": popularity,
        "clicked": rng.choice(V + 1, 600, p=popularity / popularity.sum()),
        "cosine": rng.normal(0.1, 0.2, (S, 40)),
        "epsilon": 0.6,  # its quantile
        "fallback": np.full(S, 0.02),
    }


def _ranking(rng):
    """A ranker that knows what people want but for some noise, mostly by numbers and a little by histories."""
    wish, by_history = rng.normal(size=(N, R)), 0.4 * rng.normal(size=(N, R))
    truth = 1.5 * wish + by_history - 1
    clicked = rng.random((N, R)) < expit(truth)
    user = np.arange(N) % 100
    slate = Slate(user, np.ones((N, R), bool), clicked, np.broadcast_to(np.arange(R), (N, R)))
    return {
        "slate": slate,
        "logit": truth,
        "base": rng.normal(size=(N, R)) + 0.3 * truth,
        "lent": 1.5 * wish + 0.4 * rng.normal(size=(N, R)) - 1,
        "stranger": rng.normal(size=(N, R)),
        "events": rng.integers(0, 400, N),
        "added": np.broadcast_to(0.1 / (1 + np.arange(R)), (N, R)),
        "gates": {task: rng.dirichlet(np.ones(4), 200) for task in ("click", "long_play", "like")},
        "trained": (slate, truth),
        "recalls": {name: tuple((rng.random(300), np.arange(300)) for _ in range(2)) for name in ("pdr", "content")},
        "losses": {name: 1 + 4 * np.exp(-np.arange(60) / 8) for name in ("content", "preference", "pdr", "qin")},
        "days": [_day(rng, name) for name in ("a", "b", "c", "validation", "test")],
    }


def _day(rng, name, factor=1.0):
    p = rng.beta(1.5, 5, 20_000)
    return DayRows(name, np.minimum(p * factor, 0.999), rng.random(20_000) < p)


def _signs(a):
    """Everything measured, from arrays as a work directory would hand them in."""
    passing = a["cosine"] >= np.quantile(_retrieval(np.random.default_rng(0))["cosine"], a["epsilon"])
    past = np.full(S, 40)
    found = retrieval_diagnostics.seed_signs(
        np.arange(S), passing.sum(1), past, passing.sum(1), a.get("configured", a["epsilon"]), a["fallback"], JUDGE
    )
    some = a["videos"][1:]
    cosine = some @ some.T - 3 * np.eye(V)
    found |= retrieval_diagnostics.vector_signs(some, cosine.max(1), a["content"], JUDGE)
    lists = [_top(a[name], a["videos"]) for name in ("own", "nobody", "asked")]
    found |= retrieval_diagnostics.list_signs(a.get("lists", lists[0]), a["dr"], a["popularity"], a["clicked"])
    found |= retrieval_diagnostics.person_signs(np.arange(S), a["own"], a["nobody"], a["asked"], *lists, JUDGE)
    slate, logit = a["slate"], a["logit"]
    found |= ranking_diagnostics.gate_signs(a["gates"], dict.fromkeys(a["gates"], "results"))
    found |= ranking_diagnostics.position_signs(slate, logit, a["added"], JUDGE)
    logits = [logit, a["base"], a["lent"], a["stranger"]]
    found |= ranking_diagnostics.history_signs(slate, *logits, a["events"], (5, 100, 200), JUDGE)
    found |= ranking_diagnostics.fit_signs(a["trained"], (slate, logit), JUDGE)
    found |= ranking_diagnostics.recall_signs(a["recalls"], JUDGE)
    found |= ranking_diagnostics.curve_signs(a["losses"])
    return found | ranking_diagnostics.drift_signs(a["days"])


def _healthy():
    return _retrieval(np.random.default_rng(0)) | _ranking(np.random.default_rng(1))


def _named(arrays):
    findings = judge(checks("quantile"), _signs(arrays))
    assert not [one.check.key for one in findings if one.verdict == UNKNOWN]
    return {one.check.key for one in findings if one.verdict == LOOK}


def _collapse(a, rng):
    a["videos"] = np.r_[np.zeros((1, D)), _unit(np.ones((V, D)) + 0.01 * rng.normal(size=(V, D)))]


def _one_hub(a, rng):
    a["lists"] = np.c_[np.full(S, 7), _top(a["own"], a["videos"])[:, 1:]]


def _eight_hubs(a, rng):
    a["lists"] = np.c_[np.tile(np.arange(1, 9), (S, 1)), _top(a["own"], a["videos"])[:, :2]]


def _by_popularity(a, rng):
    """Videos are drawn by their clicks, the first of them above their due."""
    weight = a["popularity"] ** 1.5
    a["lists"] = np.stack([rng.choice(V + 1, K, replace=False, p=weight / weight.sum()) for _ in range(S)])


def _most_popular(a, rng):
    a["lists"] = np.tile(np.argsort(-a["popularity"])[:K], (S, 1))


def _without_person(a, rng):
    a["own"], a["asked"] = a["nobody"], np.roll(a["nobody"], 1, axis=0)


def _without_query(a, rng):
    a["own"] = a["asked"] = _unit(a["own"] - a["nobody"])


def _stale_epsilon(a, rng):
    a["epsilon"], a["configured"] = 0.75, 0.6


def _same_vectors(a, rng):
    a["videos"][1 : V // 20 + 1] = a["videos"][V // 20 + 1 : V // 10 + 1]


def _position(a, rng):
    """The score of each result, ordered by where it stood."""
    shown = np.sort(a["logit"], axis=1)[:, ::-1]
    a["logit"], a["lent"] = shown, shown + 0.3 * rng.normal(size=shown.shape)
    a["trained"] = a["slate"], shown


def _side_tower(a, rng):
    a["added"] = 3 * np.broadcast_to(np.arange(R) % 2, (N, R))


def _short_misled(a, rng):
    short = (a["events"] >= 5) & (a["events"] < 100)
    a["base"] = np.where(short[:, None], a["logit"], a["base"])
    for name in ("logit", "lent"):
        a[name] = np.where(short[:, None], a["lent"][::-1], a[name])
    a["trained"] = a["slate"], a["logit"]


def _memorised(a, rng):
    a["trained"] = a["slate"], np.where(a["slate"].clicked_NxS, 4.0, -4.0)


FAULTS = {
    "nothing": (lambda a, rng: None, set()),
    "epsilon at .999": (lambda a, rng: a.update(epsilon=0.999), {"qrcf.coverage", "qrcf.seeds", "qrcf.kept"}),
    "epsilon at 0": (lambda a, rng: a.update(epsilon=0.0), {"qrcf.kept"}),
    "epsilon of another embedding": (_stale_epsilon, {"qrcf.moved"}),
    "nobody shares a video": (lambda a, rng: a.update(fallback=np.full(S, 0.8)), {"qrcf.fallback"}),
    "collapsed vectors": (_collapse, {"pdr.cosine", "pdr.rank", "pdr.duplicates", "pdr.skewness"}),
    "pairs of one vector": (_same_vectors, {"pdr.duplicates"}),
    "one hub": (_one_hub, {"pdr.skewness"}),
    "several hubs": (_eight_hubs, {"pdr.skewness", "pdr.hubs"}),
    "drawn by popularity": (
        _by_popularity,
        {"pdr.popularity", "pdr.percentile", "pdr.skewness", "pdr.hubs", "pdr.distinct"},
    ),
    "the most popular": (_most_popular, {"pdr.percentile", "pdr.skewness", "pdr.hubs", "pdr.distinct"}),
    "person ignored": (_without_person, {"pdr.person_moves", "pdr.person_to_query", "pdr.without_person"}),
    "query ignored": (
        _without_query,
        {"pdr.person_moves", "pdr.query_moves", "pdr.person_to_query", "pdr.without_person", "pdr.other_query"},
    ),
    "one expert": (
        lambda a, rng: a["gates"].update(click=np.tile([0.02, 0.94, 0.02, 0.02], (200, 1))),
        {"qin.expert_click"},
    ),
    "score of the position": (_position, {"qin.position_lean", "qin.short_gain"}),
    "position tower": (_side_tower, {"qin.position_adds"}),
    "short histories mislead": (_short_misled, {"qin.short_gain"}),
    "history ignored": (lambda a, rng: a.update(lent=a["logit"]), {"qin.history_moves"}),
    "single histories decide": (lambda a, rng: a.update(lent=rng.normal(size=(N, R))), {"qin.history_moves"}),
    "person worth nothing": (lambda a, rng: a.update(stranger=a["logit"]), {"qin.person_worth"}),
    "training labels memorised": (_memorised, {"fit.qin_auc", "fit.qin_logloss"}),
    "training clicks memorised": (
        lambda a, rng: a["recalls"].update(pdr=((np.ones(300), np.arange(300)), a["recalls"]["pdr"][1])),
        {"fit.pdr_recall"},
    ),
    "stopped too early": (lambda a, rng: a["losses"].update(qin=np.linspace(5, 1, 60)), {"fit.qin_curve"}),
    "one day times 1.5": (lambda a, rng: a["days"].__setitem__(1, _day(rng, "b", 1.5)), {"scores.drift"}),
    "the last day times 1.5": (
        lambda a, rng: a["days"].__setitem__(4, _day(rng, "test", 1.5)),
        {"scores.drift", "scores.last_day"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault):
    plant, names = FAULTS[fault]
    arrays = _healthy()
    plant(arrays, np.random.default_rng(2))
    assert _named(arrays) == names


def test_every_check_is_named_by_some_fault():
    tried = set().union(*(names for _, names in FAULTS.values()))
    # The same measure of another model or head.
    alike = {f"qin.expert_{task}" for task in ("long_play", "like")} | {"fit.content_recall"}
    alike |= {f"fit.{model}_curve" for model in ("content", "preference", "pdr")}
    assert {check.key for check in checks("quantile")} == tried | alike


def test_effective_rank_and_mean_cosine_by_hand(rng):
    assert retrieval_diagnostics.effective_rank(np.eye(5)) == pytest.approx(5)
    assert retrieval_diagnostics.effective_rank(np.tile([[0.6, 0.8]], (9, 1))) == pytest.approx(1)
    x = _unit(rng.normal(size=(30, 4)))
    cosine = x @ x.T
    assert retrieval_diagnostics.mean_cosine(x) == pytest.approx(cosine[~np.eye(30, dtype=bool)].mean())


def test_list_measures_by_hand():
    ids = np.array([[1, 2, 3], [1, 2, -1], [1, 4, 5]])
    assert retrieval_diagnostics.retrieved(ids, 7).tolist() == [0, 3, 2, 1, 1, 1, 0]
    assert retrieval_diagnostics.hub_share(np.r_[0, 3, 2, 1, np.zeros(197, int)]) == pytest.approx(5 / 6)
    assert retrieval_diagnostics.overlaps(ids, np.roll(ids, 1, axis=0)) == pytest.approx([1 / 3, 1, 1 / 3])
    assert np.isnan(retrieval_diagnostics.overlaps(-(ids[:1] ** 2), ids[:1])).all()
    one, other = np.array([3, 1, 2, 2, 9]), np.array([1, 1, 0, 5, 7])
    assert retrieval_diagnostics.rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert np.isnan(retrieval_diagnostics.rank_correlation(one, np.ones(5)))


def test_correlation_within_slates_is_spearmans_of_the_real_results(rng):
    one, other = rng.integers(0, 5, (20, 6)).astype(float), rng.normal(size=(20, 6))
    real = np.arange(6) < rng.integers(0, 7, (20, 1))
    got = ranking_diagnostics.slate_correlation(one, other, real)
    for row in range(20):
        x, y = one[row][real[row]], other[row][real[row]]
        if len(x) < 2 or not np.ptp(x):
            assert np.isnan(got[row])
        else:
            assert got[row] == pytest.approx(spearmanr(x, y).statistic)


def test_two_samples_apart():
    got = ranking_diagnostics.apart(Interval(0.9, 0.87, 0.93, 50), Interval(0.5, 0.46, 0.54, 70))
    assert dataclasses.astuple(got) == pytest.approx((0.4, 0.35, 0.45, 50))


def test_spread_is_what_errors_do_not_explain(rng):
    error = np.full(4_000, 0.1)
    assert ranking_diagnostics.spread_beyond_error(rng.normal(0, 0.1, 4_000), error) < 0.03
    assert ranking_diagnostics.spread_beyond_error(rng.normal(0, np.hypot(0.1, 0.2), 4_000), error) == pytest.approx(
        0.2, abs=0.02
    )
    assert np.isnan(ranking_diagnostics.spread_beyond_error(np.zeros(1), np.ones(1)))


def test_share_of_the_last_quarter_by_hand():
    loss = np.array([10.0, 8, 6, 5, 4, 4, 2, 2])
    assert ranking_diagnostics.last_share(loss) == pytest.approx((4 - 2) / (10 - 2))
    assert np.isnan(ranking_diagnostics.last_share(loss[:7]))
    assert np.isnan(ranking_diagnostics.last_share(loss[::-1]))


def test_a_log_that_cannot_tell_is_unknown_not_ill():
    none = np.zeros(0)
    found = retrieval_diagnostics.seed_signs(none, none, none, none, None, none, JUDGE)
    found |= ranking_diagnostics.gate_signs(
        {"click": np.zeros((0, 4)), "like": np.ones((3, 1))}, {"click": "results", "like": "results"}
    )
    found |= ranking_diagnostics.curve_signs({"pdr": none})
    day = DayRows("test", np.full(50, 0.1), np.zeros(50, bool))
    found |= ranking_diagnostics.drift_signs([day, day])
    nothing = np.full((5, 3), -1)
    found |= retrieval_diagnostics.list_signs(np.ones((5, 3), int), nothing, np.arange(4.0), np.array([1, 2]))
    known = {check.key: check for check in checks("adaptive")}
    assert {one.verdict for one in judge([known[key] for key in found], found)} == {UNKNOWN}


def test_a_log_of_clicks_alone_is_unknown_not_ill(rng):
    """Any order of what was clicked throughout is a perfect one."""
    real = np.arange(4) < rng.integers(1, 5, 60)[:, None]
    slate = Slate(np.arange(60) % 20, real, real.copy(), np.broadcast_to(np.arange(4), (60, 4)))
    logit, other = rng.normal(size=(2, 60, 4))
    found = ranking_diagnostics.fit_signs((slate, logit), (slate, other), JUDGE)
    found |= ranking_diagnostics.history_signs(slate, logit, other, other, other, np.full(60, 6), (5, 9, 20), JUDGE)
    del found["qin.history_moves"]  # which asks for no click
    clicked = DayRows("day", np.full(80, 0.4), np.ones(80, bool))
    found |= ranking_diagnostics.drift_signs([clicked, clicked])
    known = {check.key: check for check in checks("adaptive")}
    assert {one.verdict for one in judge([known[key] for key in found], found)} == {UNKNOWN}
    slate.clicked_NxS[0] = False
    assert np.isfinite(slate.ndcg(logit)[1:]).all()


def test_entropy_of_gates_by_hand():
    """One gate undecided (1 of what is possible), one sure (0)."""
    gate = np.array([[0.5, 0.5], [1, 0]])
    sign = ranking_diagnostics.gate_signs({"click": gate}, {"click": "search results"})["qin.expert_click"]
    assert sign.value == 0.75
    assert sign.note == "experts 0.75 0.25; entropy of a gate 0.50 of what is possible; 2 search results"


def test_scores_against_the_order_shown_lean_on_it_too():
    """What the log's engine showed first is clicked, and scored last: Spearman's of the clicks is √3 / 2, by hand."""
    order = np.tile(np.arange(3), (4, 1))
    slate = Slate(np.arange(4), np.ones((4, 3), bool), order == 0, order)
    lean = ranking_diagnostics.position_signs(slate, 1.0 * order, np.zeros((4, 3)), JUDGE)["qin.position_lean"]
    assert lean.value.mean == pytest.approx(1 + np.sqrt(3) / 2)
    assert lean.note == "scores -1.000, clicks 0.866; 4 slates"


def test_a_history_is_short_from_the_least_events_on_and_below_the_bound():
    """Of people with 4, 5, 9, 10, 19 and 20 events those with 5 and 9 have short ones; only they gain."""
    clicked = np.tile(np.arange(3) == 0, (6, 1))
    slate = Slate(np.arange(6), np.ones((6, 3), bool), clicked, np.tile(np.arange(3), (6, 1)))
    best, worst = 1.0 * clicked, -1.0 * clicked
    events = np.array([4, 5, 9, 10, 19, 20])
    logit = np.where(np.isin(events, (5, 9))[:, None], best, worst)
    signs = ranking_diagnostics.history_signs(slate, logit, worst, logit, logit, events, (5, 10, 20), JUDGE)
    short = signs["qin.short_gain"]
    assert (short.value.mean, short.value.count) == (pytest.approx(0.5), 2)  # NDCG of the third place is 1 / log2(4)
    assert short.note == "5 to 9 events, 2 slates; from 20 on +0.000"


def test_views_count_alike_however_long_the_past():
    """Of 10 views all pass, of 90 none: a tenth of the views, though half of the searches keep all."""
    user, past, passing = np.arange(2), np.array([10, 90]), np.array([10, 0])
    signs = retrieval_diagnostics.seed_signs(user, passing, past, passing, None, np.zeros(2), JUDGE)
    assert signs["qrcf.kept"].value.mean == pytest.approx(0.1)


def test_padding_of_lists_has_no_popularity():
    """Places .25 to 1 in the order of clicks; results stand at 1, .75, 1, clicks at .25 and .5."""
    popularity, lists = np.array([0, 1, 2, 3, 4]), np.array([[4, 3, 0], [4, 0, -1]])
    signs = retrieval_diagnostics.list_signs(lists, lists, popularity, np.array([1, 2]))
    assert signs["pdr.percentile"].value == pytest.approx((2.75 / 3 - 0.375) / (1 - 0.375))


def test_a_distance_has_its_near_end_at_0_where_what_is_wanted_lies_within():
    away = retrieval_diagnostics._away
    within = away(Interval(0.5, 0.4, 0.7, 9), 0.45)
    assert dataclasses.astuple(within) == pytest.approx((0.05, 0, 0.25, 9))
    for wanted, ends in ((0.3, (0.2, 0.1, 0.4, 9)), (0.8, (0.3, 0.1, 0.4, 9))):
        assert dataclasses.astuple(away(Interval(0.5, 0.4, 0.7, 9), wanted)) == pytest.approx(ends)


def test_drift_of_two_days_by_hand():
    """PCOC 1 and 2 of 400 results at p = 1/2: logs 0 and ln 2 with a binomial error of 10 / 200 each."""
    p = np.full(400, 0.5)
    days = [DayRows(name, p, np.arange(400) < clicks) for name, clicks in (("a", 200), ("b", 100))]
    drift = ranking_diagnostics.drift_signs(days)["scores.drift"]
    assert drift.value == pytest.approx(np.sqrt(np.log(2) ** 2 / 2 - 0.05**2))
    assert drift.note == "a 1.000 of 400 results, b 2.000 of 400 results"
