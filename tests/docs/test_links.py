"""The documents: every link and anchor leads somewhere, what code cites exists, and pages stay short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "pr2_jax" / "docs"
PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "BUILD_NOTES.md", *DOCS.rglob("*.md")])
RECORDS = sorted(path for path in (DOCS / "decisions").glob("*.md") if path.name != "README.md")
MOST_LINES = {"README.md": 150, "BUILD_NOTES.md": 200}
RECORD_LINES = 60


def prose(text: str) -> str:
    """Without fenced blocks and without code in a line."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(text: str) -> set[str]:
    """As GitHub makes them: lower case, letters, digits, hyphens; blanks become hyphens."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dangling(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        place, _, anchor = target.partition("#")
        other = (page.parent / place).resolve() if place else page
        there = other.exists() and other.is_relative_to(REPOSITORY)
        if not there or (anchor and anchor not in anchors(other.read_text(encoding="utf-8"))):
            found.append(target)
    return found


def test_every_link_and_anchor_leads_somewhere():
    assert {str(page.relative_to(REPOSITORY)): wrong for page in PAGES if (wrong := dangling(page))} == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](other.md) [b](other.md#the-part) [c](#here)\n\n# Here", []),
        ("[a](missing.md) [b](other.md#missing) [c](#missing)", ["missing.md", "other.md#missing", "#missing"]),
        ("`[a](missing.md)`\n\n```\n[a](missing.md)\n```\n\n![a](missing.png)", ["missing.png"]),
    ],
)
def test_a_dangling_link_is_seen(tmp_path, monkeypatch, text, wrong):
    monkeypatch.setitem(globals(), "REPOSITORY", tmp_path)
    (tmp_path / "other.md").write_text("# Other\n\n## The (part)\n")
    (tmp_path / "page.md").write_text(text)
    assert dangling(tmp_path / "page.md") == wrong


def test_readme_and_build_notes_stay_short():
    lines = {name: len((REPOSITORY / name).read_text(encoding="utf-8").splitlines()) for name in MOST_LINES}
    assert {name: count for name, count in lines.items() if count > MOST_LINES[name]} == {}


def test_each_decision_is_a_numbered_record_of_three_parts():
    index = (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")
    assert [int(path.name[:3]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))
    for path in RECORDS:
        text = path.read_text(encoding="utf-8")
        assert re.match(rf"# {path.name[:3]} \S.*\n\nDate: 20\d\d-\d\d-\d\d\.\n", text), path.name
        parts = re.findall(r"^## (\w+)", text, re.MULTILINE)
        assert [part for part in parts if part in ("Context", "Choice", "Evidence")] == [
            "Context",
            "Choice",
            "Evidence",
        ]
        assert len(text.splitlines()) <= RECORD_LINES, path.name
        assert f"]({path.name})" in index


def test_every_page_can_be_found_from_readme():
    reached, new = set(), {REPOSITORY / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        targets = re.findall(r"\]\(([^)#\s]+\.md)", prose(page.read_text(encoding="utf-8")))
        new |= {(page.parent / target).resolve() for target in targets if "://" not in target} - reached
    assert set(PAGES) <= reached


def test_what_code_cites_exists():
    sections = anchors((DOCS / "method.md").read_text(encoding="utf-8"))
    wrong, cited = [], 0
    for path in sorted((REPOSITORY / "pr2_jax").rglob("*.py")):
        text = re.sub(r"\s*\n\s*#?\s*", " ", path.read_text(encoding="utf-8"))
        for name in re.findall(r"docs/method\.md, ([A-Z][\w-]*(?: [a-z]+)*)", text):
            cited += 1
            if not any(re.match(rf"{section}\b", name.lower().replace(" ", "-")) for section in sections):
                wrong.append(f"{path.name}: {name}")
        wrong += [f"{path.name}: {old}" for old in re.findall(r"METHOD section|\bSTACK \d|\bSTACK section", text)]
        for name in re.findall(r"docs/(decisions/\d+[\w-]*|[a-z]+)\.md", text):
            wrong += [] if (DOCS / f"{name}.md").is_file() else [f"{path.name}: docs/{name}.md"]
    assert wrong == []
    assert cited >= 10


def test_documents_name_no_machine():
    named = r"(?<![\w.])/(?:home|root|work|opt|tmp)/|file://"
    assert [page.name for page in PAGES if re.search(named, page.read_text(encoding="utf-8"))] == []


def test_files_that_documents_name_exist():
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"`((?:\w+/)+\w+\.\w+)`", page.read_text(encoding="utf-8"))
        if name.endswith((".py", ".sh", ".txt", ".slurm", ".yaml")) and name.split("/")[0] not in ("store", "eval")
    }
    roots = (REPOSITORY, REPOSITORY / "pr2_jax")
    assert {one for one in named if not any((root / one[1]).is_file() for root in roots)} == set()
    assert len(named) >= 8
