"""cross_entropy against a float64 oracle, on every tier and thread count."""

import numpy as np
import pytest

from vectile import ops

SHAPES = [(1,), (7,), (5, 1), (3, 16), (31, 33), (2, 3, 257), (4, 10007), (0, 5), (600, 65)]


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


def draw(rng, shape, dtype, scale=3.0):
    x = (scale * rng.normal(size=shape)).astype(dtype)
    targets = np.array(rng.integers(0, shape[-1], size=shape[:-1]))
    if targets.size > 1:
        targets.flat[:: max(2, targets.size // 5)] = -100
    return x, targets


def loss_bound(x, smoothing=0.0):
    """Absolute error of a row's loss, with u = eps / 2 for a rounding and m additions a term.

    x - max is off by u |x - max|, so its exp by that and 2 ulp more, and their sum by m u of what is summed
    so far, on average half of it; the log of it by as much, and by 2 ulp of itself; adding max and taking
    x[target] away round by u of a result below 2 max|x| + log n. The mean of x - max, which is at most the
    spread, likewise.
    """
    n, spread, top = x.shape[-1], np.ptp(x) if x.size else 0, np.abs(x).max(initial=0)
    m = min(n, 4096) + n // 4096
    lse = spread / 2 + 2 + m / 4 + 2 * np.log(n) + 2 * (2 * top + np.log(n)) / 2
    return np.finfo(x.dtype).eps * (lse + smoothing * (m / 4 + 1) * spread)


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_matches_float64(isa, dtype, rng, shape, smoothing):
    x, t = draw(rng, shape, dtype)
    loss, lse, dx, keep = oracle(x, t, smoothing=smoothing)
    bound = loss_bound(x, smoothing)
    eps = np.finfo(dtype).eps
    got, got_lse = ops.cross_entropy(
        x, t, label_smoothing=smoothing, reduction="none", return_lse=True
    )
    assert got.dtype == got_lse.dtype == dtype and got.shape == got_lse.shape == t.shape
    np.testing.assert_allclose(got, loss, rtol=0, atol=bound)
    np.testing.assert_allclose(got_lse, lse, rtol=eps, atol=bound)
    total = ops.cross_entropy(x, t, label_smoothing=smoothing, reduction="sum")
    assert total.shape == () and total.dtype == dtype
    np.testing.assert_allclose(total, loss.sum(), rtol=eps, atol=bound * max(1, keep.sum()))
    if keep.any():
        mean = ops.cross_entropy(x, t, label_smoothing=smoothing)
        np.testing.assert_allclose(mean, loss.sum() / keep.sum(), rtol=eps, atol=bound)

    # exp(x - lse) carries the rounding of lse, and the subtraction of the target another eps.
    atol = (np.abs(lse).max(initial=0) + np.abs(x).max(initial=0) + 8) * eps + bound
    g = rng.normal(size=t.shape).astype(dtype)
    expected = dx * g.astype(np.float64)[..., None]
    got = ops.cross_entropy_backward(g, x, t, got_lse, -100, smoothing, "none")
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol * np.abs(g).max(initial=1))
    for reduction, count in (("sum", 1), ("mean", max(1, keep.sum()))):
        scale = np.array(1.5, dtype)
        got = ops.cross_entropy_backward(scale, x, t, got_lse, -100, smoothing, reduction)
        np.testing.assert_allclose(got, dx * 1.5 / count, rtol=0, atol=2 * atol / count)


def test_large_logits_lose_nothing(dtype):
    x = np.array([[1e4, 1e4 - 1, 1e4 - 2]], dtype)
    expected = oracle(x - dtype(1e4), np.array([1]))[0]
    np.testing.assert_allclose(
        ops.cross_entropy(x, [1], reduction="none"), expected, rtol=20 * np.finfo(dtype).eps
    )


def test_all_targets_ignored(dtype):
    x, t = np.ones((3, 4), dtype), np.full(3, 9)
    assert np.isnan(ops.cross_entropy(x, t, 9))
    assert ops.cross_entropy(x, t, 9, reduction="sum") == 0
    loss, lse = ops.cross_entropy(x, t, 9, reduction="none", return_lse=True)
    np.testing.assert_array_equal(loss, 0)
    one = np.array(1, dtype)
    np.testing.assert_array_equal(ops.cross_entropy_backward(one, x, t, lse, 9), 0)


@pytest.mark.sanitize
def test_ignored_rows_do_not_leak(isa, dtype):
    x = np.full((3, 40), np.nan, dtype)
    x[1] = np.arange(40)
    t = np.array([-100, 3, -100])
    loss, lse = ops.cross_entropy(x, t, return_lse=True)
    expected = oracle(x[1:2], t[1:2])[0][0]
    np.testing.assert_allclose(loss, expected, rtol=0, atol=loss_bound(x[1:2]))
    dx = ops.cross_entropy_backward(np.array(1, dtype), x, t, lse)
    np.testing.assert_array_equal(dx[::2], 0)
    assert np.isfinite(dx[1]).all()
    x[1, 0] = -np.inf  # a class that is masked out
    assert np.isfinite(ops.cross_entropy(x, t)) and np.isinf(ops.cross_entropy(x, [-100, 0, -100]))
    x[1, 5] = np.nan
    assert np.isnan(ops.cross_entropy(x, t))


@pytest.mark.sanitize
@pytest.mark.parametrize("integer", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_any_integer_dtype_and_layout(rng, integer):
    x, t = (
        rng.normal(size=(12, 6, 9)).astype(np.float32),
        rng.integers(0, 9, (12, 6)).astype(integer),
    )
    for a, b in ((x, t), (x[::-2, ::3], t[::-2, ::3]), (x.transpose(1, 0, 2), t.T)):
        losses = oracle(a, b.astype(int))[0]
        atol = loss_bound(a) + losses.size / 2 * np.finfo(np.float32).eps * losses.max()
        np.testing.assert_allclose(ops.cross_entropy(a, b), losses.mean(), rtol=0, atol=atol)


def test_equals_torch(rng):
    torch = pytest.importorskip("torch")
    x, t = draw(rng, (40, 23), np.float32)
    for smoothing in (0.0, 0.2):
        for reduction in ("mean", "sum", "none"):
            tx = torch.tensor(x, requires_grad=True)
            expected = torch.nn.functional.cross_entropy(
                tx, torch.tensor(t), label_smoothing=smoothing, reduction=reduction
            )
            expected.sum().backward()
            loss, lse = ops.cross_entropy(x, t, -100, smoothing, reduction, return_lse=True)
            np.testing.assert_allclose(loss, expected.detach(), rtol=2e-6, atol=2e-6)
            grad = np.ones(loss.shape, np.float32)
            dx = ops.cross_entropy_backward(grad, x, t, lse, -100, smoothing, reduction)
            np.testing.assert_allclose(dx, tx.grad, rtol=0, atol=2e-6)


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    x, t = draw(rng, (3001, 65), np.float32)
    loss, lse = same_for_any_thread_count(
        lambda: ops.cross_entropy(x, t, -100, 0.1, return_lse=True)
    )
    same_for_any_thread_count(lambda: ops.cross_entropy_backward(loss, x, t, lse, -100, 0.1))


X, T, L = np.zeros((2, 3), np.float32), np.zeros(2, int), np.zeros(2, np.float32)
ONE = np.float32(1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.cross_entropy(X, [0, 3]),
            IndexError,
            r"cross_entropy: targets at \(1,\): .* got 3",
        ),
        (lambda: ops.cross_entropy(X, [-1, 0]), IndexError, r"targets at \(0,\): .* got -1"),
        (
            lambda: ops.cross_entropy(X, [0.0, 1.0]),
            TypeError,
            "targets dtype: expected an integer type",
        ),
        (
            lambda: ops.cross_entropy(X, [0]),
            ValueError,
            r"targets shape: expected \(2,\), got \(1,\)",
        ),
        (lambda: ops.cross_entropy(X.astype(int), T), TypeError, "logits dtype"),
        (lambda: ops.cross_entropy(ONE, 0), ValueError, "logits ndim"),
        (
            lambda: ops.cross_entropy(X, T, label_smoothing=1.5),
            ValueError,
            "label_smoothing value",
        ),
        (
            lambda: ops.cross_entropy(X, T, label_smoothing=float("nan")),
            ValueError,
            "label_smoothing",
        ),
        (
            lambda: ops.cross_entropy(X, T, reduction="max"),
            ValueError,
            "reduction value: .* got 'max'",
        ),
        (lambda: ops.cross_entropy(X[:, :0], T), IndexError, "expected 0 <= index < 0"),
        (lambda: ops.cross_entropy_backward(ONE, X, [0, 7], L), IndexError, r"targets at \(1,\)"),
        (
            lambda: ops.cross_entropy_backward(L, X, T, L),
            ValueError,
            r"grad shape: expected \(\)",
        ),
        (
            lambda: ops.cross_entropy_backward(ONE, X, T, L, reduction="none"),
            ValueError,
            "grad shape",
        ),
        (lambda: ops.cross_entropy_backward(ONE, X, T, L[:1]), ValueError, "lse shape"),
        (
            lambda: ops.cross_entropy_backward(1.0, X, T, L),
            TypeError,
            "grad dtype: expected float32",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_target_beyond_int64_is_not_taken_for_ignored():
    with pytest.raises(IndexError, match=r"more than 2\*\*63 - 1"):
        ops.cross_entropy(np.zeros((1, 3)), np.array([2**64 - 1], np.uint64), ignore_index=-1)
