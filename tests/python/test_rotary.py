"""rotary family against float64, its module and the scaled tables against their definitions."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectile as vt
from vectile import _core, config, nn, ops
from vectile.autograd import functional as F


def turned(x, cosine, sine, interleaved):
    """The definition, pair by pair, in float64."""
    y, pairs = x.astype("f8"), cosine.shape[-1]
    x = y.copy()
    for j in range(pairs):
        a, b = (2 * j, 2 * j + 1) if interleaved else (j, pairs + j)
        y[..., a] = x[..., a] * cosine[..., j] - x[..., b] * sine[..., j]
        y[..., b] = x[..., b] * cosine[..., j] + x[..., a] * sine[..., j]
    return y


@pytest.mark.sanitize
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_matches_float64(data):
    draw = data.draw
    dtype = draw(st.sampled_from([np.float32, np.float64, np.float16, ml_dtypes.bfloat16]))
    shape = draw(st.sampled_from([(), (2,), (2, 3), (0, 2)]))
    length, pairs, rest = draw(st.integers(0, 9)), draw(st.integers(0, 40)), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    x = rng.normal(size=(*shape, length, 2 * pairs + rest)).astype(dtype)
    if shape and draw(st.booleans()):  # (batch, length, head, dim)
        x = np.ascontiguousarray(x.swapaxes(-2, -3)).swapaxes(-2, -3)
    lead = tuple(n if draw(st.booleans()) else 1 for n in shape)[draw(st.integers(0, 2)) :]
    table_dtype = np.float64 if dtype == np.float64 else np.float32
    angle = rng.normal(size=(*lead, length, pairs))
    cosine, sine = np.cos(angle).astype(table_dtype), np.sin(angle).astype(table_dtype)
    interleaved = draw(st.booleans())
    before = _core.config()["isa"]
    _core.set_isa(draw(st.sampled_from(config()["supported_isas"])))
    try:
        y = ops.rotary_embedding(x, cosine, sine, interleaved=interleaved)
        back = ops.rotary_embedding(y, cosine, sine, interleaved=interleaved, inverse=True)
    finally:
        _core.set_isa(before)
    assert y.dtype == x.dtype and y.shape == x.shape
    eps = float(ml_dtypes.finfo(dtype).eps)
    top = np.abs(x.astype("f8")).max(initial=0)
    want = turned(x, cosine.astype("f8"), sine.astype("f8"), interleaved)
    np.testing.assert_allclose(y.astype("f8"), want, rtol=0, atol=4 * eps * top)
    # The tables are rounded too: cos^2 + sin^2 is 1 within 4 eps.
    np.testing.assert_allclose(back.astype("f8"), x.astype("f8"), rtol=0, atol=12 * eps * top)


@pytest.mark.parametrize("interleaved", [False, True])
def test_gradients(rng, interleaved):
    x = vt.tensor(rng.normal(size=(2, 5, 8)), requires_grad=True)
    cosine, sine = nn.rotary_tables(np.arange(5), 6, dtype=np.float64)
    g = rng.normal(size=(2, 5, 8))
    y = F.rotary_embedding(x, cosine, sine, interleaved)
    (dx,) = vt.grad((y * y * g).sum(), [x], create_graph=True)
    (ddx,) = vt.grad((dx * dx).sum(), [x])
    step, way = 1e-6, rng.normal(size=x.shape)

    def slope(at):
        t = vt.tensor(at, requires_grad=True)
        out = F.rotary_embedding(t, cosine, sine, interleaved)
        return vt.grad((out * out * g).sum(), [t])[0].numpy()

    def value(at):
        return (F.rotary_embedding(at, cosine, sine, interleaved).numpy() ** 2 * g).sum()

    up, down = x.numpy() + step * way, x.numpy() - step * way
    assert abs((value(up) - value(down)) / (2 * step) - (dx.numpy() * way).sum()) < 1e-7
    along = ((slope(up) ** 2).sum() - (slope(down) ** 2).sum()) / (2 * step)
    assert abs(along - (ddx.numpy() * way).sum()) < 1e-5


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_depend_on_the_distance(rng, interleaved):
    layer = nn.RotaryEmbedding(16, 300, interleaved=interleaved, dtype=np.float64)
    q, k = rng.normal(size=(1, 16)), rng.normal(size=(1, 16))
    at = [float((layer(q, i) * layer(k, j)).sum().numpy()) for i, j in ((5, 2), (203, 200))]
    assert abs(at[0] - at[1]) < 1e-10
    whole = layer(np.repeat(q, 7, 0), 3).numpy()
    for i in range(7):
        np.testing.assert_allclose(whole[i], layer(q, 3 + i).numpy()[0], rtol=0, atol=1e-14)
    assert layer.state_dict() == {}


def angles(dim, **options):
    """Of position 1."""
    cosine, sine = nn.rotary_tables(1, dim, dtype=np.float64, **options)
    return np.arctan2(sine, cosine), np.hypot(sine, cosine)


def test_scaled_tables():
    plain, one = angles(64)
    np.testing.assert_allclose(plain, 10000.0 ** (-np.arange(32) / 32), rtol=1e-12)
    np.testing.assert_allclose(one, 1, rtol=1e-12)
    np.testing.assert_allclose(angles(64, scaling="linear", factor=4)[0], plain / 4, rtol=1e-12)
    ntk = angles(64, scaling="ntk", factor=4)[0]
    np.testing.assert_allclose(ntk[[0, -1]], plain[[0, -1]] / [1, 4], rtol=1e-12)
    for kind, fast in (("yarn", 32), ("llama3", 4)):
        scaled, size = angles(64, scaling=kind, factor=8, original_length=2048)
        turns = 2048 * plain / (2 * math.pi)
        ratio = plain / scaled
        assert (np.diff(ratio) >= -1e-12).all()
        # YaRN rounds the ends of its ramp outward to whole pairs.
        np.testing.assert_allclose(ratio[turns > fast * 1.4], 1, rtol=1e-12)
        np.testing.assert_allclose(ratio[turns < 0.7], 8, rtol=1e-12)
        want = 0.1 * math.log(8) + 1 if kind == "yarn" else 1
        np.testing.assert_allclose(size, want, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones(4), np.ones((1, 2)), np.ones((1, 2))), ValueError, "x ndim: expected at least 2"),
        ((np.ones((3, 4)), np.ones(2), np.ones(2)), ValueError, "cosine ndim"),
        ((np.ones((3, 4)), np.ones((3, 3)), np.ones((3, 3))), ValueError,
         "cosine pairs: expected at most 2, got 3"),
        ((np.ones((3, 4)), np.ones((2, 2)), np.ones((2, 2))), ValueError,
         "cosine length: expected 3, got 2"),
        ((np.ones((3, 4)), np.ones((3, 2)), np.ones((3, 1))), ValueError, "sine shape"),
        ((np.ones((2, 3, 4)), np.ones((3, 3, 2)), np.ones((3, 3, 2))), ValueError, "cosine shape"),
        ((np.ones((3, 4)), np.ones((3, 2), "f4"), np.ones((3, 2), "f4")), TypeError, "cosine dtype"),
        ((np.ones((3, 4), int), np.ones((3, 2)), np.ones((3, 2))), TypeError, "x dtype"),
    ],
)  # fmt: skip
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match="^rotary_embedding: " + message):
        ops.rotary_embedding(*arguments)


def test_bad_tables():
    with pytest.raises(ValueError, match="dim: expected an even number, got 3"):
        nn.rotary_tables(1, 3)
    with pytest.raises(ValueError, match="original_length: expected a length for 'yarn'"):
        nn.rotary_tables(1, 4, scaling="yarn")
    with pytest.raises(ValueError, match="scaling: expected 'linear'"):
        nn.rotary_tables(1, 4, scaling="other")
    with pytest.raises(ValueError, match="x length: expected at most 2 from offset 3, got 4"):
        nn.RotaryEmbedding(4, 5)(np.ones((4, 4)), 3)


def test_any_thread_count_gives_the_same_bits(rng, same_for_any_thread_count):
    x = rng.normal(size=(4, 8, 300, 64)).astype(np.float32)
    cosine, sine = nn.rotary_tables(np.arange(300), 64)
    same_for_any_thread_count(lambda: ops.rotary_embedding(x, cosine, sine))
