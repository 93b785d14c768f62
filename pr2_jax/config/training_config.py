"""Knobs of training that every model has: optimisers, tables, devices. Marks as in `config/schema.py`."""

from __future__ import annotations

import dataclasses

from pr2_jax.config.checks import check_choice, check_values, require

TABLE_OPTIMIZERS = ("adam", "lazy_adam", "row_adagrad")
COMPUTE = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine fall to a fiftieth; tables take their own learning rate."""

    batch: int = 512
    epochs: float = 8.0
    max_steps: int = 20_000  # whatever the log's size
    learning_rate: float = 2e-3  # dense parameters
    table_learning_rate: float = 5e-3
    table_optimizer: str = "lazy_adam"  # or "row_adagrad": touch the rows of the batch only; "adam": whole tables
    weight_decay: float = 1e-4
    warmup_share: float = 0.05
    clip_norm: float = 1.0
    checkpoint_every: int = 200  # steps
    seed: int = 0

    def __post_init__(self) -> None:
        rates = ("learning_rate", "table_learning_rate", "clip_norm")
        positive = ("batch", "epochs", "max_steps", "checkpoint_every", *rates)
        check_values(self, positive, shares=("warmup_share",))
        check_choice(self, "table_optimizer", TABLE_OPTIMIZERS)


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """One embedding table of a model. What is 0 or empty is as the model's `optim` says."""

    hashed_rows: int = 0  # rows that all ids share by a hash, row 0 included; 0 = a row for each id
    optimizer: str = ""
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        check_values(self)
        check_choice(self, "optimizer", (*TABLE_OPTIMIZERS, ""))
        require(self.hashed_rows != 1, self, "hashed_rows = 1, expected 2 or more (row 0 is unknown), or 0 for exact")


@dataclasses.dataclass(frozen=True)
class TablesConfig:
    """The tables of a model, one entry each."""

    video: TableConfig = TableConfig()
    word: TableConfig = TableConfig()
    author: TableConfig = TableConfig()
    category: TableConfig = TableConfig()

    def __post_init__(self) -> None:
        check_values(self)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How devices are arranged to train (training/mesh.py). No stage is stale for having been made on another mesh."""

    data: int = -1  # devices that share out each batch; -1 = whatever is left
    model: int = 1  # devices that share out what a batch's rows need; tables are split over all

    def __post_init__(self) -> None:
        check_values(self, signed=("data", "model"))
