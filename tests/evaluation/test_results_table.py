"""The results table in its two forms."""

from __future__ import annotations

from pr2_jax.evaluation.results_table import Row, markdown, plain
from pr2_jax.metrics.bootstrap import Interval

ROWS = [
    Row("bm25", {"recall@100": Interval(0.257, 0.22, 0.29, 823), "auc": 0.5}, "retrieval"),
    Row("qin", {"ndcg@10": Interval(0.62, 0.6, 0.64, 823), "auc": float("nan")}, "slate"),
]


def test_plain_is_aligned_and_has_no_escapes() -> None:
    text = plain(ROWS, title="Test day")
    lines = text.splitlines()
    assert lines[0] == "Test day"
    assert "0.2570 ±0.0350" in text
    assert "\x1b" not in text
    assert lines[3].index("0.2570") < lines[3].index("0.5000")
    assert {len(line) for line in lines[1:]} == {len(lines[1])}
    # A rule under the header and one between the sections.
    assert [line.startswith("----") for line in lines[1:]] == [False, True, False, True, False]


def test_markdown() -> None:
    assert markdown(ROWS, ["ndcg@10"]).splitlines() == [
        "|  | ndcg@10 |",
        "|---|---:|",
        "| bm25 | - |",
        "| qin | 0.6200 ±0.0200 |",
    ]


def test_a_text_stands_as_it_is() -> None:
    assert markdown([Row("all", {"sessions": "1,234", "ndcg@10": 0.5, "none": ""})]).splitlines()[-1] == (
        "| all | 1,234 | 0.5000 | - |"
    )
