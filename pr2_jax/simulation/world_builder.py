"""TFDS builder `short_video_world`: the simulated platform in the exchange format."""

from __future__ import annotations

import shutil
from pathlib import Path

from pr2_jax import artifacts
from pr2_jax.config import Config
from pr2_jax.data.exchange.log_builder import LogBuilder
from pr2_jax.data.logs.log_tables import LogTables, read_log
from pr2_jax.data.schema import CONTENT_FILE, CONTENT_IDS_FILE, TABLES
from pr2_jax.errors import BadInput
from pr2_jax.simulation.world_tables import write_world

WORLD = "world"
WORLD_FILES = (*(f"{table.name}.csv" for table in TABLES), CONTENT_FILE, CONTENT_IDS_FILE)


class ShortVideoWorld(LogBuilder):
    """A seeded, simulated short-video platform that writes the five tables of KuaiSAR."""

    name = "short_video_world"

    @classmethod
    def read_source(cls, input_path: Path | None, config: Config, workdir: Path) -> LogTables:
        """Simulates into `workdir/world`, replacing an older world, and reads it like any other log."""
        if input_path is not None:
            raise BadInput(f"data.source short_video_world simulates its log: leave out --input {input_path}")
        world = Path(workdir) / WORLD
        if world.exists():
            artifacts.refuse_unknown(world, WORLD_FILES)
            shutil.rmtree(world)
        write_world(world, config.world)
        return read_log(world, config.data)
