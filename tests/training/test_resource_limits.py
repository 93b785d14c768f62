"""What is said when disk or device memory runs out."""

from __future__ import annotations

import errno
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.errors import BadInput, Pr2Error
from pr2_jax.training import loop, resource_limits
from pr2_jax.training.loop import fit
from pr2_jax.training.mesh import ints

EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory allocating 4096 bytes.\nAnd a long list of allocations."


def _exhausted(*_):
    raise jax.errors.JaxRuntimeError(EXHAUSTED)


def test_memory_names_the_largest_arrays_and_what_to_lower(toy, batch_at, optim, tmp_path, monkeypatch):
    """`Toy` has tables of 512 x 3, padded, and batches of four rows; a step that raises stands in for a device."""
    monkeypatch.setattr(loop, "make_step", lambda *_: _exhausted)
    with pytest.raises(Pr2Error) as raised:
        fit(toy, batch_at, optim, steps=4, directory=tmp_path)
    assert str(raised.value) == (
        "toy does not fit the device's memory (RESOURCE_EXHAUSTED: Out of memory allocating 4096 bytes.); the largest "
        "arrays are state.table_opt.item.mu float32[512, 3] 0.0 MB, state.table_opt.item.nu float32[512, 3] "
        "0.0 MB, state.table_opt.other.mu float32[512, 3] 0.0 MB: lower toy.optim.batch or toy.width, or split the "
        "tables over more devices (mesh.data, mesh.model)"
    )


def test_a_batch_that_is_largest_is_what_to_lower(toy, batch_at, optim, tmp_path, monkeypatch):
    def large(step):
        return batch_at(step) | {"history_BxH": np.zeros((4, 1_000_000), np.int32)}

    monkeypatch.setattr(type(toy), "schema", toy.schema | {"history_BxH": ints("B", "H")})
    monkeypatch.setattr(loop, "make_step", lambda *_: _exhausted)
    with pytest.raises(
        Pr2Error, match=r"are batch.history_BxH int32\[4, 1000000\] 16.0 MB, .*: lower toy.optim.batch$"
    ):
        fit(toy, large, optim, steps=4, directory=tmp_path)


def test_memory_that_runs_out_before_the_first_batch(toy, batch_at, optim, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "init_state", _exhausted)
    with pytest.raises(Pr2Error, match=r"toy does not fit the device's memory .*state\.table"):
        fit(toy, batch_at, optim, steps=4, directory=tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError("RESOURCE_EXHAUSTED: Failed to write 5 bytes to file 7: No space left [os_error_code='28']"),
    ],
)
def test_a_full_disk_is_told_with_what_is_needed_and_free(error, tmp_path):
    """The last is what TensorStore raises; its first word is also what a device without memory says."""
    arrays = {"state": {"table": jnp.zeros((1_000, 100))}}

    def failing() -> None:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("the save failed") from cause

    with (
        pytest.raises(
            Pr2Error, match=rf"{re.escape(str(tmp_path))} cannot be written .* takes up to 0\.4 MB, .* are free"
        ),
        resource_limits.explained("pdr", tmp_path, arrays),
    ):
        failing()


@pytest.mark.parametrize(
    "error", [BadInput("no"), OSError(errno.EACCES, "no"), jax.errors.JaxRuntimeError("INTERNAL: no"), KeyError("no")]
)
def test_other_errors_are_left_as_they_are(error, tmp_path):
    with pytest.raises(type(error)) as raised, resource_limits.explained("pdr", tmp_path, {"state": {}}):
        raise error
    assert raised.value is error
