"""The checks of config sections. Each message gives the values and the remedy."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
import typing
from typing import Any, Literal

from pr2_jax.errors import BadConfig

NAMES = "tuple[str, ...]"
"""The type of a field that holds names."""

Size = SignedInt = int
Positive = Signed = Share = PositiveShare = Dropout = float
RANGES = {
    "int": ("int", False, 0, math.inf),
    "float": ("float", False, 0, math.inf),
    "Size": ("int", True, 0, math.inf),
    "SignedInt": ("int", False, -math.inf, math.inf),
    "Positive": ("float", True, 0, math.inf),
    "Signed": ("float", False, -math.inf, math.inf),
    "Share": ("float", False, 0, 1),
    "PositiveShare": ("float", True, 0, 1),
    "Dropout": ("float", False, 0, math.inf),  # below 1
}
"""By the declared type of a field: its Python type, whether 0 is refused, and the least and the greatest value."""


def require(holds: bool, section: Any, message: str) -> None:
    """BadConfig with the section's class in front, unless it holds."""
    if not holds:
        raise BadConfig(f"{type(section).__name__}: {message}")


class Section:
    """A config section, which checks the type and the range of each of its fields when it is made."""

    def __post_init__(self) -> None:
        """Equal configs must have equal digests: whole numbers become floats where the field is one, and names that
        are joined by `+` or `,`, or a list, become a tuple."""
        choices = choices_of(type(self))
        for field in dataclasses.fields(self):
            name, value = field.name, vars(self)[field.name]
            declared, positive, low, high = RANGES.get(field.type, (field.type, False, -math.inf, math.inf))
            if declared == "float" and type(value) is int:
                value = float(value)
                object.__setattr__(self, name, value)
            if declared == NAMES and isinstance(value, str | list):
                value = tuple(re.split(r"[+,]", value) if isinstance(value, str) else value)
                object.__setattr__(self, name, value)
            if name in choices:
                known = ", ".join(choice or repr(choice) for choice in choices[name])
                require(value in choices[name], self, f"{name} = {value!r}, expected one of {known}")
                continue
            fits = type(value).__name__ == declared.partition("[")[0]
            require(fits, self, f"{name} = {value!r}, expected {declared}")
            if field.type not in RANGES:
                continue
            require(math.isfinite(value), self, f"{name} = {value}, expected a finite number")
            require(value >= low, self, f"{name} = {value}, expected a number of 0 or more")
            require(value > 0 or not positive, self, f"{name} = {value}, expected a number above 0")
            require(value <= high, self, f"{name} = {value}, expected a share from 0 to 1")
            require(value < 1 or field.type != "Dropout", self, f"{name} = {value}, expected a share below 1")


@functools.cache
def choices_of(section: type) -> dict[str, tuple[str, ...]]:
    """By field, what it may be, where its type is a Literal."""
    hints = typing.get_type_hints(section)
    return {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is Literal}


def check_order(section: Any, *names: str) -> None:
    """Each of the fields at most as large as the next."""
    for name, above in itertools.pairwise(names):
        low, high = vars(section)[name], vars(section)[above]
        require(low <= high, section, f"{name} = {low} is above {above} = {high}; lower {name} or raise {above}")


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
