"""Names of files and columns of a log in another form than KuaiSAR's. Marks as in `config/schema.py`."""

from __future__ import annotations

import dataclasses

from pr2_jax.config.checks import Section


@dataclasses.dataclass(frozen=True)
class _ByTable(Section):
    """A text for each table of the log."""

    rec_inter: str = ""
    src_inter: str = ""
    item_features: str = ""
    user_features: str = ""
    social_network: str = ""
    words: str = ""


@dataclasses.dataclass(frozen=True)
class FilesConfig(_ByTable):
    """By table, what its file or directory is called in the log; empty = as the table."""


@dataclasses.dataclass(frozen=True)
class ColumnsConfig(_ByTable):
    """By table, columns that the log names otherwise: "user_id=uid, timestamp=ts in s, caption=title as text".

    Left of `=` stands our name (data/schema.py has them all), right of it the file's; `in s` says that times are in
    seconds, `as text` that words are text instead of word ids. A column that only has another unit needs no `=`.
    """
