"""pool family against windows and matrices written out in NumPy, on every tier and thread count."""

import math

import numpy as np
import pytest

from vectile import ops

# Rows shorter and longer than a vector, one more, primes; planes of one element.
PLANES = [(1, 1), (7, 5), (3, 16), (8, 33), (6, 67)]
# kernel, stride, padding, dilation
WINDOWS = [
    ((2, 2), (2, 2), (0, 0), (1, 1)),
    ((3, 3), (2, 2), (1, 1), (1, 1)),
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((1, 2), (3, 4), (0, 1), (1, 1)),
    ((2, 3), (1, 2), (1, 1), (2, 2)),
    ((5, 4), (3, 1), (2, 2), (1, 1)),
]


def length(n, kernel, stride, padding, dilation, ceil_mode):
    room = n + 2 * padding - dilation * (kernel - 1) - 1
    count = (math.ceil(room / stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= n + padding:
        count -= 1
    return count


def windows(n, kernel, stride, padding, dilation=1, ceil_mode=False):
    """The inputs that each output looks at; None where a window has none."""
    count = length(n, kernel, stride, padding, dilation, ceil_mode)
    places = [[o * stride - padding + k * dilation for k in range(kernel)] for o in range(count)]
    inside = [[i for i in p if 0 <= i < n] for p in places]
    return inside if count > 0 and all(inside) else None


def adaptive(n, outputs):
    return [list(range(o * n // outputs, -(-(o + 1) * n // outputs))) for o in range(outputs)]


def max_oracle(x, rows, columns):
    """(maxima, places): NaN wins, the last one found; else the first of equals."""
    width = x.shape[-1]
    y = np.empty((*x.shape[:-2], len(rows), len(columns)), x.dtype)
    index = np.empty(y.shape, np.int32)
    for at in np.ndindex(x.shape[:-2]):
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                places = [a * width + b for a in r for b in c]
                values = x[at].ravel()[places]
                nans = np.flatnonzero(np.isnan(values))
                best = nans[-1] if nans.size else int(np.argmax(values))
                y[(*at, i, j)], index[(*at, i, j)] = values[best], places[best]
    return y, index


def drawn(rng, shape, dtype):
    """Small integers, so that windows have ties, and a few NaN and infinities."""
    x = rng.integers(-4, 4, size=shape).astype(dtype)
    for value in (np.nan, np.inf, -np.inf):
        x[rng.random(shape) < 0.02] = value
    return x


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pool_matches_oracle(isa, dtype, rng, plane, ceil_mode):
    x = drawn(rng, (2, 2, *plane), dtype)
    for kernel, stride, padding, dilation in WINDOWS:
        axes = [
            windows(*a, ceil_mode)
            for a in zip(plane, kernel, stride, padding, dilation, strict=True)
        ]
        if None in axes:
            with pytest.raises(ValueError, match="max_pool: "):
                ops.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
            continue
        y, index = ops.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode, True)
        expected = max_oracle(x, *axes)
        np.testing.assert_array_equal(y, expected[0])
        np.testing.assert_array_equal(index, expected[1])
        assert y.dtype == dtype and index.dtype == np.int32
        np.testing.assert_array_equal(
            y, ops.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
        )
        grad = rng.normal(size=y.shape).astype(dtype)
        dx = ops.max_pool_backward(grad, index, plane)
        check_scatter(dx, grad, index)


def check_scatter(dx, grad, index):
    rows = dx.reshape(-1, dx.shape[-2] * dx.shape[-1])
    expected, size = np.zeros_like(rows, np.float64), np.zeros_like(rows, np.float64)
    g, places = (a.reshape(len(rows), -1) for a in (grad.astype(np.float64), index))
    for total, values in ((expected, g), (size, np.abs(g))):
        np.add.at(total, (np.arange(len(rows))[:, None], places), values)
    many = index.shape[-1] * index.shape[-2]
    assert (np.abs(rows - expected) <= many * np.finfo(dx.dtype).eps * size).all()


@pytest.mark.parametrize("plane", PLANES)
def test_adaptive_max_pool_matches_oracle(isa, dtype, rng, plane):
    x = drawn(rng, (3, *plane), dtype)
    for size in [(1, 1), (3, 2), (7, 40)]:
        y, index = ops.adaptive_max_pool2d(x, size, True)
        axes = [adaptive(n, m) for n, m in zip(plane, size, strict=True)]
        expected = max_oracle(x, *axes)
        np.testing.assert_array_equal(y, expected[0])
        np.testing.assert_array_equal(index, expected[1])


def mean_matrix(n, inside, divisor):
    m = np.zeros((len(inside), n))
    for o, places in enumerate(inside):
        m[o, places] = 1 / divisor(o, places)
    return m


def check_linear(x, g, forward, backward, h, w):
    """y = h x wᵀ and dx = hᵀ g w within a rounding per tap and axis."""
    eps = np.finfo(x.dtype).eps
    taps = [np.count_nonzero(m, axis).max() for m in (h, w) for axis in (0, 1)]
    k = 2 * sum(taps) + 8
    for got, a, left, right in ((forward(x), x, h, w.T), (backward(g), g, h.T, w)):
        expected = left @ a.astype(np.float64) @ right
        bound = k * eps * (np.abs(left) @ np.abs(a.astype(np.float64)) @ np.abs(right))
        assert got.shape == expected.shape and got.dtype == x.dtype
        assert (np.abs(got - expected) <= bound).all()


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_avg_pool_matches_oracle(isa, dtype, rng, plane, ceil_mode):
    x = rng.normal(size=(2, 2, *plane)).astype(dtype)
    for kernel, stride, padding, dilation in WINDOWS:
        if dilation != (1, 1):
            continue
        axes = [
            windows(n, k, s, p, 1, ceil_mode)
            for n, k, s, p in zip(plane, kernel, stride, padding, strict=True)
        ]
        if None in axes:
            with pytest.raises(ValueError, match="avg_pool: "):
                ops.avg_pool2d(x, kernel, stride, padding, ceil_mode)
            continue
        g = rng.normal(size=(2, 2, *map(len, axes))).astype(dtype)
        for include, override in [(True, None), (False, None), (True, -3)]:

            def padded(axis, kernel=kernel, stride=stride, padding=padding):
                n, k, s, p = plane[axis], kernel[axis], stride[axis], padding[axis]
                return lambda o, _: min(o * s - p + k, n + p) - (o * s - p)

            if override:
                divisors = [lambda o, _, override=override: override, lambda o, _: 1]
            else:
                divisors = [padded(a) if include else lambda o, at: len(at) for a in (0, 1)]
            settings = stride, padding, ceil_mode, include, override
            check_linear(
                x,
                g,
                lambda a, k=kernel, s=settings: ops.avg_pool2d(a, k, *s),
                lambda a, k=kernel, s=settings: ops.avg_pool_backward(a, plane, k, *s),
                *map(mean_matrix, plane, axes, divisors),
            )


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (9, 40)])
def test_adaptive_avg_pool_matches_oracle(isa, dtype, rng, plane, size):
    x = rng.normal(size=(3, *plane)).astype(dtype)
    g = rng.normal(size=(3, *size)).astype(dtype)
    check_linear(
        x,
        g,
        lambda a: ops.adaptive_avg_pool2d(a, size),
        lambda a: ops.adaptive_avg_pool_backward(a, plane),
        *(
            mean_matrix(n, adaptive(n, m), lambda o, at: len(at))
            for n, m in zip(plane, size, strict=True)
        ),
    )


def cubic(d):
    """Keys' kernel with a = -0.75."""
    d, a = abs(d), -0.75
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else 0.0


def interpolation_matrix(n, outputs, mode, align_corners, factor):
    m = np.zeros((outputs, n))
    scale = 1 / factor if factor else n / outputs
    if align_corners:
        scale = (n - 1) / (outputs - 1) if outputs > 1 else 0.0
    for o in range(outputs):
        if mode.startswith("nearest"):
            at = (np.float32(o) + np.float32(0.5 * (mode != "nearest"))) * np.float32(scale)
            m[o, min(int(at), n - 1)] = 1
            continue
        at = scale * o if align_corners else scale * (o + 0.5) - 0.5
        if mode == "linear":
            at = min(max(at, 0.0), n - 1)
        low = math.floor(at)
        for i in range(low - 1, low + 3):
            weight = cubic(at - i) if mode == "cubic" else max(0.0, 1 - abs(at - i))
            m[o, min(max(i, 0), n - 1)] += weight
    return m


MODES = [
    ("nearest", False),
    ("nearest-exact", False),
    ("linear", False),
    ("linear", True),
    ("cubic", False),
    ("cubic", True),
]


@pytest.mark.parametrize(("mode", "align_corners"), MODES)
@pytest.mark.parametrize("plane", [(1, 1), (3, 5), (6, 35)])
@pytest.mark.parametrize("factor", [None, (2.0, 1.9)])
def test_interpolate_matches_oracle(isa, dtype, rng, plane, mode, align_corners, factor):
    x = rng.normal(size=(2, *plane)).astype(dtype)
    sizes = [(1, 1), (6, 10), (5, 70)] if factor is None else [(2 * plane[0], int(1.9 * plane[1]))]
    for size in sizes:
        g = rng.normal(size=(2, *size)).astype(dtype)
        settings = mode, align_corners, factor
        matrices = [
            interpolation_matrix(n, m, mode, align_corners, f)
            for n, m, f in zip(plane, size, factor or (None, None), strict=True)
        ]
        check_linear(
            x,
            g,
            lambda a, size=size, s=settings: ops.interpolate(a, size, *s),
            lambda a, s=settings: ops.interpolate_backward(a, plane, *s),
            *matrices,
        )


def test_one_axis_is_two_with_a_height_of_one(isa, dtype, rng):
    x = rng.normal(size=(2, 3, 45)).astype(dtype)
    tall = x[:, :, None]
    y, index = ops.max_pool1d(x, 3, 2, 1, return_indices=True)
    z, places = ops.max_pool2d(tall, (1, 3), (1, 2), (0, 1), return_indices=True)
    np.testing.assert_array_equal(y, z[:, :, 0])
    np.testing.assert_array_equal(index, places[:, :, 0])
    np.testing.assert_array_equal(
        ops.max_pool_backward(y, index, (45,)),
        ops.max_pool_backward(z, places, (1, 45))[:, :, 0],
    )
    for one, two in (
        (ops.avg_pool1d(x, 4, 3, 2), ops.avg_pool2d(tall, (1, 4), (1, 3), (0, 2))),
        (ops.adaptive_avg_pool1d(x, 7), ops.adaptive_avg_pool2d(tall, (1, 7))),
        (ops.adaptive_max_pool1d(x, 7), ops.adaptive_max_pool2d(tall, (1, 7))),
        (ops.interpolate(x, (90,), "linear"), ops.interpolate(tall, (1, 90), "linear")),
    ):
        np.testing.assert_array_equal(one, two[:, :, 0])


def test_what_is_outside_a_window_does_not_count(isa):
    """NaN next to a window, behind a weight of zero, or at the end of a row stays where it is."""
    x = np.ones((1, 4, 37), np.float32)
    x[0, :, 20] = np.nan
    x[0, 3] = np.nan
    y = ops.adaptive_avg_pool2d(x, (4, 5))
    assert np.isnan(y[0, :3]).sum(0).tolist() == [0, 0, 3, 0, 0] and np.isnan(y[0, 3]).all()
    np.testing.assert_allclose(y[0, :3, [0, 1, 3, 4]], 1, rtol=1e-6)
    up = ops.interpolate(x, (7, 73), "linear", align_corners=True)
    assert np.isfinite(up[0, :5, :39]).all() and np.isfinite(up[0, :5, 42:]).all()
    assert np.isfinite(ops.avg_pool2d(x, (1, 2), (2, 2))[0, :, :10]).all()
    assert np.isnan(ops.max_pool2d(x, 2)[0, 1]).all()


def test_an_image_too_large_for_lanes_to_count_in_float32(isa):
    """Places above 2^24 are exact, in one window or all over the plane."""
    x = np.zeros((1, (1 << 21) + 4, 9), np.float32)
    x[0, 1::2, 1::2] = 1
    _, index = ops.max_pool2d(x, 2, return_indices=True)
    expected = np.arange(x[0].size).reshape(x[0].shape)[1::2, 1::2]
    assert expected.max() > 1 << 24 and np.array_equal(index[0], expected)
    x = np.zeros((1, 2, (1 << 24) + 5), np.float32)
    x[0, 1, -2] = 1
    _, index = ops.max_pool2d(x, (2, 4), (1, 2), return_indices=True)
    assert (index[0, 0, -1], index[0, 0, -2]) == (2 * x.shape[2] - 2, x.shape[2] - 7)


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    x = rng.normal(size=(9, 7, 43, 45)).astype(np.float32)
    y, index = same_for_any_thread_count(lambda: ops.max_pool2d(x, 3, 2, 1, return_indices=True))
    same_for_any_thread_count(lambda: ops.max_pool_backward(y, index, (43, 45)))
    for forward, backward in (
        (lambda: ops.avg_pool2d(x, 3, 2), lambda g: ops.avg_pool_backward(g, (43, 45), (3, 3), 2)),
        (
            lambda: ops.adaptive_avg_pool2d(x, 6),
            lambda g: ops.adaptive_avg_pool_backward(g, (43, 45)),
        ),
        (
            lambda: ops.interpolate(x, (86, 90), "linear"),
            lambda g: ops.interpolate_backward(g, (43, 45), "linear"),
        ),
        (lambda: ops.interpolate(x, (86, 90)), lambda g: ops.interpolate_backward(g, (43, 45))),
    ):
        g = same_for_any_thread_count(forward)
        same_for_any_thread_count(lambda g=g, backward=backward: backward(g))


@pytest.mark.sanitize
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 7), (1, 5, 16), (2, 17, 33), (0, 4, 4)])
def test_strided_and_tight_arrays(rng, shape):
    """Views give what packed copies give; under the sanitizers, nothing past an array's end is read."""
    backing = rng.normal(size=(*shape, 2)).astype(np.float32)
    for x in (backing[..., 0], backing[..., 0][:, ::-1], backing[..., 1].swapaxes(1, 2)):
        packed = np.ascontiguousarray(x)
        for call in (
            lambda a: ops.max_pool2d(a, 2, 1, 1, return_indices=True),
            lambda a: ops.max_pool2d(a, 2, 2, ceil_mode=True),
            lambda a: ops.avg_pool2d(a, 3, 2, 1, True),
            lambda a: ops.adaptive_avg_pool2d(a, (2, 5)),
            lambda a: ops.adaptive_max_pool2d(a, (2, 5)),
            lambda a: ops.interpolate(a, (9, 40), "linear"),
            lambda a: ops.interpolate_backward(a, (3, 2), "cubic"),
        ):
            results = [call(a) if isinstance(call(a), tuple) else (call(a),) for a in (x, packed)]
            for left, right in zip(*results, strict=True):
                np.testing.assert_array_equal(left, right)


