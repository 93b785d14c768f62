#!/usr/bin/env bash
# Lints and tests, on a bare checkout: needs nothing but Python 3.11 (or 3.12, 3.13). Arguments go to pytest.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
exec "$venv/bin/python" -m pytest "$@"
