#!/usr/bin/env bash
# The main job on the simulated world, on a bare checkout: needs nothing but Python 3.11 (or 3.12, 3.13).
# Ends with the results table and one search. Arguments go to `pr2 run`; PR2_WORKDIR names another work directory.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
workdir=${PR2_WORKDIR:-work/quickstart}
"$venv/bin/pr2" run --config configs/quickstart.py --workdir "$workdir" "$@"
"$venv/bin/pr2" search --workdir "$workdir" --user 22204 --query "mountain"
