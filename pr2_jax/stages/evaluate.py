"""Judges everything on the test day, once: run files, metrics.json, one table. Nothing is chosen here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.config import Config
from pr2_jax.data.slates import Slates, search_slates
from pr2_jax.errors import BadInput
from pr2_jax.evaluation import metrics, table
from pr2_jax.evaluation.bootstrap import Interval, interval, paired_difference
from pr2_jax.evaluation.runs import write_run
from pr2_jax.search.searcher import Searcher
from pr2_jax.search.system import System
from pr2_jax.stages.days import Day, day_of
from pr2_jax.stages.leaks import probe_day, probe_training
from pr2_jax.types import NO_VIDEO

SESSION_BLOCK = 128
RETRIEVAL_COLUMNS = ("recall@10", "recall@100", "ndcg@10", "map", "mrr")
SLATE_COLUMNS = ("ndcg@10", "mrr", "auc", "gauc", "pooled_auc", "logloss", "ece", "pcoc")
COMPARISONS = (
    ("retrieval.pr2", "retrieval.bm25+dr", ("recall@10", "recall@100", "ndcg@10")),
    ("pipeline.pr2", "pipeline.base", ("recall@10", "ndcg@10", "mrr")),
    ("slate.qin", "slate.base", ("ndcg@10", "auc")),
)

UNLEARNED = ("random", "popularity")

Ranking = tuple[np.ndarray, np.ndarray]
"""Video rows `[S, K]` (-1 = padding) and scores `[S, K]`."""


def run(workdir: Path, config: Config, out: Path) -> None:
    """Writes run files, `metrics.json`, `table.txt` and `table.md` into `out`."""
    system = System(workdir, config)
    cuts = system.store.cuts
    day = day_of(system, cuts.test_ms, cuts.end_ms)
    if not len(day.sessions):
        raise BadInput(f"{workdir / 'store'}: no search of the test day has a click: there is nothing to judge by")
    probed = {"test_day": probe_day(system, config, cuts.test_ms), "training_day": probe_training(system, config)}
    counts = " and ".join(f"{count} searches of the {day.replace('_', ' ')}" for day, count in probed.items())
    console.log(f"leak probe: {counts} are told the same with their future removed")
    snapshot = system.snapshot(cuts.test_ms)
    searchers = {name: Searcher(system, snapshot, name) for name in ("pr2", "base")}
    judged = _Judged(system, config, out)
    for name, ranking in _retrieved(system, searchers, day, config).items():
        judged.retrieval(name, ranking, day)
    slates = search_slates(system.store, day.all_sessions, _longest(system, day))
    for name, (scores, probability) in _slate_scores(searchers, system, slates, config).items():
        judged.slate(name, scores, probability, slates, day)
    judged.finish(probed)


def print_table(workdir: Path) -> None:
    """What `run` found, to stdout."""
    print((workdir / "eval" / "table.txt").read_text(), end="")


def _longest(system: System, day: Day) -> int:
    first = np.asarray(system.store.sessions.first_impression)
    return int((first[day.all_sessions + 1] - first[day.all_sessions]).max(initial=1))


def _retrieved(system: System, searchers: dict[str, Searcher], day: Day, config: Config) -> dict[str, Ranking]:
    """Rankings of the whole catalogue by every channel and pipeline, for sessions with a click."""
    depth, parts = config.retrieval.depth, []
    starts = range(0, len(day.sessions), SESSION_BLOCK)
    for start in console.progress(starts, "retrieve and rank", unit=" blocks"):
        requests = day.requests.slice(start, start + SESSION_BLOCK)
        query_B = day.query_N[start : start + SESSION_BLOCK]
        found = searchers["pr2"].retrieve(requests)
        part: dict[str, Ranking] = {f"retrieval.{name}": (c.ids_BxK, c.scores_BxK) for name, c in found.items()}
        for name, label in (("base", "bm25+dr"), ("pr2", "pr2")):
            merged = searchers[name].merge(requests, found, depth)
            part[f"retrieval.{label}"] = (merged.ids_BxK, merged.scores_BxK)
            shallow = searchers[name].candidates(requests, found, config.evaluation.pipeline_candidates)
            ranked = searchers[name].rank(requests, query_B, shallow)
            part[f"pipeline.{name}"] = (ranked.ids_BxK, ranked.scores_BxK)
        part |= _unlearned(system, requests.seen, config, start)
        parts.append(part)
    order = ["random", "popularity", "bm25", "dr", "bm25+dr", "qrcf", "pdr", "pr2"]
    names = [f"retrieval.{name}" for name in order] + ["pipeline.base", "pipeline.pr2"]
    return {name: tuple(np.concatenate([part[name][i] for part in parts]) for i in (0, 1)) for name in names}


def _unlearned(system: System, seen: tuple[np.ndarray, ...], config: Config, start: int) -> dict[str, Ranking]:
    """Random and popularity rankings of what the person had not clicked; neither looks at the whole catalogue."""
    videos = system.store.counts.videos
    depth = min(config.retrieval.depth, videos - 1)
    popularity_V = np.asarray(system.snapshot(system.store.cuts.test_ms).popularity_V).astype(np.float32)
    most = min(videos, depth + 1 + max((len(gone) for gone in seen), default=0))
    popular = np.lexsort((np.arange(videos), -popularity_V))[:most]
    rng = np.random.default_rng([config.evaluation.seed, start])
    shape = (len(seen), depth)
    out = {name: (np.full(shape, NO_VIDEO, np.int32), np.full(shape, -np.inf, np.float32)) for name in UNLEARNED}
    for row, gone in enumerate(seen):
        drawn = rng.permutation(np.unique(rng.integers(1, videos, 2 * most)))
        for name, ids in zip(UNLEARNED, (drawn, popular), strict=True):
            kept = ids[(ids > 0) & ~np.isin(ids, gone)][:depth]
            scores = popularity_V[kept] if name == "popularity" else np.arange(len(kept), 0, -1)
            out[name][0][row, : len(kept)], out[name][1][row, : len(kept)] = kept, scores
    return {f"retrieval.{name}": ranking for name, ranking in out.items()}


def _slate_scores(
    searchers: dict[str, Searcher], system: System, slates: Slates, config: Config
) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Scores `[N, S]` of the shown results and, for the rankers, calibrated click probabilities."""
    requests = system.requests_of(slates)
    popularity_V = np.asarray(system.snapshot(system.store.cuts.test_ms).popularity_V)
    out: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "random": (np.random.default_rng(config.evaluation.seed).random(slates.video_NxS.shape), None),
        "popularity": (popularity_V[slates.video_NxS], None),
        "bm25": (system.bm25.scores(requests.words_BxQ, slates.video_NxS), None),
    }
    for name, label in (("base", "base"), ("pr2", "qin")):
        logits = searchers[name].score(requests, slates.query_N, slates.video_NxS)
        out[label] = (logits[..., 0], searchers[name].calibrated.probabilities(logits)[..., 0])
    return out


