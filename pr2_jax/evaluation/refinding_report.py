"""What became of a day's clicks on videos that the same person had clicked before the search, and how tables say it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class FoundBefore:
    """Counts of one day. Where such videos are withheld from retrieval, clicks on them are no misses of it."""

    withheld: bool
    clicks: int  # clicked videos, each counted once a search
    again: int  # of them, those that the person had clicked before
    sessions: int  # searches with such a click
    nothing_new: int  # of them, those without any other click

    @property
    def rule(self) -> str:
        """For the title of a table of the whole catalogue."""
        return "videos already clicked withheld" if self.withheld else "videos already clicked shown again"

    @property
    def note(self) -> str:
        """A line beside a table of the whole catalogue."""
        counted = f"Of {self.clicks:,} clicks {self.again:,}, in {self.sessions:,} searches, are on videos"
        if not self.withheld:
            return f"{counted} that the person had clicked before; they count as any other."
        return (
            f"{counted} withheld because the person had clicked them before: no misses; {self.nothing_new:,} searches "
            "without another click are left out."
        )
