"""TFDS builders of logs: `kuaisar`, and what every one shares, parts as configs and the way to and from disk."""

from __future__ import annotations

import abc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from pr2_jax.config import Config
from pr2_jax.console import muted, progress
from pr2_jax.data.exchange.exchange_format import PARTS, SPLIT, examples, features, metadata
from pr2_jax.data.logs.log_tables import LogTables, read_log
from pr2_jax.data.schema import SCHEMA_VERSION
from pr2_jax.errors import BadInput

FILE_FORMAT = "array_record"  # TFDS's default needs TensorFlow


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """TFDS's public bucket holds no log of ours; asking it leaves an empty temporary directory behind."""


class LogBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A log in the exchange format. `tables`, where given, saves every part from reading the source again."""

    VERSION = tfds.core.Version(f"{SCHEMA_VERSION}.0.0")
    RELEASE_NOTES = {f"{SCHEMA_VERSION}.0.0": "as pr2_jax/data/schema.py describes it"}  # noqa: RUF012, TFDS's form
    BUILDER_CONFIGS = [  # noqa: RUF012, TFDS's form
        tfds.core.BuilderConfig(name=part, description=text) for part, text in PARTS.items()
    ]

    def __init__(self, *, tables: LogTables | None = None, file_format: str = FILE_FORMAT, **tfds_options: Any) -> None:
        self._tables = tables
        super().__init__(file_format=file_format, **tfds_options)

    @classmethod
    @abc.abstractmethod
    def read_source(cls, input_path: Path | None, config: Config, workdir: Path) -> LogTables:
        """The checked log; a simulated one is left in `workdir`. Raises BadInput where it cannot be used."""

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description=f"{type(self).__doc__} Part {self.builder_config.name}: {self.builder_config.description}.",
            features=features(self.builder_config.name),
            metadata=tfds.core.MetadataDict(metadata(self._tables) if self._tables is not None else {}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        if self._tables is None:
            manual = Path(dl_manager.manual_dir) if self.MANUAL_DOWNLOAD_INSTRUCTIONS else None
            with tempfile.TemporaryDirectory(prefix="pr2-log-") as scratch:
                self._tables = self.read_source(manual, Config(), Path(scratch))
            self.info.metadata.update(metadata(self._tables))
        return {SPLIT: self._generate_examples(self._tables)}

    def _generate_examples(self, tables: LogTables) -> Iterator:
        return examples(self.builder_config.name, tables)


def write_exchange(builder: type[LogBuilder], tables: LogTables, data_dir: Path) -> dict[str, Path]:
    """Prepares every part below `data_dir`, which must hold none yet; by part, where it lies."""
    tfds.disable_progress_bar()
    directories = {}
    for part in progress(PARTS, "exchange format"):
        made = builder(tables=tables, config=part, data_dir=str(data_dir))
        with muted():  # TFDS prints to stdout
            made.download_and_prepare()
        directories[part] = Path(made.data_dir)
    shutil.rmtree(data_dir / "downloads", ignore_errors=True)  # TFDS leaves it, empty
    return directories


class Kuaisar(LogBuilder):
    """A search and feed log in the five tables of KuaiSAR (kuaisar.github.io)."""

    name = "kuaisar"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for KuaiSAR_v2 or KuaiSAR-small at kuaisar.github.io and give the directory that holds rec_inter.csv, "
        "src_inter.csv, user_features.csv, social_network.csv and item_features.csv as manual_dir."
    )

    @classmethod
    def read_source(cls, input_path: Path | None, config: Config, workdir: Path) -> LogTables:
        """Reads the directory or zip that the user names."""
        if input_path is None:
            raise BadInput("data.source kuaisar needs a log to read: name a directory or a zip with --input")
        return read_log(input_path, config.data)