class _Judged:
    """Collects metrics of each ranking and writes it out."""

    def __init__(self, system: System, config: Config, out: Path) -> None:
        self._system, self._out, self._draws = system, out, config.evaluation.bootstrap
        self._seed = config.evaluation.seed
        self._values: dict[str, dict[str, np.ndarray]] = {}  # ranking → metric → value of each session
        self._users: dict[str, np.ndarray] = {}
        self._rows: dict[str, dict[str, Interval | float]] = {}

    def retrieval(self, name: str, ranking: Ranking, day: Day) -> None:
        """Judges a ranking of the whole catalogue and writes its run file."""
        store, (ids, scores) = self._system.store, ranking
        raw = np.asarray(store.videos.raw_id)
        session = np.asarray(store.sessions.raw_id)[day.sessions]
        self._write(name, session, np.where(ids > 0, raw[ids], NO_VIDEO), scores)
        hit = np.stack([np.isin(row, videos) for row, videos in zip(ids, day.clicked, strict=True)])
        positives = np.array([len(videos) for videos in day.clicked])
        found = metrics.retrieval_metrics(np.asarray(scores, np.float32), hit & (ids > 0), ids > 0, positives)
        self._keep(name, found, np.asarray(store.sessions.user)[day.sessions], RETRIEVAL_COLUMNS)

    def slate(self, label: str, scores: np.ndarray, probability: np.ndarray | None, slates: Slates, day: Day) -> None:
        """Judges an order of the shown results; order metrics count sessions with a click, the others all rows."""
        name, store = f"slate.{label}", self._system.store
        valid, clicked = slates.video_NxS > 0, slates.label_NxSxT[..., 0] > 0
        scores = np.asarray(scores, np.float32)
        raw = np.where(valid, np.asarray(store.videos.raw_id)[slates.video_NxS], NO_VIDEO)
        self._write(name, np.asarray(store.sessions.raw_id)[day.all_sessions], raw, scores)
        found = metrics.slate_metrics(scores, clicked, valid)
        self._keep(name, found, slates.user_N, ("ndcg@10", "mrr", "auc"))
        row, users = self._rows[name], np.broadcast_to(slates.user_N[:, None], valid.shape)[valid]
        labels = clicked[valid]
        each, weight = metrics.user_auc(labels, scores[valid], users)
        row["gauc"] = interval(each, np.arange(len(each)), weight, self._draws, self._seed)
        row["pooled_auc"] = metrics.auc(labels, scores[valid])
        if probability is not None:
            p = probability[valid]
            row["logloss"] = interval(metrics.log_losses(labels, p), users, None, self._draws, self._seed)
            row["ece"] = metrics.expected_calibration_error(labels, p)
            row["pcoc"] = metrics.predicted_over_observed(labels, p)

    def finish(self, probed: dict[str, int]) -> None:
        """Writes metrics.json and the tables."""
        differences = {
            f"{name} - {against}": {
                metric: paired_difference(
                    self._values[name][metric],
                    self._values[against][metric],
                    self._users[name],
                    self._draws,
                    self._seed,
                )
                for metric in names
            }
            for name, against, names in COMPARISONS
        }
        plain = {
            "rows": {f"{name}.run": {m: _number(v) for m, v in row.items()} for name, row in self._rows.items()},
            "differences": {n: {m: _number(v) for m, v in row.items()} for n, row in differences.items()},
            "leak_probe_sessions": probed,
        }
        artifacts.write_json(self._out / "metrics.json", plain)
        text, mark = [], []
        for title, prefixes, columns in (
            ("Whole catalogue, test day, videos already clicked removed", ("retrieval", "pipeline"), RETRIEVAL_COLUMNS),
            ("Shown results reordered, test day", ("slate",), SLATE_COLUMNS),
        ):
            rows = [table.Row(n, r, n.split(".")[0]) for n, r in self._rows.items() if n.split(".")[0] in prefixes]
            text.append(table.plain(rows, columns, title))
            mark.append(f"{title}\n\n{table.markdown(rows, columns)}")
        lines = ["Paired differences, 95 % intervals by bootstrap over users"]
        for name, row in differences.items():
            lines += [f"  {name:<36} {m:<10} {v.mean:+.4f} [{v.low:+.4f}, {v.high:+.4f}]" for m, v in row.items()]
        text.append("\n".join(lines) + "\n")
        (self._out / "table.txt").write_text("\n".join(text))
        (self._out / "table.md").write_text("\n".join(mark))

    def _keep(self, name: str, found: dict[str, np.ndarray], users: np.ndarray, columns: tuple[str, ...]) -> None:
        self._values[name], self._users[name] = found, users
        self._rows[name] = {m: interval(found[m], users, None, self._draws, self._seed) for m in columns}

    def _write(self, name: str, sessions: np.ndarray, raw_ids: np.ndarray, scores: np.ndarray) -> None:
        write_run(self._out / f"{name}.run", sessions, raw_ids, scores, name)


def _number(value: Interval | float) -> dict | float | None:
    if isinstance(value, Interval):
        return {k: (v if np.isfinite(v) else None) for k, v in dataclasses.asdict(value).items()}
    return float(value) if np.isfinite(value) else None
