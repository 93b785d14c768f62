"""TFDS builder `kuaisar`."""

from __future__ import annotations

from pathlib import Path

from pr2_jax.config import Config
from pr2_jax.data.exchange.log_builder import LogBuilder
from pr2_jax.data.logs.log_tables import LogTables, read_log
from pr2_jax.errors import BadInput


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
