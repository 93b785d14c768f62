"""The trade-off of QRCF's threshold on the validation day (`pr2 evaluate --sweep qrcf`)."""

from __future__ import annotations

from pr2_jax.report.blocks import Charts, Note, Section, Table
from pr2_jax.report.workdir_reader import Work
from pr2_jax.studies.qrcf_sweep import ALONE, DIRECTORY, MERGED
from pr2_jax.studies.sweep_report import DRAWN, charts_of, point_name, value_of

COMMAND = "pr2 evaluate --workdir DIR --sweep qrcf"
SHOWN = {
    "epsilon": "epsilon",
    f"{ALONE}.coverage": "coverage",
    f"{ALONE}.seeds": "seeds a search",
    f"{ALONE}.relevance": "relevance",
    f"{ALONE}.entropy": "category entropy",
    f"{ALONE}.{DRAWN}": f"{DRAWN}, alone",
    f"{MERGED}.{DRAWN}": f"{DRAWN}, merged",
    f"{MERGED}.ndcg@10": "ndcg@10, merged",
}


def section(work: Work) -> Section:
    """From sweep_qrcf/points.csv."""
    points = _of_the_grid(work)
    if not points:
        return Section(missing=COMMAND)
    today = next((p for p in points if p["configured"] == "1"), points[0])
    best = max(points, key=lambda p: value_of(p, f"{ALONE}.{DRAWN}"))
    lines = [[point_name(p), *(value_of(p, name) for name in SHOWN)] for p in points]
    marked = [n for n, p in enumerate(points) if p["configured"] == "1"]
    columns = {"threshold": "text"} | dict.fromkeys(SHOWN.values(), "metric")
    return Section(
        f"{DRAWN} of QRCF alone reaches {value_of(best, f'{ALONE}.{DRAWN}'):.3f} ({point_name(best)}); configured "
        f"{value_of(today, f'{ALONE}.{DRAWN}'):.3f} ({point_name(today)}).",
        "QRCF keeps past views whose cosine with the query is above epsilon: a strict threshold gives fewer, more "
        "relevant seeds and narrower results, a lax one finds more. Points are thresholds (numbers: their quantiles, "
        "of the configured K), judged on the validation day. The ring is what is configured.",
        [
            Charts(charts_of(points)),
            Table("frontier", "Every point of the sweep, validation day", columns, lines, marked, folded=True),
            Note("points.csv of the sweep has every measure, with intervals."),
        ],
        stale=work.stale(DIRECTORY, COMMAND),
    )


def _of_the_grid(work: Work) -> list[dict[str, str]]:
    """The points of the grid, without those that compare both thresholds at equally many seeds."""
    manifest = work.json(f"{DIRECTORY}/manifest.json") or {}
    grid = manifest.get("fingerprint", {}).get("grid", {})
    asked = work.csv(f"{DIRECTORY}/points.csv")
    return [p for p in asked if p["configured"] == "1" or float(p["quantile"]) in grid.get(p["threshold"], ())]
