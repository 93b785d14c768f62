"""From `--config NAME[:variant]` and `--config.a.b=value` to a `Config`, and to and from JSON."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import re
import runpy  # noqa: TID251 - the one place where a path that a person names becomes code
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pr2_jax import artifacts, console
from pr2_jax.config import preset_files, schema
from pr2_jax.config.schema import Config
from pr2_jax.errors import BadConfig, did_you_mean

PREFIX = "--config."
WORDS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}

LEARNT = ("click", "long_play", "like")
ALIASES: dict[str, str] = {
    "taste": "preference",
    "pdr.use_taste": "pdr.use_preference",
    "evaluation.pipeline_candidates": "search.candidates",
    **{f"{m}.{h}_weight": f"{m}.prediction_heads.{h}.weight" for m in ("qin", "base") for h in LEARNT},
    **{f"pdr.{h}_weight": f"pdr.feedback_heads.{h}.weight" for h in LEARNT},
}
"""Old dotted paths of fields and sections to present ones, applied in turn: `{"a": "b", "b.old": "b.new"}` takes
`a.old` too. Overrides, ablations and saved configs may use old paths."""

Section = TypeVar("Section")


def load(name_with_variant: str, overrides: Sequence[str] = ()) -> Config:
    """Reads the preset `NAME[:variant]`, `FILE.py[:variant]` or a `.json` that `save` wrote; applies the overrides.

    BadConfig says what to mend. A config file defines `get_config(variant: str = "") -> Config` and `VARIANTS`, the
    variants that it knows.
    """
    name, _, variant = name_with_variant.partition(":")
    path = preset_files.path_of(name)
    if not path.is_file():
        known = preset_files.names()
        meant = did_you_mean(name, known) or ";"
        raise BadConfig(
            f"there is no preset and no config file {name}{meant} Presets: {_listed(known)}. Files: FILE.py"
        )
    if path.suffix not in (".py", ".json"):
        raise BadConfig(f"{path} is no config file, expected FILE.py or a config.json that pr2 wrote")
    if path.suffix == ".json":
        return override(read(path), overrides)
    config = _run(path, variant)
    if not isinstance(config, Config):
        raise BadConfig(f"{path}: get_config returned {type(config).__name__}, expected pr2_jax.config.Config")
    return override(config, overrides)


def presets() -> list[str]:
    """A line for each preset: what `--config` takes, and what it is for, from the file's second paragraph."""
    lines = []
    for name in preset_files.names():
        names = runpy.run_path(str(preset_files.path_of(name)))
        called = ", ".join([name, *(f"{name}:{variant}" for variant in names["VARIANTS"])])
        about = " ".join(names["__doc__"].split("\n\n")[1].split())
        lines.append(f"{called:<28} {about.partition('. ')[0].rstrip('.')}")
    return lines


def load_or_default(name_with_variant: str | None, overrides: Sequence[str]) -> Config:
    """As `load`; without a file, every field's own default, with the overrides."""
    return load(name_with_variant, overrides) if name_with_variant else override(Config(), overrides)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """Applies `--config.a.b=value`, all at once, so that two fields that belong together can change together."""
    data = to_dict(config)
    for text in overrides:
        path, equals, value = text.removeprefix(PREFIX).partition("=")
        if not text.startswith(PREFIX) or not equals:
            raise BadConfig(f"{text!r} is not an override: write {PREFIX}SECTION.FIELD=VALUE")
        _put(data, Config, path, lambda field, walked, text=value: _parse(text, field, walked))
    return from_dict(data)


