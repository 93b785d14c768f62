"""The configs that come with the package, by name. Their one source is `configs/` of the checkout.

An installed package has the same files in `pr2_jax/presets/`, where setup.py puts them.
"""

from __future__ import annotations

from pathlib import Path

import pr2_jax


def directory() -> Path:
    """Where the files lie: to read, and to copy from."""
    package = Path(pr2_jax.__file__).parent
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """What `--config` takes, sorted. A file that defines no config, as ablations.py, is none of them."""
    files = sorted(directory().glob("*.py"))
    return [path.stem for path in files if "def get_config(" in path.read_text(encoding="utf-8")]


def path_of(name: str) -> Path:
    """The file of a preset where there is one of this name, else `name` as a path.

    A name has no directory and no suffix: `kuaisar` is the preset, `./kuaisar` and `kuaisar.py` are files.
    """
    preset = directory() / f"{name}.py"
    return preset if Path(name).name == name and preset.is_file() else Path(name)
