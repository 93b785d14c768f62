"""`pr2 docs`: what is listed, what is printed, and what is said where there is no such document."""

from __future__ import annotations

import pytest

from pr2_jax.cli import documents, entry


@pytest.fixture
def docs(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "DIRECTORY", tmp_path)
    (tmp_path / "decisions").mkdir()
    (tmp_path / "decisions" / "001-one-store.md").write_text("# One store\n\nWhy.\n")
    (tmp_path / "method.md").write_text("# The method, with formulas\n\n## Towers\n\ntext\n")
    (tmp_path / "picture.png").write_bytes(b"")
    return tmp_path


def test_documents_are_listed_by_name_and_title(docs, capsys):
    assert entry.main(["docs"]) == 0
    assert capsys.readouterr().out == (
        "method                   The method, with formulas\ndecisions/001-one-store  One store\n"
    )


@pytest.mark.parametrize("name", ["method", "method.md"])
def test_a_document_is_printed_whole(docs, capsys, name):
    assert entry.main(["docs", name]) == 0
    assert capsys.readouterr().out == (docs / "method.md").read_text()


@pytest.mark.parametrize(
    ("name", "said"), [("methd", ", did you mean 'method'?"), ("zzz", "."), ("../method", ", did you mean 'method'?")]
)
def test_an_unknown_name_is_one_line(docs, capsys, name, said):
    assert entry.main(["docs", name]) == 2
    assert capsys.readouterr().err == (f"pr2: error: there is no document '{name}'{said} `pr2 docs` lists all\n")
