"""Log lines, bars and silence."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings

import pytest

from pr2_jax import console


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_log_lines_carry_their_stage(capsys):
    console.log("starts")
    with console.stage("pdr"):
        console.log("recall@100 0.95 [bold]")
        with console.stage("qin"):
            console.log("inner")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "pr2       starts\npdr       recall@100 0.95 [bold]\nqin       inner\n"


CLEAN = """
import os
from pr2_jax import console
console.keep_stdout_clean()
os.write(1, b"[Gloo] Rank 0 is connected\\n")
print("a result \\u2192")
console.keep_quiet()
console.log("unheard")
"""


def test_only_python_writes_to_stdout_and_only_the_first_process_logs():
    """In a process of its own: descriptors are changed for good."""
    done = subprocess.run([sys.executable, "-c", CLEAN], capture_output=True, text=True, check=True, encoding="utf-8")
    assert (done.stdout, done.stderr) == ("a result \u2192\n", "")


def test_stage_ends_with_an_exception(capsys):
    with pytest.raises(ValueError, match="x"), console.stage("pdr"):
        raise ValueError("x")
    console.log("after")
    assert capsys.readouterr().err.startswith("pr2 ")


def test_no_bar_when_stderr_is_no_terminal(capsys, clock):
    def slow():
        for item in range(3):
            clock[0] += 10
            yield item

    assert list(console.progress(slow(), "reading", total=3)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal_shows_count_rate_and_note(monkeypatch, clock):
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with console.stage("pdr"), console.Bar("training", total=4, unit="steps") as bar:
        clock[0] = 0.5
        bar.advance()
        assert terminal.getvalue() == "", "patience before a bar appears"
        clock[0] = 2.0
        bar.advance(2, note="loss 1.25")
        console.log("a line above the bar")
        bar._shown.refresh()
    shown = terminal.getvalue()
    assert "training" in shown
    assert "75%" in shown
    assert "1.5 steps/s, 667 ms left" in shown
    assert "loss 1.25" in shown
    assert "pdr       a line above the bar" in shown
    assert not console._live


def test_quick_work_shows_no_bar_even_on_a_terminal(monkeypatch, clock):
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(console.progress([1, 2, 3], "quick")) == [1, 2, 3]
    assert terminal.getvalue() == ""


def test_bar_ends_with_an_exception_and_inner_bars_stay_hidden(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", _Terminal())

    def fail_halfway():
        with console.Bar("outer", 2) as outer:
            clock[0] = 2.0
            outer.advance()
            with console.Bar("inner", 2) as inner:
                clock[0] = 5.0
                inner.advance()
                assert inner._shown is None
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail_halfway()
    assert not console._live


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.35, "350 ms"),
        (0.9999, "1.0 s"),
        (4.24, "4.2 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations(seconds, text):
    assert console.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "seconds", "text"), [(0, 1, "0"), (5, 2, "2.5"), (123_400, 10, "12.3k"), (8.2e6, 2, "4.1M")]
)
def test_rates(count, seconds, text):
    assert console.rate(count, seconds) == text


def test_muted_drops_both_streams_and_gives_them_back(capfd):
    with console.muted():
        print("from Python")
        os.write(2, b"from C++\n")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ValueError, match="x"), console.muted():
        raise ValueError("x")
    print("out")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")


NOISE = """
import logging, warnings
from pr2_jax import console
console.silence_libraries()
import absl.logging
absl.logging.warning("absl")
logging.getLogger("jax._src.xla_bridge").warning("jax")
logging.getLogger("orbax").warning("orbax")
warnings.warn("a library's advice to its developers", DeprecationWarning)
warnings.warn("another", UserWarning)
absl.logging.error("an error stays")
"""


def test_libraries_are_silent_but_for_errors():
    done = subprocess.run([sys.executable, "-c", NOISE], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == "ERROR:absl:an error stays\n"


def test_warnings_return_when_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        console.silence_libraries()
        warnings.warn("seen", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["seen"]
