"""Raw log → checks → `LogStore` and, beside it, the TFDS dataset; and a report of what became of every row."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pr2_jax import artifacts
from pr2_jax.config.loader import to_dict
from pr2_jax.config.schema import SOURCES, Config
from pr2_jax.data.exchange.log_builder import Kuaisar, LogBuilder, write_exchange
from pr2_jax.data.ingest.ingest_report import IngestReport
from pr2_jax.data.logs.mapping import names_of
from pr2_jax.data.logs.quarantine import QUARANTINE_FILE
from pr2_jax.data.logs.sources import open_log
from pr2_jax.data.schema import CONTENT_FILE, CONTENT_IDS_FILE
from pr2_jax.data.store.log_store import SCHEMA, LogStore, save_store

REPORT_FILE = "report.json"
STORE, EXCHANGE = "store", "tfds"
MADE_FROM = "made_from.json"
"""In the exchange format's directory: the fingerprint of the store beside it."""


def ingest(input_path: Path | None, config: Config, workdir: Path, builder: type[LogBuilder] = Kuaisar) -> IngestReport:
    """Leaves `workdir/tfds` (exchange format) and `workdir/store`, with report.json and quarantine.csv in it.

    `builder` must be the one that `config.data.source` names. Raises BadInput, before anything is written, where the
    log cannot be used.
    """
    if builder.name != config.data.source:
        raise ValueError(f"config.data.source is {config.data.source!r}, but the builder makes {builder.name!r}")
    workdir = Path(workdir)
    artifacts.refuse_foreign(workdir / STORE)
    artifacts.refuse_unknown(workdir / EXCHANGE, (*SOURCES, MADE_FROM))
    said = fingerprint(input_path, config)
    tables = builder.read_source(input_path, config, workdir)
    exchange = workdir / f"{EXCHANGE}.partial"
    shutil.rmtree(exchange, ignore_errors=True)
    try:
        write_exchange(builder, tables, exchange)
        store = LogStore.from_tables(tables)
        report = IngestReport.of(tables, store)
        beside = {
            REPORT_FILE: json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False) + "\n",
            QUARANTINE_FILE: tables.quarantined.write_csv(),
        }
        (exchange / MADE_FROM).write_text(artifacts.canonical_text(said), encoding="utf-8")
        # The store last; each says what it was made from, so that a kill in between shows.
        shutil.rmtree(workdir / EXCHANGE, ignore_errors=True)
        exchange.rename(workdir / EXCHANGE)
        save_store(store, workdir / STORE, said, beside)
    except BaseException:
        shutil.rmtree(exchange, ignore_errors=True)
        raise
    return report


def reason_stale(workdir: Path, claim: Mapping[str, Any]) -> str | None:
    """Why the store, or the exchange format beside it, is not what `claim` says that it is made from."""
    made_from = workdir / EXCHANGE / MADE_FROM
    text = made_from.read_text(encoding="utf-8") if made_from.is_file() else None
    other = None if text == artifacts.canonical_text(claim) else f"{EXCHANGE}/ is of another log, or half made"
    return artifacts.reason_stale(workdir / STORE, claim, SCHEMA) or other


def fingerprint(input_path: Path | None, config: Config) -> dict[str, Any]:
    """What the store depends on: where it comes from, the bytes of the log, or the config of the world."""
    said: dict[str, Any] = {"source": config.data.source, "max_bad_share": config.data.max_bad_share}
    if input_path is None:
        return said | {"world": dataclasses.asdict(config.world)}
    said |= {"files": to_dict(config.data.files), "columns": to_dict(config.data.columns)}
    path = Path(input_path)
    if path.is_file():
        return said | {"input": artifacts.digest_file(path)}
    with open_log(path, names_of(config.data)) as files:
        parts = {part.name: part.digest() for parts in files.tables.values() for part in parts}
        brought = {CONTENT_FILE: files.content, CONTENT_IDS_FILE: files.content_ids}
        return said | {"input": parts | {name: artifacts.digest_file(file) for name, file in brought.items() if file}}
