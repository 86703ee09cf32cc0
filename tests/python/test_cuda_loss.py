"""cross_entropy on a device against float64 and the CPU's op."""

import ml_dtypes
import numpy as np
import pytest
from on_device import cuda, dev, needs_device, run

from vectile import ops

pytestmark = needs_device

TYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
# Lengths about the vectors of 32, 128, 256 and 1024 threads, and beyond the registers of a block.
SHAPES = [(1,), (7,), (5, 1), (3, 16), (31, 33), (2, 3, 257), (3, 513), (0, 5)]
LONG = [(2, 2049), (2, 16383), (1, 16385), (1, 33001)]


def oracle(logits, targets, ignore=-100, smoothing=0.0):
    """Per-row losses, log-sum-exp, d loss / d logits, and which rows count."""
    x = logits.astype(np.float64)
    top = x.max(-1, keepdims=True)
    lse = top + np.log(np.exp(x - top).sum(-1, keepdims=True))
    keep = targets != ignore
    wanted = np.full(x.shape, smoothing / x.shape[-1])
    hot = np.arange(x.shape[-1]) == np.where(keep, targets, 0)[..., None]
    wanted += (1 - smoothing) * hot
    loss = np.where(keep, (wanted * (lse - x)).sum(-1), 0)
    return loss, lse[..., 0], (np.exp(x - lse) - wanted) * keep[..., None], keep


