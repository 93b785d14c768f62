"""Packaging. Versions that are tested together are pinned in launch/constraints.txt."""

from setuptools import find_packages, setup

setup(
    name="pr2_jax",
    version="0.1.0",
    description="Personalised retrieval and ranking for short-video search, in JAX",
    license="Apache-2.0",
    packages=find_packages(include=["pr2_jax", "pr2_jax.*"]),
    package_data={"pr2_jax.report": ["templates/*"], "pr2_jax.demo": ["templates/*", "static/*"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "absl-py",
        "array_record",
        "bm25s",
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
        "test": ["hypothesis>=6", "jaxtyping", "pytest>=8", "pytest-xdist>=3.6", "ruff", "selenium>=4.20"],
    },
    entry_points={"console_scripts": ["pr2 = pr2_jax.__main__:main"]},
)
