"""Checks and findings: a measured diagnostic against its normal range.

A diagnostic is out of range only where its whole 95 % interval is: a small log is not ill for being small. Where the
interval alone reaches the range, the text says so.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pr2_jax.metrics.bootstrap import Interval, number

OK, LOOK, UNKNOWN = "ok", "look", "unknown"
WIDTH, INDENT = 118, " " * 8
"""Of the text."""
Mean = Callable[[np.ndarray, np.ndarray], Interval]
"""(values, their users) to the mean with its interval over users; NaN values are left out."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """What it means to lie beyond one end of a range."""

    says: str
    knob: str  # a field of the config
    turn: str  # what to do with it


@dataclasses.dataclass(frozen=True)
class Check:
    """A diagnostic's normal range; without a fault at one end, the range is open there."""

    key: str  # `pdr.hubs`
    what: str  # is measured, with its unit
    low: float = -math.inf
    high: float = math.inf
    below: Fault | None = None
    above: Fault | None = None

    def __post_init__(self) -> None:
        if math.isfinite(self.low) != (self.below is not None) or math.isfinite(self.high) != (self.above is not None):
            raise ValueError(f"{self.key}: every end of the range needs its fault, and no other")

    @property
    def normal(self) -> str:
        """`0.2 to 0.8`."""
        if self.below and self.above:
            return f"{self.low:g} to {self.high:g}"
        return f"{self.low:g} or more" if self.below else f"{self.high:g} or less"


@dataclasses.dataclass(frozen=True)
class Diagnostic:
    """A measured value, NaN where the log cannot tell; `note` gives people the figures behind it."""

    value: Interval | float
    note: str = ""

    @property
    def ends(self) -> tuple[float, float, float]:
        """The mean, and the least and the greatest value of its interval."""
        value = self.value
        return (value.mean, value.low, value.high) if isinstance(value, Interval) else (value, value, value)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A check with its diagnostic; `fault` where that is out of range."""

    check: Check
    diagnostic: Diagnostic
    verdict: str  # of OK, LOOK, UNKNOWN
    fault: Fault | None = None

    @property
    def knobs(self) -> list[str]:
        """The one to turn, or all that move the diagnostic."""
        faults = [self.fault] if self.fault else [self.check.below, self.check.above]
        return list(dict.fromkeys(fault.knob for fault in faults if fault))

    def plain(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        part, _, name = self.check.key.partition(".")
        return {
            "part": part,
            "name": name,
            "verdict": self.verdict,
            "what": self.check.what,
            "measured": number(self.diagnostic.value),
            "note": self.diagnostic.note,
            "normal": [None if math.isinf(end) else end for end in (self.check.low, self.check.high)],
            "says": self.fault.says if self.fault else None,
            "knobs": self.knobs,
        }


def judge(checks: Sequence[Check], diagnostics: Mapping[str, Diagnostic]) -> list[Finding]:
    """A finding for every check, those out of range first. KeyError where a diagnostic and a check do not match up."""
    if stray := diagnostics.keys() ^ {check.key for check in checks}:
        raise KeyError(f"measured without a check, or checked without a measure: {', '.join(sorted(stray))}")
    found = [_judged(check, diagnostics[check.key]) for check in checks]
    return sorted(found, key=lambda one: (LOOK, UNKNOWN, OK).index(one.verdict))


def _judged(check: Check, diagnostic: Diagnostic) -> Finding:
    mean, low, high = diagnostic.ends
    if math.isnan(mean):
        return Finding(check, diagnostic, UNKNOWN)
    if fault := check.below if high < check.low else check.above if low > check.high else None:
        return Finding(check, diagnostic, LOOK, fault)
    return Finding(check, diagnostic, OK)


def text(findings: Sequence[Finding], title: str) -> str:
    """For people: what is out of range with what it means, then all else; ends with a newline."""
    beyond = sum(one.verdict == LOOK for one in findings)
    first = f"{title} {beyond or 'None'} of {len(findings)} checks {'are' if beyond > 1 else 'is'} out of range."
    lines, last = textwrap.wrap(first, WIDTH), None
    for one in findings:
        lines += [""] * (one.verdict != last) + _entry(one)
        last = one.verdict
    return "\n".join(lines) + "\n"


def _entry(one: Finding) -> list[str]:
    check, fault, (mean, low, high) = one.check, one.fault, one.diagnostic.ends
    half = f" ±{(high - low) / 2:.3f}" if isinstance(one.diagnostic.value, Interval) and math.isfinite(low) else ""
    figure = "not known" if math.isnan(mean) else f"{mean:.3f}{half}"
    head = f"{one.verdict:<8}{check.key:<24}{figure:<18} normal {check.normal}"
    parts, knobs = [check.what, one.diagnostic.note], ", ".join(one.knobs)
    if fault:
        parts += [f"{fault.says[0].upper()}{fault.says[1:]}.", f"Knob: {fault.knob}: {fault.turn}."]
    elif one.verdict == OK and not check.low <= mean <= check.high:
        head += "; ok: the interval reaches the range"
        parts.append(f"Knob: {knobs}.")
    else:
        head += f"; knob {knobs}"
    return [head, *(textwrap.indent(textwrap.fill(part, WIDTH - len(INDENT)), INDENT) for part in parts if part)]
