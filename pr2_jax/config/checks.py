"""What config sections check about themselves when they are made: each message gives the values and the remedy."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

from pr2_jax.errors import BadConfig


def require(holds: bool, section: Any, message: str) -> None:
    """BadConfig with the section's class in front, unless it holds."""
    if not holds:
        raise BadConfig(f"{type(section).__name__}: {message}")


def check_values(
    section: Any, positive: tuple[str, ...] = (), signed: tuple[str, ...] = (), shares: tuple[str, ...] = ()
) -> None:
    """Types as declared; finite numbers, not below 0 unless `signed`, above 0 where `positive`.

    Within [0, 1]: `shares` and every `..._share` and `..._quantile`; within [0, 1): every `...dropout`. Whole numbers
    become floats where the field is one, so that equal configs have equal digests.
    """
    for field in dataclasses.fields(section):
        name, value = field.name, vars(section)[field.name]
        if field.type == "float" and type(value) is int:
            value = float(value)
            object.__setattr__(section, name, value)
        require(type(value).__name__ == field.type, section, f"{name} = {value!r}, expected {field.type}")
        if field.type not in ("int", "float"):
            continue
        require(math.isfinite(value), section, f"{name} = {value}, expected a finite number")
        require(value >= 0 or name in signed, section, f"{name} = {value}, expected a number of 0 or more")
        require(value > 0 or name not in positive, section, f"{name} = {value}, expected a number above 0")
        share = name in shares or name.endswith(("_share", "_quantile"))
        require(not share or value <= 1, section, f"{name} = {value}, expected a share from 0 to 1")
        require(not name.endswith("dropout") or value < 1, section, f"{name} = {value}, expected a share below 1")


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
    """The field names some of `choices`, each once, joined by `+`."""
    value = vars(section)[name]
    named = value.split("+")
    fine = set(named) <= set(choices) and len(set(named)) == len(named)
    require(fine, section, f"{name} = {value!r}, expected some of {', '.join(choices)}, each once, joined by +")


def check_heads(section: Any) -> None:
    """Attention heads split the width evenly."""
    width, heads = section.width, section.heads
    if width % heads:
        divisors = ", ".join(str(n) for n in range(1, min(width, 1024) + 1) if width % n == 0)
        require(False, section, f"heads = {heads} does not divide width = {width}; take one of {divisors}")


def check_weights(section: Any) -> None:
    """At least one of the losses counts."""
    weights = {name: value for name, value in vars(section).items() if name.endswith("_weight")}
    require(any(weights.values()), section, f"nothing to learn, all are 0: {', '.join(weights)}; raise one")