X = np.zeros((2, 3, 4), np.float32)
I = np.zeros((2, 2, 2), np.int32)


@pytest.mark.sanitize
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.max_pool2d(X.astype(int), 2), TypeError, "max_pool: x dtype"),
        (lambda: ops.max_pool2d(X[0], 2), ValueError, "x ndim: expected at least 3, got 2"),
        (lambda: ops.max_pool2d(X[:, :0], 2), ValueError, "pooled axis: expected 1 to"),
        (lambda: ops.max_pool2d(X, 0), ValueError, r"kernel_size value: expected 1 to 2\*\*31 - 1"),
        (lambda: ops.max_pool2d(X, 2, 0), ValueError, "stride value"),
        (lambda: ops.max_pool2d(X, 2, 1, -1), ValueError, "padding value"),
        (lambda: ops.max_pool2d(X, 2, 1, 2), ValueError, "at most half of the window's 2"),
        (lambda: ops.max_pool2d(X, 2, dilation=0), ValueError, "dilation value"),
        (lambda: ops.max_pool2d(X, 5), ValueError, "window: expected at most the 4 elements"),
        (lambda: ops.max_pool2d(X, 2**40), ValueError, "kernel_size value"),
        (lambda: ops.max_pool2d(X, (1, 2, 3)), ValueError, "kernel_size length: expected 1 or 2"),
        (lambda: ops.max_pool2d(X, "ab"), TypeError, "kernel_size type: expected int or 2 of them"),
        (lambda: ops.max_pool(X, (1, 1, 1)), ValueError, "pooled axes: expected 1 or 2, got 3"),
        (lambda: ops.adaptive_max_pool2d(X, 0), ValueError, "output_size value"),
        (lambda: ops.adaptive_avg_pool2d(X, -1), ValueError, "output_size value"),
        (lambda: ops.avg_pool2d(X, 2, divisor_override=0), ValueError, "divisor_override value"),
        (
            lambda: ops.max_pool_backward(X[:, :2, :2], I + 12, (3, 4)),
            IndexError,
            "index value: expected 0 to 11",
        ),
        (lambda: ops.max_pool_backward(X[:, :2, :2], I - 1, (3, 4)), IndexError, "index value"),
        (lambda: ops.max_pool_backward(X, I, (3, 4)), ValueError, "index shape"),
        (lambda: ops.max_pool_backward(X, X, (3, 4)), TypeError, "index dtype: expected int32"),
        (lambda: ops.avg_pool_backward(X, (3, 4), (2, 2)), ValueError, r"expected \(2, 1, 2\)"),
        (lambda: ops.interpolate(X, (2, 0)), ValueError, "size value"),
        (
            lambda: ops.interpolate(X, (2, 2), "nearly"),
            ValueError,
            "mode value: expected 'nearest'",
        ),
        (lambda: ops.interpolate(X, (2, 2), scale=(1.0,)), ValueError, "scale length: expected 2"),
        (lambda: ops.interpolate(X, (2, 2), scale=(1, -1)), ValueError, "scale value"),
        (
            lambda: ops.interpolate(X, (2**31 - 1, 2**31 - 1)),
            (MemoryError, OverflowError),
            "bytes|elements",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
