"""Layers against plain NumPy twins; padding can neither win nor learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.models.layers import (
    EngagementGate,
    EventFeatures,
    MixtureOfExperts,
    PooledAttention,
    Profile,
    SelfAttention,
    TargetAttention,
    VideoAttributes,
    WordBag,
    attend,
    masked_mean,
    time_gap_bucket,
    unit,
    zero_softmax,
)

KEY = jax.random.key(0)


def plain_zero_softmax(logit_N: np.ndarray, keep_N: np.ndarray) -> np.ndarray:
    """One extra slot of logit 0; written without any of the tricks."""
    power_N = np.where(keep_N, np.exp(np.where(keep_N, logit_N, 0).astype(np.float64)), 0)
    return power_N / (power_N.sum(-1, keepdims=True) + 1)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_zero_softmax_is_a_softmax_with_one_more_slot(scale, rng):
    logit, keep = scale * rng.normal(size=(3, 4, 7)).astype(np.float32), rng.random((3, 4, 7)) < 0.6
    got = zero_softmax(jnp.asarray(logit), jnp.asarray(keep))
    np.testing.assert_allclose(got, plain_zero_softmax(logit, keep), rtol=2e-5, atol=1e-7)
    assert not np.any(np.asarray(got)[~keep])


def test_zero_softmax_does_not_overflow():
    got = zero_softmax(jnp.array([[500.0, 499.0], [-500.0, -400.0]]), jnp.ones((2, 2), bool))
    np.testing.assert_allclose(got, [[0.731059, 0.268941], [0, 0]], atol=1e-6)


def test_zero_softmax_gradient(rng):
    """Against finite differences of the twin; none reaches padding, none is NaN where all is padding."""
    logit, weight = rng.normal(size=(2, 5)), rng.normal(size=(2, 5))
    keep = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
    got = jax.grad(lambda x: (zero_softmax(x, keep) * weight).sum())(jnp.asarray(logit, jnp.float32))
    want, step = np.zeros_like(logit), 1e-6
    for at in np.ndindex(logit.shape):
        moved = logit.copy()
        moved[at] += step
        want[at] = ((plain_zero_softmax(moved, keep) - plain_zero_softmax(logit, keep)) * weight).sum() / step
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert not np.any(np.asarray(got)[~keep])


@pytest.fixture
def attention_inputs(rng):
    target, events = rng.normal(size=(2, 3, 8)), rng.normal(size=(2, 6, 8))
    return jnp.asarray(target, jnp.float32), jnp.asarray(events, jnp.float32)


def test_mask_equals_gather(attention_inputs, rng):
    """Masking logits gives what attention over the gathered subset gives: the claim of the layer's docstring."""
    target_BxSxD, events_BxNxD = attention_inputs
    kept_BxSxK = np.sort(np.argsort(rng.random((2, 3, 6)), axis=-1)[..., :3], axis=-1)
    keep_BxSxN = np.zeros((2, 3, 6), bool)
    np.put_along_axis(keep_BxSxN, kept_BxSxK, True, axis=-1)
    layer = TargetAttention(heads=2, width=8)
    params = layer.init(KEY, target_BxSxD, events_BxNxD, jnp.asarray(keep_BxSxN))
    got = attend(*layer.apply(params, target_BxSxD, events_BxNxD, jnp.asarray(keep_BxSxN)))
    for b, s in np.ndindex(2, 3):
        one = target_BxSxD[b : b + 1, s : s + 1]
        want = attend(*layer.apply(params, one, events_BxNxD[b : b + 1, kept_BxSxK[b, s]], jnp.ones((1, 1, 3), bool)))
        np.testing.assert_allclose(got[b, s], want[0, 0], atol=1e-6)


