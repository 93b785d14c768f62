"""Each fault planted in arrays of a healthy system: the diagnosis names it, and nothing that it does not imply."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from pr2_jax.metrics.bootstrap import Interval, interval
from pr2_jax.studies.diagnose import ranking_diagnostics, retrieval_diagnostics
from pr2_jax.studies.diagnose.diagnose import checks
from pr2_jax.studies.diagnose.findings import LOOK, UNKNOWN, Diagnostic, judge
from pr2_jax.studies.diagnose.ranking_diagnostics import Slate

S, V, D, K = 400, 1_000, 16, 10
N, R = 500, 8
MEAN = functools.partial(interval, draws=60, seed=0)


def _unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _top(query, videos):
    best = np.argsort(-(query @ videos[1:].T), axis=1)[:, :K] + 1
    return best.astype(np.int32)


def _retrieval(rng):
    """Queries, people and videos of one space; videos are retrieved by both."""
    videos = np.r_[np.zeros((1, D)), _unit(rng.normal(size=(V, D)))]
    query, person = _unit(rng.normal(size=(S, D))), 0.5 * _unit(rng.normal(size=(S, D)))
    popularity = np.r_[0, rng.zipf(1.8, V).clip(max=500)].astype(np.float32)
    return {
        "videos": videos,
        "own": _unit(query + person),
        "nobody": query,
        "dr": _top(query, videos),
        "popularity": popularity,
        "cosine": rng.normal(0.1, 0.2, (S, 40)),
        "epsilon": 0.6,  # its quantile
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
        "lent": 1.5 * wish + 0.4 * rng.normal(size=(N, R)) - 1,
        "stranger": rng.normal(size=(N, R)),
        "events": rng.integers(0, 400, N),
        "gates": {task: rng.dirichlet(np.ones(4), 200) for task in ("click", "long_play", "like")},
        "recalls": {name: tuple((rng.random(300), np.arange(300)) for _ in range(2)) for name in ("pdr", "content")},
        "day": _day(rng),
    }


def _day(rng, factor=1.0):
    p = rng.beta(1.5, 5, 20_000)
    return np.minimum(p * factor, 0.999), rng.random(20_000) < p


def _diagnostics(a):
    """Everything measured, from arrays as a work directory would hand them in."""
    passing = a["cosine"] >= np.quantile(_retrieval(np.random.default_rng(0))["cosine"], a["epsilon"])
    own, nobody = (_top(a[name], a["videos"]) for name in ("own", "nobody"))
    slate, logit, events = a["slate"], a["logit"], a["events"]
    found = {
        "qrcf.coverage": retrieval_diagnostics.seed_coverage(np.arange(S), passing.sum(1), np.full(S, 40), MEAN),
        "pdr.rank": retrieval_diagnostics.rank_share(a["videos"][1:]),
        "pdr.hubs": retrieval_diagnostics.hub_excess(a.get("lists", own), a["dr"], V + 1),
        "pdr.without_person": Diagnostic(MEAN(retrieval_diagnostics.overlaps(own, nobody), np.arange(S))),
        "qin.position_lean": ranking_diagnostics.position_lean(slate, logit, MEAN),
        "qin.history_moves": ranking_diagnostics.history_moves(slate, logit, a["lent"], events, MEAN),
        "qin.person_worth": ranking_diagnostics.person_worth(slate, logit, a["stranger"], events, MEAN),
        "scores.last_day": ranking_diagnostics.pcoc(*a["day"]),
    }
    for task, gates in a["gates"].items():
        found[f"qin.expert_{task}"] = ranking_diagnostics.most_used_expert(gates, "results")
    for model, days in a["recalls"].items():
        found[f"fit.{model}_recall"] = retrieval_diagnostics.gap(*(MEAN(*day) for day in days))
    return found


def _healthy():
    return _retrieval(np.random.default_rng(0)) | _ranking(np.random.default_rng(1))


def _named(arrays):
    findings = judge(checks("quantile"), _diagnostics(arrays))
    assert not [one.check.key for one in findings if one.verdict == UNKNOWN]
    return {one.check.key for one in findings if one.verdict == LOOK}


def _collapse(a, rng):
    a["videos"] = np.r_[np.zeros((1, D)), _unit(np.ones((V, D)) + 0.01 * rng.normal(size=(V, D)))]


def _eight_hubs(a, rng):
    a["lists"] = np.c_[np.tile(np.arange(1, 9), (S, 1)), _top(a["own"], a["videos"])[:, :2]]


def _by_popularity(a, rng):
    """Videos are drawn by their clicks, the first of them above their due."""
    weight = a["popularity"] ** 1.5
    a["lists"] = np.stack([rng.choice(V + 1, K, replace=False, p=weight / weight.sum()) for _ in range(S)])


def _most_popular(a, rng):
    a["lists"] = np.tile(np.argsort(-a["popularity"])[:K], (S, 1))


def _without_person(a, rng):
    a["own"] = a["nobody"]


def _without_query(a, rng):
    a["own"] = _unit(a["own"] - a["nobody"])


def _position(a, rng):
    """The score of each result, ordered by where it stood."""
    shown = np.sort(a["logit"], axis=1)[:, ::-1]
    a["logit"], a["lent"] = shown, shown + 0.3 * rng.normal(size=shown.shape)


FAULTS = {
    "nothing": (lambda a, rng: None, set()),
    "epsilon at .999": (lambda a, rng: a.update(epsilon=0.999), {"qrcf.coverage"}),
    "collapsed vectors": (_collapse, {"pdr.rank"}),
    "several hubs": (_eight_hubs, {"pdr.hubs"}),
    "drawn by popularity": (_by_popularity, {"pdr.hubs"}),
    "the most popular": (_most_popular, {"pdr.hubs"}),
    "person ignored": (_without_person, {"pdr.without_person"}),
    "query ignored": (_without_query, {"pdr.without_person"}),
    "one expert": (
        lambda a, rng: a["gates"].update(click=np.tile([0.02, 0.94, 0.02, 0.02], (200, 1))),
        {"qin.expert_click"},
    ),
    "score of the position": (_position, {"qin.position_lean"}),
    "history ignored": (lambda a, rng: a.update(lent=a["logit"]), {"qin.history_moves"}),
    "single histories decide": (lambda a, rng: a.update(lent=rng.normal(size=(N, R))), {"qin.history_moves"}),
    "person worth nothing": (lambda a, rng: a.update(stranger=a["logit"]), {"qin.person_worth"}),
    "training clicks memorised": (
        lambda a, rng: a["recalls"].update(pdr=((np.ones(300), np.arange(300)), a["recalls"]["pdr"][1])),
        {"fit.pdr_recall"},
    ),
    "the last day times 1.5": (lambda a, rng: a.update(day=_day(rng, 1.5)), {"scores.last_day"}),
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
    assert {check.key for check in checks("quantile")} == tried | alike


def test_effective_rank_by_hand():
    assert retrieval_diagnostics.effective_rank(np.eye(5)) == pytest.approx(5)
    assert retrieval_diagnostics.effective_rank(np.tile([[0.6, 0.8]], (9, 1))) == pytest.approx(1)


def test_list_measures_by_hand():
    ids = np.array([[1, 2, 3], [1, 2, -1], [1, 4, 5]])
    assert retrieval_diagnostics.hub_share(ids, 201) == pytest.approx(5 / 8)  # of 200 videos the two of 3 and 2 lists
    assert retrieval_diagnostics.overlaps(ids, np.roll(ids, 1, axis=0)) == pytest.approx([1 / 3, 1, 1 / 3])
    assert np.isnan(retrieval_diagnostics.overlaps(-(ids[:1] ** 2), ids[:1])).all()


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
    got = retrieval_diagnostics.gap(Interval(0.9, 0.87, 0.93, 50), Interval(0.5, 0.46, 0.54, 70)).value
    assert dataclasses.astuple(got) == pytest.approx((0.4, 0.35, 0.45, 50))


def _verdicts(found):
    known = {check.key: check for check in checks("adaptive")}
    return {one.verdict for one in judge([known[key] for key in found], found)}


def test_a_log_that_cannot_tell_is_unknown_not_ill():
    none = np.zeros(0)
    found = {
        "qrcf.coverage": retrieval_diagnostics.seed_coverage(none, none, none, MEAN),
        "qin.expert_click": ranking_diagnostics.most_used_expert(np.zeros((0, 4)), "results"),
        "qin.expert_like": ranking_diagnostics.most_used_expert(np.ones((3, 1)), "results"),
        "scores.last_day": ranking_diagnostics.pcoc(np.full(50, 0.1), np.zeros(50, bool)),
        "pdr.hubs": retrieval_diagnostics.hub_excess(np.ones((5, 3), int), np.full((5, 3), -1), 4),
    }
    assert _verdicts(found) == {UNKNOWN}


def test_a_log_of_clicks_alone_is_unknown_not_ill(rng):
    """Any order of what was clicked throughout is a perfect one."""
    real = np.arange(4) < rng.integers(1, 5, 60)[:, None]
    slate = Slate(np.arange(60) % 20, real, real.copy(), np.broadcast_to(np.arange(4), (60, 4)))
    logit, other = rng.normal(size=(2, 60, 4))
    found = {
        "qin.person_worth": ranking_diagnostics.person_worth(slate, logit, other, np.full(60, 6), MEAN),
        "scores.last_day": ranking_diagnostics.pcoc(np.full(80, 0.4), np.ones(80, bool)),
    }
    assert _verdicts(found) == {UNKNOWN}


def test_entropy_of_gates_by_hand():
    """One gate undecided (1 of what is possible), one sure (0)."""
    found = ranking_diagnostics.most_used_expert(np.array([[0.5, 0.5], [1, 0]]), "search results")
    assert found.value == 0.75
    assert found.note == "experts 0.75 0.25; entropy of a gate 0.50 of what is possible; 2 search results"


def test_scores_against_the_order_shown_lean_on_it_too():
    """What the log's engine showed first is clicked, and scored last: Spearman's of the clicks is √3 / 2, by hand."""
    order = np.tile(np.arange(3), (4, 1))
    slate = Slate(np.arange(4), np.ones((4, 3), bool), order == 0, order)
    lean = ranking_diagnostics.position_lean(slate, 1.0 * order, MEAN)
    assert lean.value.mean == pytest.approx(1 + np.sqrt(3) / 2)
    assert lean.note == "scores -1.000, clicks 0.866; 4 slates"


def test_pcoc_of_a_day_by_hand():
    """200 predicted and 100 observed clicks of 400 results: 2, with a binomial error of the logarithm of 10 / 200."""
    value = ranking_diagnostics.pcoc(np.full(400, 0.5), np.arange(400) < 100).value
    ends = np.exp(np.log(2) + np.array([-1, 1]) * 1.96 * 10 / 200)
    assert dataclasses.astuple(value) == pytest.approx((2, *ends, 400))
