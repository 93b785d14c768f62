"""PR2 in JAX: personalised retrieval and ranking for short-video search (arXiv 2409.11281).

The command is `pr2` (pr2_jax/cli/entry.py); from Python, `pr2_jax.search.engine.SearchEngine.load(workdir)`.
"""

__version__ = "0.1.0"
