"""Records of columns over the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np


class RowRecord:
    """A dataclass whose fields are columns, or such records, of the same rows."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(*(x.take(rows) if isinstance(x, RowRecord) else x[rows] for x in vars(self).values()))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(type(c[0]).joined(c) if isinstance(c[0], RowRecord) else np.concatenate(c) for c in columns))
