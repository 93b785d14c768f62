"""What a measure of a system's health is held against: its normal range, what lies outside of it, and which knob helps.

A finding is out of range only where the whole of its 95 % interval is, if it has one: a small log is not ill for being
small.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pr2_jax.metrics.bootstrap import Interval, interval, number

OK, LOOK, UNKNOWN = "ok", "look", "unknown"
WIDTH = 118
"""Of the text."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """How intervals are taken: by bootstrap over people."""

    draws: int
    seed: int

    def mean(self, values_N: np.ndarray, user_N: np.ndarray) -> Interval:
        """NaN values are left out."""
        return interval(values_N, user_N, None, self.draws, self.seed)


@dataclasses.dataclass(frozen=True)
class Side:
    """What it means to lie beyond one end of a range."""

    says: str
    knob: str  # a field of the config
    turn: str  # what to do with it


@dataclasses.dataclass(frozen=True)
class Check:
    """One measure and its normal range; a side without an end is normal however far it goes."""

    part: str
    name: str
    what: str  # is measured, with its unit
    low: float = -math.inf
    high: float = math.inf
    below: Side | None = None
    above: Side | None = None

    def __post_init__(self) -> None:
        if math.isfinite(self.low) != (self.below is not None) or math.isfinite(self.high) != (self.above is not None):
            raise ValueError(f"{self.part}.{self.name}: every end of the range needs its side, and no other")

    @property
    def key(self) -> str:
        """`pdr.hubs`: what measures are called by."""
        return f"{self.part}.{self.name}"

    @property
    def normal(self) -> str:
        """`0.2 to 0.8`."""
        if self.below and self.above:
            return f"{self.low:g} to {self.high:g}"
        return f"{self.low:g} or more" if self.below else f"{self.high:g} or less"


@dataclasses.dataclass(frozen=True)
class Sign:
    """A measured value; NaN where the log cannot tell. `note`: what stands behind it, for people."""

    value: Interval | float
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A check with what was measured."""

    check: Check
    sign: Sign
    verdict: str  # of OK, LOOK, UNKNOWN
    side: Side | None  # beyond which it lies

    def plain(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        check, sides = self.check, [side for side in (self.check.below, self.check.above) if side]
        ends = [None if math.isinf(end) else end for end in (check.low, check.high)]
        return {
            "part": check.part,
            "name": check.name,
            "verdict": self.verdict,
            "what": check.what,
            "measured": number(self.sign.value),
            "note": self.sign.note,
            "normal": ends,
            "says": self.side.says if self.side else None,
            "knobs": [self.side.knob] if self.side else list(dict.fromkeys(side.knob for side in sides)),
        }


def judge(checks: Sequence[Check], signs: Mapping[str, Sign]) -> list[Finding]:
    """Every check with its verdict, those out of range first. KeyError where a measure and a check do not match up."""
    if stray := signs.keys() ^ {check.key for check in checks}:
        raise KeyError(f"measured without a check, or checked without a measure: {', '.join(sorted(stray))}")
    found = [_judged(check, signs[check.key]) for check in checks]
    return sorted(found, key=lambda one: (LOOK, UNKNOWN, OK).index(one.verdict))


def _judged(check: Check, sign: Sign) -> Finding:
    value = sign.value
    mean, low, high = (value.mean, value.low, value.high) if isinstance(value, Interval) else (value,) * 3
    if math.isnan(mean):
        return Finding(check, sign, UNKNOWN, None)
    if high < check.low:
        return Finding(check, sign, LOOK, check.below)
    if low > check.high:
        return Finding(check, sign, LOOK, check.above)
    return Finding(check, sign, OK, None)


def text(findings: Sequence[Finding], title: str) -> str:
    """For people: what is out of range with what it means, then all else; ends with a newline."""
    beyond = sum(one.verdict == LOOK for one in findings)
    first = f"{title} {beyond or 'None'} of {len(findings)} checks {'are' if beyond > 1 else 'is'} out of range."
    lines = textwrap.wrap(first, WIDTH)
    last = None
    for one in findings:
        if one.verdict != last:
            lines.append("")
        last = one.verdict
        lines += _entry(one)
    return "\n".join(lines) + "\n"


def _entry(one: Finding) -> list[str]:
    check = one.check
    sides = [one.side] if one.side else [side for side in (check.below, check.above) if side]
    knobs = ", ".join(dict.fromkeys(side.knob for side in sides))
    head = f"{one.verdict:<8}{check.key:<24}{_said(one.sign.value):<18} normal {check.normal}"
    if not one.side:
        head += f"; knob {knobs}"
    below = [check.what, one.sign.note]
    if one.side:
        below += [f"{one.side.says[0].upper()}{one.side.says[1:]}.", f"Knob: {one.side.knob}: {one.side.turn}."]
    indent = " " * 8
    return [head, *(textwrap.indent(textwrap.fill(part, WIDTH - len(indent)), indent) for part in below if part)]


def _said(value: Interval | float) -> str:
    if isinstance(value, Interval):
        half = (value.high - value.low) / 2
        return f"{value.mean:.3f}" + ("" if math.isnan(half) else f" ±{half:.3f}") if value.count else "not known"
    return "not known" if math.isnan(value) else f"{value:.3f}"
