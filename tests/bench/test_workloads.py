"""Each workload runs at a small size, says what it measured, and counts what a step must cost."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.bench import bench_command, feed_workload, harness, qrcf_workload, step_workloads, synthetic
from pr2_jax.bench.harness import Measured
from pr2_jax.config import OptimConfig, PdrConfig, QinConfig
from pr2_jax.training.loop import abstract_state

SIZES = synthetic.Sizes(videos=900, words=80, authors=30, query_tokens=3, caption_tokens=4, slate=3)
OPTIM = OptimConfig(batch=16, table_optimizer="row_adagrad")
PDR = PdrConfig(width=8, hidden=8, heads=2, history=6, uniform_negatives=10, hard_negatives=2, optim=OPTIM)
QIN = QinConfig(
    width=8, heads=2, experts=2, expert_width=8, history=20, keep_query=8, keep_video=4, realtime=5, optim=OPTIM
)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(synthetic, "pdr_config", lambda: PDR)
    monkeypatch.setattr(synthetic, "qin_config", lambda: QIN)
    monkeypatch.setattr(
        step_workloads, "SLATES", step_workloads.SLATES[:1]
    )  # of one size here: a second would be traced for nothing


def test_products_are_counted_through_gradients_and_inner_functions():
    left, right = jnp.ones((3, 5)), jnp.ones((5, 7))

    def loss(left, right):
        return jax.jit(lambda a, b: jnp.square(a @ b).sum())(left, right)

    forward = 2 * 3 * 5 * 7
    assert harness.matmul_flops(loss, left, right) == forward
    assert harness.matmul_flops(jax.grad(loss, (0, 1)), left, right) == 3 * forward
    batched = harness.matmul_flops(lambda a, b: jnp.einsum("bnd,bd->bn", a, b), jnp.ones((4, 6, 2)), jnp.ones((4, 2)))
    assert batched == 2 * 4 * 6 * 2


def test_bytes_follow_the_rows_looked_up_and_not_the_catalogue(small):
    """Counted by hand for the tables' part; ten times the catalogue costs nothing more."""
    batch = synthetic.pdr_batch(PDR, SIZES, 0)
    task = synthetic.pdr_task(PDR, SIZES)
    params = abstract_state(task, OPTIM, 10).params  # sizes are enough
    none, some = (harness.step_bytes(task, batch, params, dict.fromkeys(SIZES.tables, kept)) for kept in (0, 3))
    prepared = task.prepare(task.frozen, batch)
    distinct: dict[str, set] = {}
    for table, ids in task.lookups(prepared).values():
        distinct.setdefault(table, set()).update(np.asarray(ids).reshape(-1).tolist())
    assert some - none == 4 * 2 * 3 * sum(map(len, distinct.values()))
    larger = synthetic.pdr_task(PDR, dataclasses.replace(SIZES, videos=9_000))
    assert harness.step_bytes(larger, batch, params, dict.fromkeys(SIZES.tables, 0)) == pytest.approx(none, rel=0.02)
    assert none > 4 * 3 * 8 * (16 * 6 * 2)  # rows of the history and of its authors alone


@pytest.mark.parametrize("workload", [step_workloads.pdr, step_workloads.qin])
def test_training_steps(workload, small):
    found = list(workload(2, SIZES))
    assert all(m.rows == 16 and m.rows_per_s > 0 and m.must_flops > 0 and m.compile_s > 0 for m in found)
    assert [m.size["V"] for m in found] == [900] * len(found)


def test_qrcf_alone_and_with_the_walk():
    sizes = qrcf_workload.Sizes(requests=8, history=30, seeds=4, neighbours=5, videos=500)
    alone, walked = qrcf_workload.run(2, sizes)
    assert (alone.variant, walked.variant) == ("filter", "filter+walk")
    assert alone.must_flops == 2 * 8 * 30 * qrcf_workload.WIDTH
    assert walked.must_bytes - alone.must_bytes == 8 * 8 * 4 * 5


def test_feed_is_measured_beside_what_it_feeds(small):
    found = list(feed_workload.run(2, SIZES, feed_workload.Log(users=20, events_a_user=30, sessions=100)))
    assert [m.workload for m in found] == ["feed", "pdr", "feed", "qin"]
    for fed, step in (found[:2], found[2:]):
        assert fed.note == f"{step.step_s / fed.step_s:.1f} x what training takes"
        assert fed.rows == 16


def test_every_workload_has_a_name_in_the_command(capsys, monkeypatch):
    one = Measured("tables", "x", {"V": 3}, 4, 0.5, [1.0, 2.0, 4.0], 100, 50)
    monkeypatch.setitem(bench_command.WORKLOADS, "tables", lambda repeats: iter([one]))
    bench_command.print_workload("tables", 3, True)
    said = json.loads(capsys.readouterr().out)
    assert said["step_s"] == 2.0
    assert said["rows_per_s"] == 2.0
    assert said["must_bytes_per_s"] == 50.0
    assert set(bench_command.WORKLOADS) == {"tables", "pdr", "qin", "qrcf", "feed"}
