"""What config sections check about themselves when they are made: each message gives the values and the remedy."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Any

from pr2_jax.errors import BadConfig

NAMES = "tuple[str, ...]"
"""The type of a field that holds names."""


def require(holds: bool, section: Any, message: str) -> None:
    """BadConfig with the section's class in front, unless it holds."""
    if not holds:
        raise BadConfig(f"{type(section).__name__}: {message}")


def check_values(
    section: Any,
    positive: tuple[str, ...] = (),
    signed: tuple[str, ...] = (),
    shares: tuple[str, ...] = (),
    dropouts: tuple[str, ...] = (),
) -> None:
    """Types as declared; finite numbers, not below 0 unless `signed`, above 0 where `positive`.

    `shares` lie within [0, 1], `dropouts` within [0, 1). So that equal configs have equal digests, whole numbers become
    floats where the field is one, and names that are joined by `+` or `,`, or a list, become a tuple.
    """
    for field in dataclasses.fields(section):
        name, value = field.name, vars(section)[field.name]
        if field.type == "float" and type(value) is int:
            value = float(value)
            object.__setattr__(section, name, value)
        if field.type == NAMES and isinstance(value, str | list):
            value = tuple(re.split(r"[+,]", value) if isinstance(value, str) else value)
            object.__setattr__(section, name, value)
        fits = type(value).__name__ == field.type.partition("[")[0]
        require(fits, section, f"{name} = {value!r}, expected {field.type}")
        if field.type not in ("int", "float"):
            continue
        require(math.isfinite(value), section, f"{name} = {value}, expected a finite number")
        require(value >= 0 or name in signed, section, f"{name} = {value}, expected a number of 0 or more")
        require(value > 0 or name not in positive, section, f"{name} = {value}, expected a number above 0")
        require(value <= 1 or name not in shares, section, f"{name} = {value}, expected a share from 0 to 1")
        require(value < 1 or name not in dropouts, section, f"{name} = {value}, expected a share below 1")


def check_order(section: Any, *names: str) -> None:
    """Each of the fields at most as large as the next."""
    for name, above in itertools.pairwise(names):
        low, high = vars(section)[name], vars(section)[above]
        require(low <= high, section, f"{name} = {low} is above {above} = {high}; lower {name} or raise {above}")


def check_choice(section: Any, name: str, choices: tuple[str, ...]) -> None:
    """The field is one of `choices`."""
    value, known = vars(section)[name], ", ".join(choice or repr(choice) for choice in choices)
    require(value in choices, section, f"{name} = {value!r}, expected one of {known}")


def check_choices(section: Any, name: str, choices: tuple[str, ...]) -> None:
    """The field names some of `choices`, each once."""
    named = vars(section)[name]
    fine = named and all(one in choices for one in named) and len(set(named)) == len(named)
    given = "+".join(map(str, named))
    require(fine, section, f"{name} = {given!r}, expected some of {', '.join(choices)}, each once, joined by +")


def check_heads(section: Any) -> None:
    """Attention heads split the width evenly."""
    width, heads = section.width, section.heads
    if width % heads:
        divisors = ", ".join(str(n) for n in range(1, min(width, 1024) + 1) if width % n == 0)
        require(False, section, f"heads = {heads} does not divide width = {width}; take one of {divisors}")


def check_weights(section: Any, *names: str, heads: str = "") -> None:
    """At least one of the losses counts: the fields `names`, and those of the heads in the field `heads`."""
    weights = {name: vars(section)[name] for name in names}
    weights |= {f"{heads}.{head.name}.weight": head.weight for head in vars(section).get(heads, ())}
    require(any(weights.values()), section, f"nothing to learn, all are 0: {', '.join(weights)}; raise one")


def check_named(section: Any, name: str, kind: type) -> None:
    """The field holds sections of a kind, one or more, each with a name of its own."""
    value = vars(section)[name]
    require(
        value and all(type(one) is kind for one in value), section, f"{name} = {value!r}, expected {kind.__name__}s"
    )
    names = [one.name for one in value]
    require(len(set(names)) == len(names), section, f"{name} are called {', '.join(names)}, expected each name once")
