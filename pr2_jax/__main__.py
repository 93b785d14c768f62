"""`python -m pr2_jax` is the `pr2` command."""

import sys

from pr2_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
