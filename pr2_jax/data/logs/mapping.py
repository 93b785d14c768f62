"""Maps columns of a file to those of the schema: by name, by an alias of a release, or by the config."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence

from pr2_jax.config import DataConfig
from pr2_jax.data.schema import ALIASES, TABLES, Column, Kind, Table
from pr2_jax.errors import BadConfig, BadInput, did_you_mean

ENTRY = re.compile(r"^\s*([^=\s]+)\s*(?:=\s*(.+?)\s*)?$")
SUFFIX = re.compile(r"\s+(in\s+(?:s|ms)|as\s+text)$")
IN_SECONDS = 1_000


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the cells of a column come from."""

    name: str  # of the file's column
    scale: int = 1  # what a number is multiplied by: 1,000 where the file has seconds
    text: bool = False  # words are text


def mapping_of(table: Table, config: DataConfig) -> dict[str, Source]:
    """The config's mapping of a table's columns, by our name. BadConfig names an entry that cannot be read."""
    where, text = f"data.columns.{table.name}", getattr(config.columns, table.name)
    out: dict[str, Source] = {}
    for entry in filter(str.strip, text.split(",")):
        ours, source = _parsed(table, where, entry)
        if ours in out:
            raise BadConfig(f"{where} names {ours!r} twice: {text!r}")
        out[ours] = source
    return out


def names_of(config: DataConfig) -> dict[str, str]:
    """By table, the name of its file where the config gives one."""
    return {table.name: name for table in TABLES if (name := getattr(config.files, table.name).strip())}


def _parsed(table: Table, where: str, entry: str) -> tuple[str, Source]:
    rest, suffix = entry.strip(), ""
    if found := SUFFIX.search(rest):
        rest, suffix = rest[: found.start()], " ".join(found[1].split())
    found = ENTRY.match(rest)
    if not found:
        raise BadConfig(f"{where}: {entry.strip()!r} cannot be read, expected OURS=THEIRS, OURS=THEIRS in s or as text")
    ours, theirs = found[1], found[2] or found[1]
    if ours not in table.names():
        hint = did_you_mean(ours, table.names())
        raise BadConfig(f"{where}: {table.name} has no column {ours!r}{hint} It has {', '.join(table.names())}")
    kind = table.column(ours).kind
    if suffix.startswith("in ") and kind not in (Kind.TIME, Kind.SPAN):
        raise BadConfig(f"{where}: {ours} is {kind.value}: it has no unit, leave out {suffix!r}")
    if suffix == "as text" and kind is not Kind.WORDS:
        raise BadConfig(f"{where}: {ours} is {kind.value}: only keyword and caption can be text")
    return ours, Source(theirs, IN_SECONDS if suffix == "in s" else 1, suffix == "as text")


def resolve(table: Table, name: str, header: Sequence[str], mapping: Mapping[str, Source]) -> dict[str, Source]:
    """The source of each column, by our name, without absent optional ones. `name` is the file's, for messages.

    BadInput where a required column is missing, or a column is there under two names.
    """
    out: dict[str, Source] = {}
    absent = []
    for column in table.columns:
        source = mapping.get(column.name)
        if source is not None and source.name not in header:
            raise BadInput(
                f"{name} has no column {source.name!r}, which data.columns.{table.name} says is {column.name}"
                f"{did_you_mean(source.name, header)} (it has {listed(header)})"
            )
        source = source or _own_name(column, name, header)
        if source is not None:
            out[column.name] = source
        elif column.required:
            absent.append(column.name)
    if absent:
        others = [other for other in header if other not in table.names()]
        told = " and no ".join(f"column {ours!r}{did_you_mean(ours, others)}" for ours in absent)
        remedy = ",".join(f"{ours}=NAME" for ours in absent)
        raise BadInput(
            f"{name} has no {told} (it has {listed(header)}); "
            f"one that is called otherwise: --config.data.columns.{table.name}='{remedy}'"
        )
    ids = [column.name for column in table.columns if column.kind in (Kind.ID, Kind.KEY) and column.name in out]
    for one, other in itertools.combinations(ids, 2):
        if out[one].name == out[other].name:
            raise BadInput(
                f"{name}: data.columns.{table.name} takes column {out[one].name!r} for {one} and for {other}"
            )
    return out


def _own_name(column: Column, name: str, header: Sequence[str]) -> Source | None:
    seen_in = {column.name: "the data set page", **ALIASES.get(column.name, {})}
    there = [other for other in seen_in if other in header]
    if len(there) > 1:
        seen = ", ".join(f"{other} ({seen_in[other]})" for other in there)
        raise BadInput(f"{name} has {len(there)} columns for {column.name}: {seen}; expected one of them")
    return Source(there[0]) if there else None


def listed(names: Sequence[str]) -> str:
    """Names of columns in one line, even if they hold line breaks."""
    return " ".join(", ".join(names).split())
