"""Ablations: named variants of a config, which `pr2 evaluate --ablations FILE` trains and evaluates."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pr2_jax import console
from pr2_jax.config import loader
from pr2_jax.config.schema import Config
from pr2_jax.errors import BadConfig

MODELS = ("content", "preference", "pdr", "qin", "base")
"""Config sections whose seed is the run's."""
RANKERS = ("preference", "qin", "base", "scores")
"""Sections whose changes only a trained ranker shows."""
SECTIONS = ("data", "content", "pdr", "retrieval", *RANKERS)
"""What a system is made of. The rest is of the log, the machine, or how a system is judged."""
LONGEST = 100
"""Letters of a variant's directory."""


@dataclasses.dataclass(frozen=True, eq=False)
class Ablation:
    """Fields that differ from the whole system; none = the whole system itself."""

    group: str
    name: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.group}: {self.name}" if self.group else self.name

    @property
    def directory(self) -> str:
        return re.sub(r"[^a-z0-9]+", "_", self.title.lower()).strip("_")

    @property
    def ranked(self) -> bool:
        """Whether a ranker has to be trained to judge it."""
        return not self.changes or any(path.split(".")[0] in RANKERS for path in self.changes)

    def config(self, whole: Config) -> Config:
        """BadConfig, naming this variant, where a field does not exist or values clash."""
        try:
            return loader.replaced(whole, self.changes)
        except BadConfig as error:
            raise BadConfig(f"ablation {self.title!r}: {error}") from None


WHOLE = Ablation("", "whole system")


def load(path: Path, config: Config) -> list[Ablation]:
    """The variants of a file that defines `ABLATIONS`: group to name to changes. Every one is tried on the config."""
    given = loader.defined(path, "ABLATIONS")
    try:
        found = [Ablation(group, name, dict(changes)) for group in given for name, changes in given[group].items()]
    except (AttributeError, TypeError, ValueError):
        raise BadConfig(f"{path}: ABLATIONS is group to name to changes, {{'qin': {{'no GSU': {{...}}}}}}") from None
    taken, different = {WHOLE.directory: WHOLE.title}, []
    for ablation in found:
        _check(ablation, f"{path}: ablation {ablation.title!r}", taken)
        taken[ablation.directory] = ablation.title
        if ablation.config(config) != config:
            different.append(ablation)
        else:
            console.log(f"ablation {ablation.title!r} is left out: the whole system's config is like that already")
    if not different:
        raise BadConfig(f"{path}: ABLATIONS has no variant that differs from the whole system's config")
    return different


def _check(ablation: Ablation, where: str, taken: Mapping[str, str]) -> None:
    """BadConfig where a variant cannot be told from another, or changes what is not a part of the system."""
    if ablation.directory in taken:
        raise BadConfig(f"{where} and {taken[ablation.directory]!r} have the same letters and digits: rename one")
    if len(ablation.directory) > LONGEST:
        raise BadConfig(f"{where} has a name of {len(ablation.directory)} letters, expected {LONGEST} at most")
    if not ablation.changes:
        raise BadConfig(f"{where} changes nothing, expected fields and their values")
    for field in ablation.changes:
        if not isinstance(field, str) or field.split(".")[0] not in SECTIONS:
            raise BadConfig(f"{where} changes {field!r}, expected a field of {', '.join(SECTIONS)}")


def seeded(config: Config, number: int) -> Config:
    """The config of repetition `number`, from 0, which is the config itself: every model draws from another seed."""
    seeds = {f"{model}.optim.seed": getattr(config, model).optim.seed + number for model in MODELS}
    return loader.replaced(config, seeds)
