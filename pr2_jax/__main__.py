"""The `pr2` command, also as `python -m pr2_jax`, with what has to be in the environment before a process begins."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NO_REEXEC = "PR2_NO_REEXEC"
"""Of the environment: a value other than 0 keeps the process from starting again."""

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Asks for huge pages. A training step on a CPU allocates its hundreds of megabytes anew; with pages of 4 kB their
faults, and the look-ups of pages in tables of gigabytes, take up to half of its time."""


def main() -> int:
    """Exit status of the command."""
    settle_environment()
    from pr2_jax.cli import entry

    return entry.main()


def settle_environment() -> None:
    """Starts the process again (execve: same process id) with a setting that the C library reads at its start only.

    Whatever the caller has set stays as it is. `PR2_NO_REEXEC=1` keeps the process; `pr2 --help` says so.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pr2_jax" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    wanted = os.environ.get(NO_REEXEC, "0") in ("", "0")
    if wanted and sys.platform == "linux" and not HUGE_PAGES.keys() & os.environ.keys():
        os.execve(sys.executable, sys.orig_argv, os.environ | HUGE_PAGES)


if __name__ == "__main__":
    sys.exit(main())
