"""Named variants of a config, each with a part left out: what `pr2 evaluate --ablations FILE` trains and judges."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from pr2_jax import config_loader
from pr2_jax.config import Config
from pr2_jax.errors import BadConfig

MODELS = ("content", "taste", "pdr", "qin", "base")
"""Config sections whose seed is the run's."""
RANKERS = ("taste", "qin", "base")
"""Those whose changes only a trained ranker shows."""


@dataclasses.dataclass(frozen=True, eq=False)
class Ablation:
    """Fields that differ from the whole system; none = the whole system itself."""

    group: str
    name: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """For people and in tables."""
        return f"{self.group}: {self.name}" if self.group else self.name

    @property
    def directory(self) -> str:
        """For files."""
        return re.sub(r"[^a-z0-9]+", "_", self.title.lower()).strip("_")

    @property
    def ranked(self) -> bool:
        """Whether a ranker has to be trained to judge it."""
        return not self.changes or any(path.split(".")[0] in RANKERS for path in self.changes)

    def config(self, whole: Config) -> Config:
        """BadConfig, naming this variant, where a field does not exist or values clash."""
        try:
            return config_loader.replaced(whole, self.changes)
        except BadConfig as error:
            raise BadConfig(f"ablation {self.title!r}: {error}") from None


WHOLE = Ablation("", "whole system")


def load(path: Path, config: Config) -> list[Ablation]:
    """The variants of a file that defines `ABLATIONS`: group to name to changes. Every one is tried on the config."""
    given = config_loader.defined(path, "ABLATIONS")
    try:
        found = [Ablation(group, name, dict(changes)) for group in given for name, changes in given[group].items()]
    except (AttributeError, TypeError, ValueError):
        raise BadConfig(f"{path}: ABLATIONS is group to name to changes, {{'qin': {{'no GSU': {{...}}}}}}") from None
    names = [ablation.directory for ablation in [WHOLE, *found]]
    for ablation in found:
        if not ablation.changes or names.count(ablation.directory) > 1:
            raise BadConfig(f"{path}: ablation {ablation.title!r} changes nothing, or two have this name")
        ablation.config(config)
    return found


def seeded(config: Config, number: int) -> Config:
    """The config of repetition `number`, from 0, which is the config itself: every model draws from another seed."""
    seeds = {f"{model}.optim.seed": getattr(config, model).optim.seed + number for model in MODELS}
    return config_loader.replaced(config, seeds)
