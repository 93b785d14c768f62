#!/usr/bin/env bash
# Checks and times one lent accelerator in at most eight minutes, on a bare checkout: needs only this machine's own
# python3 (PR2_PYTHON names another) with jax, flax, optax, orbax-checkpoint and numpy, and installs nothing.
#   bash launch/accelerator.sh [--small] [DIR]
# Results: accelerator.json and accelerator.md in DIR, or else $OUT, or else work/accelerator. Exit status 1 if a check
# does not hold or a part failed.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python=${PR2_PYTHON:-python3}
if ! "$python" -c '
import importlib.util, sys
names = ("jax", "flax", "optax", "orbax", "numpy")
sys.exit(sys.version_info < (3, 11) or None in map(importlib.util.find_spec, names))' 2>/dev/null; then
    echo "launch: error: $python is no Python from 3.11 on with jax, flax, optax, orbax-checkpoint and numpy" >&2
    exit 2
fi
# Compile times are part of what is measured.
export JAX_ENABLE_COMPILATION_CACHE=false
exec "$python" -m pr2_jax.bench.accelerator "$@"
