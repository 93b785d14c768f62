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
    order = in_order(tables, COLUMNS)
    charts = [_chart(group, tables[group]) for group in order]
    return Section(
        _finding({group: tables[group] for group in order}),
        f"The whole system trained anew without each part, {seeds} seed{'s' * (seeds > 1)}, test day. Left of 0: "
        "without the part it is worse, so the part earns its place. Differences search by search, seeds averaged "
        f"first, 95 % intervals over people; costs are the variant's own. {found[DAY].get('note', '')}",
        [Charts(charts), *(_table(group, tables[group]) for group in order)],
        stale=_stale(work),
    )


def _stale(work: Work) -> str:
    """Variants are of the store that their manifest names."""
    judged = work.json(f"ablations/seed_0/{WHOLE.directory}/judged/manifest.json")
    return work.stale_unless({"store": judged["fingerprint"]["store"]}, COMMAND) if judged else ""


def _measure(group: str, rows: dict) -> str:
    names = {name for row in rows.values() for name in row}
    wanted = FIRST.get(group)
    return wanted if wanted in names else next(name for name in METRICS if name in names)


def _ordered(rows: dict, measure: str) -> list[tuple[str, Interval]]:
    """Variants, the largest loss first."""
    found = [(name, estimate(row.get(measure))) for name, row in rows.items() if name != WHOLE.name]
    return sorted(((n, v) for n, v in found if isinstance(v, Interval)), key=lambda one: (one[1].mean, one[0]))


def _chart(group: str, rows: dict) -> Rows:
    measure = _measure(group, rows)
    lines = [Row(name, value, tone_of(value)) for name, value in _ordered(rows, measure)]
    about = f"For each part of {group}: {SAID.get(measure, measure)} without it less with it, 95 % intervals."
    title, axis = f"{group}: {SAID.get(measure, measure)}", "without the part, less the whole"
    return Rows(f"ablations_{group}", title, about, axis, lines, zero=True)


def _table(group: str, rows: dict) -> Table:
    measure = _measure(group, rows)
    have = {name for row in rows.values() for name in row}
    columns = [name for name in COLUMNS.get(group, EVERY) if name in have]
    names = in_order(rows, [WHOLE.name, *(name for name, _ in _ordered(rows, measure))])
    lines = [[name, *(estimate(rows[name].get(c)) for c in columns)] for name in names]
    forms = {"without": "text"} | {c: "signed" if c in METRICS else "plain" for c in columns}
    caption = f"{group}: first row the whole system, below each variant less the whole system"
    return Table(f"ablations_table_{group}", caption, forms, lines, marked=(0,), folded=True, whole=(0,))


def _finding(tables: dict[str, dict]) -> str:
    worst = []
    for group, rows in tables.items():
        measure = _measure(group, rows)
        ordered = _ordered(rows, measure)
        if ordered and ordered[0][1].high < 0:
            name, value = ordered[0]
            worst.append(f"{group}, {name} ({SAID.get(measure, measure)} {value.mean:+.3f})")
    return f"Dearest to lose: {'; '.join(worst)}." if worst else "No part's loss can be told from none."
