"""Axes, and the places and labels of their ticks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

STEPS = (1, 2, 2.5, 5, 10)


@dataclasses.dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`; those above may be less than those below."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Pixels, of values beyond the ends too; a log axis puts what is not above 0 at its low end."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            share = (math.log(max(value, self.low)) - low) / (high - low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def span(
    values: Iterable[float], log: bool = False, from_zero: bool = False, room: float = 0.06
) -> tuple[float, float]:
    """Ends of an axis that holds the finite values (on a log axis: those above 0), with some room."""
    known = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0) if not log else (1.0, 10.0)
    if log:
        return (low / 1.15, high * 1.15) if high > low else (low / 2, high * 2)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
    free = (high - low) * room
    return (low if from_zero and low == 0 else low - free), (high if from_zero and high == 0 else high + free)


def ticks(low: float, high: float, most: int = 5, log: bool = False) -> list[float]:
    """Round values between the ends, at most about that many."""
    if log:
        return _log_ticks(low, high, most)
    rough = (high - low) / max(1, most)
    scale = 10 ** math.floor(math.log10(rough))
    step = next(s * scale for s in STEPS if s * scale >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for within in ((1, 2, 5), (1,)):
        found = [m * 10.0**d for d in decades for m in within if low <= m * 10.0**d <= high]
        if len(found) <= most + 1:
            return found
    return found[:: -(-len(found) // most)]


def short(value: float, percent: bool = False) -> str:
    """`0.25`, `12k`, `3.4M`, `25%`."""
    if percent:
        return f"{value * 100:.4g}%"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return "0" if abs(value) < 1e-12 else f"{value:.4g}"