def replaced(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config with other values at dotted paths, `{"qin.realtime": 0}`, all at once."""
    data = to_dict(config)
    for path, value in changes.items():
        _put(data, Config, path, lambda field, walked, value=value: _typed(value, field, walked))
    return from_dict(data)


def save(config: Config, path: Path) -> None:
    """Writes the config as JSON."""
    artifacts.write_json(path, to_dict(config))


def read(path: Path) -> Config:
    """Reads what `save` wrote. BadConfig where it is of another version of the fields."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfig(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadConfig(f"{path} is not JSON: {error}") from None
    try:
        return from_dict(_renamed(data))
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from None


def to_dict(section: Any) -> dict[str, Any]:
    """A config or one of its sections as JSON values."""
    return dataclasses.asdict(section)


def from_dict(data: Mapping[str, Any], kind: type[Section] = Config, path: str = "config") -> Section:
    """The exact inverse of `to_dict`: each field present once, of its type, no other."""
    if not isinstance(data, Mapping):
        raise BadConfig(f"{path} is {data!r}, expected a section with {_listed(_fields(kind))}")
    fields = _fields(kind)
    for key in data:
        if key not in fields:
            raise BadConfig(_unknown(key, fields, path))
    if missing := [key for key in fields if key not in data]:
        raise BadConfig(f"{path} lacks {_listed(missing)}: another version of pr2 made it")
    values = {key: _made(data[key], field, f"{path}.{key}") for key, field in fields.items()}
    try:
        return kind(**values)
    except BadConfig as error:
        raise BadConfig(f"{path}: {str(error).removeprefix(f'{kind.__name__}: ')}") from None


def _made(value: Any, kind: Any, path: str) -> Any:
    """A section, a tuple of sections or a plain value, from JSON."""
    if dataclasses.is_dataclass(kind):
        return from_dict(value, kind, path)
    if (item := _item(kind)) is None:
        return value
    if not isinstance(value, list | tuple):
        raise BadConfig(f"{path} is {value!r}, expected a list")
    return tuple(from_dict(one, item, f"{path}.{number}") for number, one in enumerate(value))


def _item(kind: Any) -> type | None:
    """The sections that a field holds any number of, where it does."""
    held = typing.get_args(kind)[:1]
    return held[0] if held and dataclasses.is_dataclass(held[0]) else None


def digest(section: Any) -> str:
    """16 hex digits that change when, and only when, a value of this config or section does."""
    return artifacts.digest(to_dict(section))


def defined(path: Path, name: str) -> Any:
    """What a Python file calls `name`. BadConfig where there is no such file, or nothing of that name in it."""
    if not path.is_file():
        raise BadConfig(f"there is no file {path}")
    with _in_one_line(path):
        names = runpy.run_path(str(path))
        if name not in names:
            raise BadConfig(f"it defines no {name}")
        return names[name]


def _run(path: Path, variant: str) -> Any:
    with _in_one_line(path):
        names = runpy.run_path(str(path))
        if not {"get_config", "VARIANTS"} <= names.keys():
            raise BadConfig("no config: a config file defines get_config(variant) and VARIANTS")
        if variant and variant not in names["VARIANTS"]:
            known = names["VARIANTS"]
            raise BadConfig(
                f"there is no variant {variant!r}{did_you_mean(variant, known) or ';'} it has {_listed(known)}"
            )
        return names["get_config"](variant)


@contextlib.contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside a file comes out as one line with file and line number."""
    try:
        yield
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}:{error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else '?'}"
        raise BadConfig(f"{where}: {_misspelt(error) or f'{type(error).__name__}: {error}'}") from error


def _misspelt(error: Exception) -> str | None:
    """Python names the class and the wrong keyword, but not what was meant."""
    found = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    kind = vars(schema).get(found[1]) if found else None
    return _unknown(found[2], _fields(kind), found[1]) if dataclasses.is_dataclass(kind) else None


def _present(path: str) -> str:
    """The dotted path without old names."""
    for old, new in ALIASES.items():
        if f"{path}.".startswith(f"{old}."):
            _say_renamed(old, new)
            path = f"{new}{path.removeprefix(old)}"
    return path


def _renamed(data: Any) -> Any:
    """A saved config with what stands at old paths moved to the present ones, unless it has both. Other data stays."""
    given, data, present = data, copy.deepcopy(data), to_dict(Config())
    for old, new in ALIASES.items():
        (holder, name), (there, field) = _holder(data, old), _holder(given, new)
        if not isinstance(holder, dict) or name not in holder or (isinstance(there, dict) and field in there):
            continue
        target, field = _holder(data, new, present)
        if isinstance(target, dict):
            _say_renamed(old, new)
            target[field] = holder.pop(name)
    return data


def _holder(data: Any, path: str, present: Any = None) -> tuple[Any, str]:
    """What has, or would have, the last name of a dotted path, and that name. Sections that the data lacks are taken
    from `present`, where that is given."""
    *sections, name = path.split(".")
    for section in sections:
        present = None if present is None else _inside(present, section)
        if present is not None and isinstance(data, dict):
            data.setdefault(section, copy.deepcopy(present))
        data = _inside(data, section)
    return data, name


def _inside(data: Any, name: str) -> Any:
    """What a section, or a list of sections that have names, holds under a name; None where nothing."""
    if isinstance(data, list | tuple):
        return next((one for one in data if isinstance(one, dict) and one.get("name") == name), None)
    return data.get(name) if isinstance(data, dict) else None


@functools.cache
def _say_renamed(old: str, new: str) -> None:
    console.log_renamed(f"config.{old}", f"config.{new}")


def _put(data: dict[str, Any], kind: type, path: str, value_of: Callable[[type, str], Any]) -> None:
    """Puts a value at the dotted `path`; `value_of` gets the field's type and its name for a message."""
    walked, field = "config", kind
    for key in _present(path).split("."):
        if item := _item(field):
            if (found := _inside(data, key)) is None:
                raise BadConfig(_unknown(key, {one["name"]: one for one in data}, walked))
            data, field, walked = found, item, f"{walked}.{key}"
            continue
        if not dataclasses.is_dataclass(field):
            raise BadConfig(f"{walked} is a value, not a section")
        fields = _fields(field)
        if key not in fields:
            raise BadConfig(_unknown(key, fields, walked))
        section, field, walked = data, fields[key], f"{walked}.{key}"
        data = data[key]
    if dataclasses.is_dataclass(field):
        raise BadConfig(f"{walked} is a section: set one of {_listed(_fields(field))}")
    if _item(field):
        raise BadConfig(f"{walked} is a list: set a field of one of {_listed(one['name'] for one in data)}")
    section[key] = value_of(field, walked)


def _typed(value: Any, kind: type, path: str) -> bool | int | float | str:
    if typing.get_origin(kind) is tuple:
        return value  # its section takes a text or a list for it
    value = float(value) if kind is float and type(value) is int else value
    if type(value) is not kind:
        raise BadConfig(f"{path} = {value!r}: expected {kind.__name__}")
    return value


def _parse(text: str, kind: type, path: str) -> bool | int | float | str:
    if kind is str:
        return text
    if typing.get_origin(kind) is tuple:
        if not text.startswith("["):
            return text  # its section splits it
        try:
            return json.loads(text)
        except ValueError as error:
            raise BadConfig(f"{path} = {text!r} is not JSON: {error}") from None
    try:
        return WORDS[text.lower()] if kind is bool else kind(text.replace("_", "") if kind is int else text)
    except (KeyError, ValueError):
        expected = "true or false" if kind is bool else kind.__name__
        raise BadConfig(f"{path} = {text!r}: expected {expected}") from None


def _fields(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    kinds = {name: str if typing.get_origin(hint) is typing.Literal else hint for name, hint in hints.items()}
    return {field.name: kinds[field.name] for field in dataclasses.fields(kind)}


def _unknown(key: str, known: Mapping[str, Any], path: str) -> str:
    return f"{path} has no field {key!r}{did_you_mean(key, known) or '.'} It has {_listed(known)}"


def _listed(names: Any) -> str:
    return ", ".join(names)
