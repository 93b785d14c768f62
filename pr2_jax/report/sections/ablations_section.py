"""Ablations: the system without each part (`pr2 evaluate --ablations FILE.py`)."""

from __future__ import annotations

from pr2_jax.config.ablation_config import WHOLE
from pr2_jax.drawing.charts import Row, Rows, tone_of
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.report.blocks import Charts, Section, Table, estimate, in_order
from pr2_jax.report.workdir_reader import Work
from pr2_jax.studies.ablations import COLUMNS, EVERY, METRICS

COMMAND = "pr2 evaluate --workdir DIR --ablations configs/ablations.py --seeds 3"
DAY = "test"
FIRST = {"qin": "slates", "preference": "ranked", "pdr": "recall@100", "qrcf": "channel", "channels": "NDCG@10"}
"""By group, the measure that is drawn; another group's is the first that it has."""
SAID = {
    "recall@100": "recall@100 of PR²'s merged list",
    "NDCG@10": "NDCG@10 of PR²'s merged list",
    "ranked": "NDCG@10, retrieved and ranked",
    "slates": "NDCG@10 of shown results",
    "AUC": "AUC of shown results",
    "channel": "recall@100 of the channel alone",
}


def section(work: Work) -> Section:
    """From ablations/ablations.json, the test day's tables."""
    found = work.json("ablations/ablations.json")
    if not found or DAY not in found:
        return Section(missing=COMMAND)
    tables, seeds = found[DAY]["tables"], max((len(v) for v in found[DAY]["by_seed"].values()), default=1)
    charts, blocks, worst = [], [], []
    for group in in_order(tables, COLUMNS):
        rows = tables[group]
        measure = _measure(group, {name for row in rows.values() for name in row})
        said, losses = SAID.get(measure, measure), _losses(rows, measure)
        charts.append(_chart(group, said, losses))
        blocks.append(_table(group, rows, [WHOLE.name, *losses]))
        for name, value in list(losses.items())[:1]:
            worst += [f"{group}, {name} ({said} {value.mean:+.3f})"] if value.high < 0 else []
    return Section(
        f"Dearest to lose: {'; '.join(worst)}." if worst else "No part's loss can be told from none.",
        f"The whole system trained anew without each part, {seeds} seed{'s' * (seeds > 1)}, test day. Left of 0: "
        "without the part it is worse, so the part earns its place. Differences search by search, seeds averaged "
        f"first, 95 % intervals over people; costs are the variant's own. {found[DAY].get('note', '')}",
        [Charts(charts), *blocks],
        stale=_stale(work),
    )


def _stale(work: Work) -> str:
    """Variants are of the store that their manifest names."""
    judged = work.json(f"ablations/seed_0/{WHOLE.directory}/judged/manifest.json")
    return work.stale_unless({"store": judged["fingerprint"]["store"]}, COMMAND) if judged else ""


def _measure(group: str, have: set[str]) -> str:
    wanted = FIRST.get(group)
    return wanted if wanted in have else next(name for name in METRICS if name in have)


def _losses(rows: dict, measure: str) -> dict[str, Interval]:
    """Of the variants, the largest loss first."""
    found = {name: estimate(row.get(measure)) for name, row in rows.items() if name != WHOLE.name}
    known = ((name, value) for name, value in found.items() if isinstance(value, Interval))
    return dict(sorted(known, key=lambda one: (one[1].mean, one[0])))


def _chart(group: str, said: str, losses: dict[str, Interval]) -> Rows:
    lines = [Row(name, value, tone_of(value)) for name, value in losses.items()]
    about = f"For each part of {group}: {said} without it less with it, 95 % intervals."
    axis = "without the part, less the whole"
    return Rows(f"ablations_{group}", f"{group}: {said}", about, axis, lines, zero=True)


def _table(group: str, rows: dict, order: list[str]) -> Table:
    have = {name for row in rows.values() for name in row}
    columns = [name for name in COLUMNS.get(group, EVERY) if name in have]
    lines = [[name, *(estimate(rows[name].get(c)) for c in columns)] for name in in_order(rows, order)]
    forms = {"without": "text"} | {c: "signed" if c in METRICS else "plain" for c in columns}
    caption = f"{group}: first row the whole system, below each variant less the whole system"
    return Table(f"ablations_table_{group}", caption, forms, lines, marked=(0,), folded=True, whole=(0,))