def draw(rng, shape, dtype):
    x = (3 * rng.normal(size=shape)).astype(dtype)
    targets = np.array(rng.integers(0, shape[-1], size=shape[:-1]))
    if targets.size > 1:
        targets.flat[:: max(2, targets.size // 5)] = -100
    return x, targets


def epsilons(dtype):
    """Of the type, and of what it is computed in."""
    wide = np.float64 if dtype == np.float64 else np.float32
    return float(ml_dtypes.finfo(dtype).eps), float(np.finfo(wide).eps)


def loss_bound(x, smoothing=0.0):
    """Absolute error of a row's loss and lse, in what is computed.

    x - max is off by eps / 2 |x - max|, its exp by that and 2 ulp more; a thread adds 32 of them,
    then pairs are added up, each piece rescaled by an exp: the relative error of the sum, and so the
    absolute one of its log, which rounds by 2 ulp of itself. Adding max and taking x[target] away
    round to eps / 2 of at most 2 max|x| + log n. The mean of x - max, at most the spread, likewise.
    """
    x = x.astype(np.float64)
    n, spread, top = x.shape[-1], np.ptp(x) if x.size else 0, np.abs(x).max(initial=0)
    added = 20 + 5 * (1 + n // 8192)
    bound = spread / 2 + 2 + added + 2 * np.log(n) + 2 * top + np.log(n)
    return bound + smoothing * added * spread


def close(got, want, atol, eps):
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=eps, atol=atol)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("shape", "smoothing"),
    [(shape, smoothing) for shape in SHAPES for smoothing in (0.0, 0.1, 1.0)]
    + [(shape, smoothing) for shape in LONG for smoothing in (0.0, 0.1)],
)
def test_matches_float64(rng, shape, smoothing, dtype):
    x, t = draw(rng, shape, dtype)
    loss, lse, dx, keep = oracle(x, t, smoothing=smoothing)
    eps, wide = epsilons(dtype)
    bound = loss_bound(x, smoothing) * wide
    options = dict(label_smoothing=smoothing)
    got, got_lse = run("cross_entropy", x, t, reduction="none", return_lse=True, **options)
    assert got.dtype == x.dtype and got.shape == got_lse.shape == t.shape
    assert got_lse.dtype == (np.float64 if dtype == np.float64 else np.float32)
    close(got, loss, bound, eps)
    close(got_lse, lse, bound, wide)
    total = run("cross_entropy", x, t, reduction="sum", **options)
    assert total.shape == () and total.dtype == x.dtype
    close(total, loss.sum(), bound * max(1, keep.sum()), eps)
    mean = run("cross_entropy", x, t, **options)
    if keep.any():
        close(mean, loss.sum() / keep.sum(), bound, eps)
    else:
        assert np.isnan(mean.astype(np.float32))

    # exp(x - lse) carries the rounding of lse, and the subtraction of the target another eps.
    atol = (np.abs(lse).max(initial=0) + np.abs(x.astype("f8")).max(initial=0) + 8) * wide + bound
    g = np.asarray(rng.normal(size=t.shape)).astype(dtype)
    got = run("cross_entropy_backward", g, x, t, got_lse, -100, smoothing, "none")
    assert got.dtype == x.dtype and got.shape == x.shape
    tiny = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    most = np.abs(g.astype("f8")).max(initial=1)
    close(got, dx * g.astype(np.float64)[..., None], atol * most + tiny, eps)
    for reduction, count in (("sum", 1), ("mean", max(1, keep.sum()))):
        scale = np.array(1.5, dtype)
        got = run("cross_entropy_backward", scale, x, t, got_lse, -100, smoothing, reduction)
        close(got, dx * 1.5 / count, 2 * atol / count + tiny, eps)


@pytest.mark.parametrize("smoothing", (0.0, 0.2))
@pytest.mark.parametrize("reduction", ("mean", "sum", "none"))
@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_agrees_with_the_cpu(rng, smoothing, reduction, dtype):
    x, t = draw(rng, (40, 23), dtype)
    atol = 2 * loss_bound(x, smoothing) * epsilons(dtype)[1]
    want, lse = ops.cross_entropy(x, t, -100, smoothing, reduction, return_lse=True)
    got, got_lse = run("cross_entropy", x, t, -100, smoothing, reduction, True)
    np.testing.assert_allclose(got, want, rtol=0, atol=atol * (40 if reduction == "sum" else 1))
    np.testing.assert_allclose(got_lse, lse, rtol=0, atol=atol)
    rest = (x, t, lse, -100, smoothing, reduction)
    grad = np.ones(want.shape, dtype)
    want = ops.cross_entropy_backward(grad, *rest)
    got = run("cross_entropy_backward", grad, *rest)
    np.testing.assert_allclose(got, want, rtol=0, atol=8 * epsilons(dtype)[1])


def test_more_rows_than_a_block_has_threads(rng):
    x, t = draw(rng, (1030, 2), np.float32)
    t[:1020:2] = -100
    loss, lse, dx, keep = oracle(x, t)
    close(run("cross_entropy", x, t), loss.sum() / keep.sum(), loss_bound(x) * 2**-23, 2**-23)
    got = run("cross_entropy_backward", ONE, x, t, lse.astype(np.float32))
    close(got, dx / keep.sum(), 16 * 2**-23 / keep.sum(), 2**-23)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_lse_of_a_half_type_may_be_half(rng, dtype):
    x, t = draw(rng, (4, 9), dtype)
    lse = oracle(x, t)[1].astype(dtype)
    got = run("cross_entropy_backward", np.ones(4, dtype), x, t, lse, reduction="none")
    want = ops.cross_entropy_backward(np.ones(4, dtype), x, t, lse, reduction="none")
    close(got, want.astype(np.float64), epsilons(dtype)[0], 2 * epsilons(dtype)[0])


def test_large_logits_lose_nothing():
    for dtype in (np.float32, np.float64):
        x = np.array([[1e4, 1e4 - 1, 1e4 - 2]], dtype)
        want = oracle(x - dtype(1e4), np.array([1]))[0]
        got = run("cross_entropy", x, np.array([1]), reduction="none")
        np.testing.assert_allclose(got, want, rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", TYPES)
def test_ignored_rows_do_not_leak(dtype):
    x = np.full((3, 40), np.nan, dtype)
    x[1] = np.arange(40)
    t = np.array([-100, 3, -100])
    loss, lse = run("cross_entropy", x, t, return_lse=True)
    eps, wide = epsilons(dtype)
    close(loss, oracle(x[1:2], t[1:2])[0][0], loss_bound(x[1:2]) * wide, eps)
    dx = run("cross_entropy_backward", np.array(1, dtype), x, t, lse).astype(np.float32)
    assert (dx[::2] == 0).all() and np.isfinite(dx[1]).all()
    x[1, 0] = -np.inf  # a class that is masked out
    assert np.isfinite(run("cross_entropy", x, t).astype(np.float32))
    assert np.isinf(run("cross_entropy", x, np.array([-100, 0, -100])).astype(np.float32))
    x[1, 5] = np.nan
    assert np.isnan(run("cross_entropy", x, t).astype(np.float32))
    assert np.isnan(run("cross_entropy", np.full_like(x, -np.inf), t, return_lse=True)[1]).all()


def test_all_targets_ignored():
    x, t = np.ones((3, 4), np.float32), np.full(3, 9)
    assert np.isnan(run("cross_entropy", x, t, 9))
    assert run("cross_entropy", x, t, 9, reduction="sum") == 0
    loss, lse = run("cross_entropy", x, t, 9, reduction="none", return_lse=True)
    np.testing.assert_array_equal(loss, 0)
    one = np.array(1, np.float32)
    np.testing.assert_array_equal(run("cross_entropy_backward", one, x, t, lse, 9), 0)
    none, lse = run("cross_entropy", x[:, :0], t, 9, reduction="none", return_lse=True)
    np.testing.assert_array_equal(none, 0)
    assert run("cross_entropy_backward", one, x[:, :0], t, lse, 9).shape == (3, 0)


@pytest.mark.parametrize("dtype", TYPES)
def test_targets_out_of_range_give_nan(rng, dtype):
    x = rng.normal(size=(5, 7)).astype(dtype)
    t = np.array([2, 7, -1, 6, 2**62])
    loss, lse = run("cross_entropy", x, t, reduction="none", return_lse=True)
    bad = [1, 2, 4]
    assert (np.isnan(loss.astype(np.float32)) == np.isin(np.arange(5), bad)).all()
    assert np.isfinite(lse).all() and np.isnan(run("cross_entropy", x, t).astype(np.float32))
    dx = run("cross_entropy_backward", np.ones(5, dtype), x, t, lse, reduction="none")
    assert (np.isnan(dx.astype("f4")).all(-1) == np.isin(np.arange(5), bad)).all()
    beyond = np.full(5, 2**64 - 1, np.uint64)
    got = run("cross_entropy", x, beyond, -1, reduction="none").astype(np.float32)
    assert np.isnan(got).all()  # not taken for ignored


@pytest.mark.parametrize("integer", ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"))
def test_any_integer_dtype_and_layout(rng, integer):
    x = rng.normal(size=(12, 6, 9)).astype(np.float32)
    t = rng.integers(0, 9, (12, 6)).astype(integer)
    for a, b in ((x, t), (x[::-2, ::3], t[::-2, ::3]), (x.transpose(1, 0, 2), t.T)):
        want = oracle(a, b.astype(int))[0].mean()
        close(run("cross_entropy", a, b), want, loss_bound(a) * 2**-23, 2**-23)


X, T, L = np.zeros((2, 3), np.float32), np.zeros(2, int), np.zeros(2, np.float32)
ONE = np.array(1, np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X, T + 0.5), {}, TypeError, "targets dtype: expected an integer type, got float64"),
        ((X, T[:1]), {}, ValueError, r"targets shape: expected \(2,\), got \(1,\)"),
        ((X.astype(int), T), {}, TypeError, "logits dtype"),
        ((ONE, T), {}, ValueError, "logits ndim"),
        ((X, T), {"label_smoothing": 1.5}, ValueError, "label_smoothing value"),
        ((X, T), {"label_smoothing": float("nan")}, ValueError, "label_smoothing"),
        ((X, T), {"reduction": "max"}, ValueError, "reduction value: .* got 'max'"),
        ((L, X, T, L), {}, ValueError, r"grad shape: expected \(\)"),
        ((ONE, X, T, L), {"reduction": "none"}, ValueError, "grad shape"),
        ((ONE, X, T, L[:1]), {}, ValueError, "lse shape"),
        ((ONE.astype("f8"), X, T, L), {}, TypeError, "grad dtype: expected float32"),
    ],
)
def test_bad_input(arguments, options, error, message):
    name = "cross_entropy" + ("_backward" if len(arguments) == 4 else "")
    with pytest.raises(error, match=f"{name}: {message}"):
        getattr(cuda, name)(*map(dev, arguments), **options)
