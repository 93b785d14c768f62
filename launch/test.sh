#!/usr/bin/env bash
# Lints and tests, on a bare checkout: needs nothing but Python 3.11 (or 3.12, 3.13). Arguments go to pytest.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
# Two workers: compiling takes most of the time, and each holds a finished work directory in memory.
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
