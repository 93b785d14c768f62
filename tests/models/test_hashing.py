"""Hashed tables: every id of every lookup, to train and to serve, is a row of the small table."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from pr2_jax.config import TableConfig, TablesConfig
from pr2_jax.models import model_functions
from pr2_jax.training.loop import init_state

HASHED = 5
TABLES = TablesConfig(*[TableConfig(hashed_rows=HASHED)] * 4)
SERVED = {
    "content": model_functions.content_functions,
    "preference": model_functions.preference_functions,
    "pdr": model_functions.pdr_functions,
    "qin": model_functions.ranker_functions,
}


@pytest.mark.parametrize("name", SERVED)
def test_all_lookups_are_hashed(name, request):
    task, batch = request.getfixturevalue(f"{name}_task"), request.getfixturevalue(f"{name}_batch")
    small = dataclasses.replace(task, config=dataclasses.replace(task.config, tables=TABLES))
    prepared = small.prepare(small.frozen, batch)
    found = small.lookups(prepared)
    exact = task.lookups(prepared)
    assert found.keys() == exact.keys()
    for key, (table, rows) in found.items():
        rows, ids = np.asarray(rows), np.asarray(exact[key][1])
        assert rows.max() < HASHED, (key, table)
        assert np.array_equal(rows == 0, ids == 0)
    assert {spec.used_rows for spec in small.table_specs().values()} == {HASHED}


@pytest.mark.parametrize("name", ["content_video", "pdr_video", "preference_video"])
def test_serving_reads_the_same_rows(name, request):
    """Rows beyond the hashed ones are poisoned: whoever reads one serves NaN."""
    model = name.split("_")[0]
    task = request.getfixturevalue(f"{model}_task")
    small = dataclasses.replace(task, config=dataclasses.replace(task.config, tables=TABLES))
    state = init_state(small, small.config.optim, 10)
    tables = {key: table.at[HASHED:].set(np.nan) for key, table in state.tables.items()}
    served = SERVED[model](small, state.params, tables)[name]
    vectors = served({"video_N": np.arange(1, 40, dtype=np.int32)})
    assert np.isfinite(jax.device_get(vectors)).all()
