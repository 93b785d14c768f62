"""The worked examples of docs/extending.md run, one after the other, on a finished work directory."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "pr2_jax" / "docs" / "extending.md"


def test_every_example_runs(finished, capsys, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    module = types.ModuleType("extending")  # dataclasses look for the module of a class
    monkeypatch.setitem(sys.modules, "extending", module)
    names = vars(module)
    for number, block in enumerate(blocks, 1):
        ran = block.replace('"work/quickstart"', repr(str(finished)))
        exec(compile(ran, f"extending.md, example {number}", "exec"), names)  # noqa: S102  the code of our own documents
    said = capsys.readouterr().out
    authors, heads, rates = (
        re.search(rf"^{begin}.*", said, re.MULTILINE)[0] for begin in ("authors: ", r"\[", "log odds")
    )
    assert not authors.startswith("authors: 0.0 "), "the channel finds something"
    assert "('follow', 'follow', 0.1)" in heads
    assert len(re.findall(r"-?\d+\.\d*", rates)) == names["task"].kinds

    found, encoded = names["found"]["authors"], names["encoded"]
    for ids_K, seen in zip(found.ids_BxK, encoded.requests.seen, strict=True):
        assert not set(ids_K[ids_K > 0].tolist()) & {0, *seen.tolist()}
