"""Packaging. Versions that are tested together are pinned in launch/constraints.txt.

`pip install .` installs for CPUs, `pip install '.[cuda]'` for NVIDIA GPUs, `pip install '.[tpu]'` for Cloud TPUs;
a wheel takes the same extras: `pip install 'pr2_jax[cuda] @ file:///PATH/pr2_jax-0.1.0-py3-none-any.whl'`.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "pr2_jax/__init__.py").read_text(encoding="utf-8"), re.MULTILINE)

setup(
    name="pr2_jax",
    version=VERSION[1],
    description="Personalised retrieval and ranking for short-video search, in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=[*find_packages(include=["pr2_jax", "pr2_jax.*"]), "pr2_jax.presets"],
    package_dir={"pr2_jax.presets": "configs"},  # one source of presets: found there too in a checkout
    package_data={
        "pr2_jax": ["docs/**/*.md", "docs/**/*.png", "docs/**/*.svg", "docs/**/*.json"],
        "pr2_jax.report": ["templates/*"],
        "pr2_jax.demo": ["templates/*", "static/*"],
    },
    python_requires=">=3.11,<3.14",
    install_requires=[
        "absl-py",
        "array_record",
        "flatbuffers",  # jax.export needs it and does not ask for it
        "flax>=0.12",
        "importlib_resources",  # tensorflow-datasets needs it and does not ask for it
        "jax>=0.10",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "numpy>=2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "polars>=1.30",
        "pyarrow>=15",
        "rich>=13",
        "scann>=1.4; sys_platform == 'linux'",  # no wheels elsewhere: exact search takes its place
        "scipy",
        "starlette>=1.0",
        "tensorflow-datasets>=4.9.10",
        "uvicorn>=0.38",
    ],
    extras_require={
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "test": [
            "bm25s",  # BM25 as others compute it
            "hypothesis>=6",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff",
            "selenium>=4.20",
            "setuptools>=70.1",
        ],
    },
    entry_points={"console_scripts": ["pr2 = pr2_jax.__main__:main"]},
)