@pytest.mark.parametrize("cuts", [(), (3,), (1, 6)])
def test_pooled_attention_is_attention_with_projected_keys_and_values(cuts, attention_inputs):
    """The twin joins the parts and projects every event, as attention is usually written."""
    target_BxD, events_BxNxD = attention_inputs[0][:, 0], attention_inputs[1]
    mask_BxN = np.array([[0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0]], bool)
    layer = PooledAttention(heads=2, width=8)
    parts = jnp.split(events_BxNxD, cuts, axis=-1)
    params = layer.init(KEY, target_BxD, parts, mask_BxN)
    got = layer.apply(params, target_BxD, parts, mask_BxN)
    query_DxHxd, value_HxdxD = (np.asarray(params["params"][name]["kernel"]) for name in ("query", "value"))
    want = np.zeros((2, 8))
    for b, h in np.ndindex(2, 2):
        logit_N = np.asarray(events_BxNxD[b]) @ (np.asarray(target_BxD[b]) @ query_DxHxd[:, h]) / np.sqrt(8)
        value_NxD = np.asarray(events_BxNxD[b]) @ value_HxdxD[h]
        want[b] += plain_zero_softmax(logit_N, mask_BxN[b]) @ value_NxD
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("layer", [SelfAttention(2, 8), PooledAttention(2, 8)], ids=["self", "pooled"])
def test_padded_events_have_no_say_and_no_gradient(layer, attention_inputs):
    target_BxD, events_BxNxD = attention_inputs[0][:, 0], attention_inputs[1]
    mask_BxN = jnp.array([[False, False, True, True, True, True], [False] * 6])

    def call(events):
        return (events, mask_BxN) if isinstance(layer, SelfAttention) else (target_BxD, [events], mask_BxN)

    params = jax.jit(layer.init)(KEY, *call(events_BxNxD))

    @jax.jit
    def total(events):
        out = layer.apply(params, *call(events))
        return jnp.square(out * mask_BxN[..., None] if isinstance(layer, SelfAttention) else out).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(events_BxNxD)
    changed = jnp.where(mask_BxN[..., None], events_BxNxD, 77.0)
    assert np.isfinite(value)
    np.testing.assert_allclose(total(changed), value, rtol=1e-6)
    assert not np.any(np.asarray(gradient)[~np.asarray(mask_BxN)])
    assert np.any(gradient[0, 2:])


def test_nothing_to_attend_to_gives_nothing(attention_inputs):
    layer = PooledAttention(2, 8)
    inputs = attention_inputs[0][:, 0], [attention_inputs[1]], jnp.zeros((2, 6), bool)
    assert not np.any(layer.apply(layer.init(KEY, *inputs), *inputs))


@pytest.mark.parametrize("train", [False, True])
def test_gates_sum_to_one_and_mix_the_experts(train, rng):
    x_BxD = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    layer = MixtureOfExperts(tasks=3, experts=4, width=7, gate_dropout=0.5)
    params = layer.init(KEY, x_BxD, train=False)
    mixed, gate = layer.apply(params, x_BxD, train=train, rngs={"dropout": jax.random.key(1)})
    assert (mixed.shape, gate.shape) == ((6, 3, 7), (6, 3, 4))
    np.testing.assert_allclose(gate.sum(-1), 1, rtol=1e-6)
    plain = layer.apply(params, x_BxD, train=False)[1]
    dropped = np.asarray(gate) < 0.01 * np.asarray(plain)
    assert dropped.any() == train


def test_time_gap_buckets():
    seconds = np.array([0, 0.5, 1, 1.9, 2, 3.9, 4, 3_600, 86_400, 1e9], np.float32)
    assert time_gap_bucket(jnp.asarray(seconds), 24).tolist() == [0, 0, 0, 0, 1, 1, 2, 11, 16, 23]
    powers = 2.0 ** np.arange(24, dtype=np.float32)
    assert time_gap_bucket(jnp.asarray(powers), 24).tolist() == list(range(24))
    assert time_gap_bucket(jnp.asarray(powers * 0.999), 24).tolist() == [0, *range(23)]


def test_masked_mean_and_word_bag_of_nothing_are_zero(rng):
    rows_BxNxD = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)
    mask_BxN = jnp.array([[True, True, False], [False, False, False]])
    mean = masked_mean(rows_BxNxD, mask_BxN)
    np.testing.assert_allclose(mean[0], rows_BxNxD[0, :2].mean(0), rtol=1e-6)
    bag = WordBag()
    params = bag.init(KEY, rows_BxNxD, mask_BxN)
    out, gradient = jax.jit(jax.value_and_grad(lambda rows: bag.apply(params, rows, mask_BxN).sum()))(rows_BxNxD)
    assert not np.any(mean[1])
    assert not np.any(bag.apply(params, rows_BxNxD, mask_BxN)[1])
    assert np.isfinite(out)
    assert not np.any(np.asarray(gradient)[~np.asarray(mask_BxN)])


