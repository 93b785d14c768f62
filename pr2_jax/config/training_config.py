"""Training fields of every model: optimiser, embedding tables, device mesh. Marks as in `config/schema.py`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pr2_jax.config.checks import Positive, Section, Share, SignedInt, Size, require

Compute = Literal["float32", "bfloat16"]
TableOptimizer = Literal["adam", "lazy_adam", "row_adagrad"]


@dataclasses.dataclass(frozen=True)
class OptimConfig(Section):
    """AdamW with a linear warm-up and a cosine fall to a fiftieth; tables take their own learning rate."""

    batch: Size = 512
    epochs: Positive = 8.0
    max_steps: Size = 20_000  # whatever the log's size
    learning_rate: Positive = 2e-3  # dense parameters
    table_learning_rate: Positive = 5e-3
    table_optimizer: TableOptimizer = "lazy_adam"  # it and row_adagrad touch the rows of the batch only
    weight_decay: float = 1e-4
    warmup_share: Share = 0.05
    clip_norm: Positive = 1.0
    checkpoint_every: Size = 200  # steps
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class TableConfig(Section):
    """One embedding table of a model. What is 0 or empty is as the model's `optim` says."""

    hashed_rows: int = 0  # rows that all ids share by a hash, row 0 included; 0 = a row for each id
    optimizer: Literal[TableOptimizer, ""] = ""
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.hashed_rows != 1, self, "hashed_rows = 1, expected 2 or more (row 0 is unknown), or 0 for exact")


@dataclasses.dataclass(frozen=True)
class TablesConfig(Section):
    """The tables of a model, one entry each."""

    video: TableConfig = TableConfig()
    word: TableConfig = TableConfig()
    author: TableConfig = TableConfig()
    category: TableConfig = TableConfig()


@dataclasses.dataclass(frozen=True)
class MeshConfig(Section):
    """The device mesh of training (training/mesh.py). A stage made on another mesh stays fresh."""

    data: SignedInt = -1  # data-parallel devices; -1 = all that are left
    model: SignedInt = 1  # model-parallel devices; tables are split over all devices
