"""Every knob of the project, each defined once. A config file imports what it needs from here."""

from pr2_jax.config.data_config import ColumnsConfig, FilesConfig
from pr2_jax.config.schema import (
    LABELS,
    PREFERENCE_LABELS,
    Config,
    ContentConfig,
    DataConfig,
    EvaluationConfig,
    Head,
    PdrConfig,
    PreferenceConfig,
    QinConfig,
    QrcfConfig,
    RetrievalConfig,
    ScoresConfig,
    SearchConfig,
)
from pr2_jax.config.training_config import MeshConfig, OptimConfig, TableConfig, TablesConfig
from pr2_jax.config.variants import tiny
from pr2_jax.config.world_config import LoggingConfig, LoyaltyConfig, PeopleConfig, WorldConfig

__all__ = [
    "LABELS", "PREFERENCE_LABELS", "ColumnsConfig", "Config", "ContentConfig", "DataConfig", "EvaluationConfig",
    "FilesConfig", "Head", "LoggingConfig", "LoyaltyConfig", "MeshConfig", "OptimConfig", "PdrConfig",
    "PeopleConfig", "PreferenceConfig", "QinConfig", "QrcfConfig", "RetrievalConfig", "ScoresConfig",
    "SearchConfig", "TableConfig", "TablesConfig", "WorldConfig", "tiny",
]  # fmt: skip