def test_word_bag_is_a_weighted_mean_inside_the_hull(rng):
    rows_BxNxD = jnp.asarray(rng.normal(size=(1, 3, 4)), jnp.float32)
    bag, mask = WordBag(), jnp.ones((1, 3), bool)
    params = bag.init(KEY, rows_BxNxD, mask)
    rows_NxD, dense = np.asarray(rows_BxNxD[0]), jax.tree.map(np.asarray, params["params"]["weight"])
    weight_Nx1 = np.log1p(np.exp(rows_NxD @ dense["kernel"] + dense["bias"]))
    want = (rows_NxD * weight_Nx1).sum(0) / weight_Nx1.sum()
    np.testing.assert_allclose(bag.apply(params, rows_BxNxD, mask)[0], want, rtol=1e-5)


def test_unit_keeps_zero_and_makes_length_one(rng):
    x = np.concatenate([rng.normal(size=(3, 5)), np.zeros((1, 5))]).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(unit(jnp.asarray(x)), axis=1), [1, 1, 1, 0], atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: unit(x).sum())(jnp.asarray(x))).all()


def test_hidden_captions_are_whole_and_only_in_training(rng):
    """Modality dropout hides some captions where brought vectors exist, and none where they do not."""
    size, width = 64, 4
    rows = {"caption": jnp.ones((size, 2, width)), "category": jnp.zeros((size, 2, width))}
    rows |= {"author": jnp.zeros((size, width))}
    video = {"caption": jnp.ones((size, 2), jnp.int32), "category": jnp.zeros((size, 2), jnp.int32)}
    video |= {"author": jnp.zeros(size, jnp.int32), "numbers": jnp.zeros((size, 4))}
    layer, brought = VideoAttributes(width, 0.3), {"brought": jnp.zeros((size, 3))}

    def shown(video, train):
        params = layer.init({"params": KEY, "dropout": KEY}, rows, video, train=False)
        out = layer.apply(params, rows, video, train=train, rngs={"dropout": jax.random.key(2)})
        return np.asarray(out).any(1)

    assert shown(video | brought, False).all()
    assert shown(video, True).all()
    assert 0.5 < shown(video | brought, True).mean() < 0.9


def test_event_features_tell_signals_and_gaps_apart(rng):
    layer = EventFeatures(6)
    signals_BxHxG, gap_BxH = jnp.asarray(rng.random((2, 3, 8)), jnp.float32), jnp.array([[1.0, 50, 1e5]] * 2)
    params = layer.init(KEY, signals_BxHxG, gap_BxH)
    out = layer.apply(params, signals_BxHxG, gap_BxH)
    assert out.shape == (2, 3, 6)
    assert not np.allclose(out, layer.apply(params, signals_BxHxG, gap_BxH * 8))
    assert not np.allclose(out, layer.apply(params, signals_BxHxG * 0, gap_BxH))
    np.testing.assert_allclose(out, layer.apply(params, signals_BxHxG, gap_BxH * 1.05), rtol=1e-6)


def test_gate_is_a_share_and_profile_fields_have_their_own_vocabularies(rng):
    signals = jnp.asarray(10 * rng.normal(size=(2, 3, 8)), jnp.float32)
    gate, profile = EngagementGate(), Profile((3, 5), 2)
    share = gate.apply(gate.init(KEY, signals), signals)
    assert share.shape == (2, 3)
    assert ((share > 0) & (share < 1)).all()
    fields = jnp.array([[2, 4], [2, 0]])
    params = profile.init(KEY, fields)
    out = profile.apply(params, fields)
    assert [params["params"][f"field_{n}"]["embedding"].shape for n in (0, 1)] == [(3, 2), (5, 2)]
    assert np.array_equal(out[0, :2], out[1, :2])
    assert not np.array_equal(out[0, 2:], out[1, 2:])
