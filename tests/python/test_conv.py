"""conv family against float64 written out tap by tap, on every tier and thread count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from vectile import ops

# (x, weight, stride, padding, dilation, groups)
CASES = [
    ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0, 1, 1),
    ((2, 3, 5, 7), (4, 3, 3, 3), 1, 1, 1, 1),
    ((2, 3, 8, 8), (5, 3, 2, 3), (2, 1), (0, 2), 1, 1),
    ((1, 4, 9, 10), (6, 2, 3, 3), 2, 1, 2, 2),
    ((3, 2, 7, 6), (2, 2, 1, 1), 3, 0, 1, 1),  # stride over the kernel
    ((3, 2, 11, 12), (2, 2, 2, 2), (5, 4), 3, 1, 1),  # pixels that nothing reads
    ((2, 1, 28, 28), (33, 1, 5, 5), 1, 0, 1, 1),
    ((5, 17, 4, 4), (15, 17, 3, 3), 1, 1, 1, 1),  # strips run over images
    ((2, 5, 16, 33), (29, 5, 3, 3), 1, 1, 1, 1),
    ((1, 70, 12, 11), (3, 70, 3, 3), 1, (2, 0), 1, 1),  # several pieces of K
    ((2, 67, 10, 10), (31, 67, 1, 1), 1, 0, 1, 1),  # a plain product
    ((1, 3, 40, 41), (8, 3, 7, 7), 2, 3, 1, 1),
    ((2, 6, 9, 9), (6, 1, 3, 3), 1, 1, 1, 6),  # depthwise
    ((2, 6, 9, 17), (12, 1, 3, 3), 2, 1, 1, 6),
    ((2, 3, 20, 30), (3, 1, 3, 3), 1, 0, 1, 3),
    ((2, 20, 9, 30), (17, 20, 3, 3), 1, 1, 1, 1),  # enough channels to gather the input gradient
    ((3, 33, 5, 5), (40, 33, 3, 3), 1, (2, 0), (2, 1), 1),
    ((2, 18, 16, 32), (20, 18, 3, 2), 1, 1, 1, 1),
    ((2, 300, 6, 16), (15, 300, 3, 3), 1, 1, 1, 1),
    ((2, 20, 16, 16), (300, 20, 4, 4), 2, 1, 1, 1),
    ((70, 30, 4, 4), (9, 30, 4, 4), 1, 0, 1, 1),  # one pixel an image
    ((5, 4, 6, 5), (10, 2, 3, 2), 2, 1, 1, 2),
    ((15, 3, 7, 6), (4, 3, 4, 4), 2, 1, 1, 1),  # an image to a lane, and an empty lane
    ((32, 2, 9, 19), (3, 2, 3, 3), (2, 3), 1, (1, 2), 1),
    ((16, 4, 8, 8), (6, 2, 2, 2), 5, 0, 1, 2),  # pixels that nothing reads
    ((2, 3, 6, 47), (3, 1, 5, 3), 1, (2, 1), 1, 3),  # depthwise, several vectors to a row
    ((2, 2, 13, 33), (4, 1, 3, 5), 1, (1, 3), 1, 2),
    ((1, 2, 4, 70), (2, 1, 3, 17), 1, (1, 8), 1, 2),
    ((1, 2, 4, 120), (2, 1, 3, 40), 1, 0, 1, 2),  # more columns of taps than masks
    ((2, 3, 6, 6), (3, 1, 3, 1), (1, 2), 0, 1, 3),  # depthwise, columns that nothing reads
    ((2, 3, 7, 9), (6, 1, 1, 3), (3, 1), 1, 1, 3),  # and rows
    ((1, 2, 8, 9), (2, 1, 3, 2), (2, 4), 0, (1, 2), 2),
    ((1, 40, 5, 37), (40, 1, 5, 2), 1, 2, (1, 3), 40),
    ((1, 1, 3, 3), (2, 1, 3, 3), 1, 4, 1, 1),  # padding over the kernel
    ((1, 2, 1, 19), (2, 2, 3, 3), 1, 1, 1, 1),
    ((1, 2, 2, 2), (3, 2, 1, 1), 1, (5, 0), 1, 1),
    ((0, 3, 5, 5), (4, 3, 3, 3), 1, 0, 1, 1),
    ((2, 0, 5, 5), (4, 0, 3, 3), 1, 0, 1, 1),
    ((2, 3, 5, 5), (0, 3, 3, 3), 1, 0, 1, 1),
    ((1, 1, 20, 300), (20, 1, 18, 17), 1, 0, 1, 1),  # more taps than a piece of K
]


def pair(value):
    return (value, value) if isinstance(value, int) else value


def windows(shape, kernel, stride, padding, dilation):
    """The output's size, and for every tap its index and the slices of the padded image it reads."""
    stride, padding, dilation = pair(stride), pair(padding), pair(dilation)
    out = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(shape[2:], kernel, stride, padding, dilation, strict=True)
    )
    return out, [
        (
            tap,
            tuple(
                slice(t * d, t * d + (o - 1) * s + 1, s)
                for t, d, o, s in zip(tap, dilation, out, stride, strict=True)
            ),
        )
        for tap in np.ndindex(*kernel)
    ]


def padded(x, padding):
    p, q = pair(padding)
    return np.pad(x, ((0, 0), (0, 0), (p, p), (q, q)))


def by_group(x, groups):
    return x.reshape(x.shape[0], groups, -1, *x.shape[2:])


def conv(x, w, stride, padding, dilation, groups):
    out, taps = windows(x.shape, w.shape[2:], stride, padding, dilation)
    xs = by_group(padded(x, padding), groups)
    ws = w.reshape(groups, -1, *w.shape[1:])
    y = np.zeros((x.shape[0], groups, ws.shape[1], *out))
    for (i, j), (rows, columns) in taps:
        y += np.einsum("ngchw,gmc->ngmhw", xs[..., rows, columns], ws[..., i, j])
    return y.reshape(x.shape[0], w.shape[0], *out)


def input_grad(g, w, shape, stride, padding, dilation, groups):
    p, q = pair(padding)
    _, taps = windows(shape, w.shape[2:], stride, padding, dilation)
    dx = np.zeros((shape[0], groups, shape[1] // groups, shape[2] + 2 * p, shape[3] + 2 * q))
    ws = w.reshape(groups, -1, *w.shape[1:])
    gs = g.reshape(g.shape[0], groups, ws.shape[1], *g.shape[2:])
    for (i, j), (rows, columns) in taps:
        dx[..., rows, columns] += np.einsum("ngmhw,gmc->ngchw", gs, ws[..., i, j])
    dx = dx[..., p : p + shape[2], q : q + shape[3]]
    return dx.reshape(shape)


def weight_grad(g, x, shape, stride, padding, dilation, groups):
    _, taps = windows(x.shape, shape[2:], stride, padding, dilation)
    xs = by_group(padded(x, padding), groups) if x.size else None
    dw = np.zeros((groups, shape[0] // groups, *shape[1:]))
    if xs is None or g.size == 0:
        return dw.reshape(shape)
    gs = by_group(g, groups)
    for (i, j), (rows, columns) in taps:
        dw[..., i, j] = np.einsum("ngmhw,ngchw->gmc", gs, xs[..., rows, columns])
    return dw.reshape(shape)


def reference(f, a, b, *arguments):
    """f in float64, and the bound of an error: eps for every term of the sum of absolute values."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return f(a, b, *arguments), f(np.abs(a), np.abs(b), *arguments)


def assert_within(got, expected, magnitude, terms):
    assert got.shape == expected.shape
    bound = (terms + 2) * np.finfo(got.dtype).eps * magnitude
    assert np.all(np.abs(got - expected) <= bound)


def operands(rng, case, dtype):
    x_shape, w_shape, *arguments = case
    x, w = (rng.normal(size=s).astype(dtype) for s in (x_shape, w_shape))
    out, _ = windows(x_shape, w_shape[2:], *arguments[:3])
    g = rng.normal(size=(x_shape[0], w_shape[0], *out)).astype(dtype)
    return x, w, g, arguments


@pytest.mark.sanitize
@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_float64(isa, dtype, rng, case):
    x, w, g, arguments = operands(rng, case, dtype)
    got = ops.conv2d(x, w, None, *arguments)
    assert got.dtype == dtype and got.flags.c_contiguous
    if x.size == 0 or w.size == 0:
        assert not got.any()
        assert not ops.conv2d_input_grad(g, w, x.shape, *arguments).any()
        dw = ops.conv2d_weight_grad(g, x, w.shape, *arguments)
        assert dw.shape == w.shape and not dw.any()
        return
    expected, magnitude = reference(conv, x, w, *arguments)
    assert_within(got, expected, magnitude, w[0].size)

    got = ops.conv2d_input_grad(g, w, x.shape, *arguments)
    expected, magnitude = reference(input_grad, g, w, x.shape, *arguments)
    assert_within(got, expected, magnitude, w.size // w.shape[1])

    got = ops.conv2d_weight_grad(g, x, w.shape, *arguments)
    expected, magnitude = reference(weight_grad, g, x, w.shape, *arguments)
    assert_within(got, expected, magnitude, g.size // g.shape[1])


@pytest.mark.parametrize("width", [3, 8, 9, 17, 31, 40])
def test_depthwise_weights_meet_no_pixel_beyond_their_taps(isa, width):
    x = np.ones((1, 2, 6, width + 2), np.float32)
    x[..., -1] = x[:, :, -1] = np.inf  # what only the last column and the last row of taps read
    g = np.ones((1, 2, 4, width), np.float32)
    dw = ops.conv2d_weight_grad(g, x, (2, 1, 3, 3), groups=2)
    np.testing.assert_array_equal(dw[..., :2, :2], 4 * width)
    np.testing.assert_array_equal(dw[..., 2], np.inf)
    np.testing.assert_array_equal(dw[..., 2, :], np.inf)


ACTIVATIONS = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * special.ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * special.expit(x),
    "tanh": np.tanh,
    "sigmoid": special.expit,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("case", [CASES[2], CASES[3], CASES[7], CASES[13], CASES[19]], ids=str)
def test_bias_and_activation(isa, dtype, rng, case, name):
    x, w, _, arguments = operands(rng, case, dtype)
    bias = rng.normal(size=w.shape[0]).astype(dtype)
    got = ops.conv2d(x, w, bias, *arguments, activation=name)
    if x.size == 0:
        z = np.broadcast_to(bias[:, None, None], got.shape).astype(np.float64)
        magnitude = np.abs(z)
    else:
        z, magnitude = reference(conv, x, w, *arguments)
        z, magnitude = z + bias[:, None, None], magnitude + np.abs(bias[:, None, None])
    # every activation is 1.13-Lipschitz or better and computed to 5 eps of its argument
    eps = np.finfo(dtype).eps
    error = 1.13 * (w[0].size + 3) * eps * magnitude + 5 * eps * (np.abs(z) + 1)
    assert np.all(np.abs(got - ACTIVATIONS[name](z)) <= error)


@pytest.mark.parametrize("output_padding", [0, 1])
@pytest.mark.parametrize("case", [CASES[2], CASES[3], CASES[4], CASES[13]], ids=str)
def test_transposed_is_the_input_gradient(isa, dtype, rng, case, output_padding):
    """With a bias and an activation, and the sizes that the stride leaves open."""
    _, w, g, (stride, padding, dilation, groups) = operands(rng, case, dtype)
    bias = rng.normal(size=w.shape[1] * groups).astype(dtype)
    extra = tuple(
        min(output_padding, max(s, d) - 1)
        for s, d in zip(pair(stride), pair(dilation), strict=True)
    )
    size = [
        (n - 1) * s - 2 * p + d * (k - 1) + o + 1
        for n, k, s, p, d, o in zip(
            g.shape[2:],
            w.shape[2:],
            pair(stride),
            pair(padding),
            pair(dilation),
            extra,
            strict=True,
        )
    ]
    shape = (g.shape[0], len(bias), *size)
    arguments = stride, padding, dilation, groups
    plain = ops.conv_transpose2d(g, w, None, stride, padding, extra, groups, dilation)
    np.testing.assert_array_equal(plain, ops.conv2d_input_grad(g, w, shape, *arguments))
    got = ops.conv_transpose2d(
        g, w, bias, stride, padding, extra, groups, dilation, activation="relu"
    )
    z, magnitude = reference(input_grad, g, w, shape, *arguments)
    column = bias[:, None, None].astype(np.float64)
    terms = w.size // w.shape[1] + 2
    assert_within(got, np.maximum(z + column, 0), magnitude + np.abs(column), terms)


def test_output_padding_beyond_the_last_window(rng):
    """Output padding of a dilated kernel adds pixels that a further window could start from."""
    torch = pytest.importorskip("torch", reason="compares with torch")
    x, w = rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(3, 2, 3, 3))
    got = ops.conv_transpose2d(x, w, None, 1, 0, 2, 1, 3)
    expected = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(x), torch.from_numpy(w), None, 1, 0, 2, 1, 3
    )
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "w", "arguments"),
    [
        ((3, 4, 50), (8, 2, 5), (2, 3, 2, 2)),
        ((1, 1, 1), (1, 1, 1), (1, 0, 1, 1)),
        ((4, 50), (6, 4, 3), (1, 1, 1, 1)),  # without a batch
    ],
)
def test_one_axis_is_two_of_which_one_is_flat(isa, dtype, rng, x, w, arguments):
    x, w = (rng.normal(size=s).astype(dtype) for s in (x, w))
    bias = rng.normal(size=len(w)).astype(dtype)
    stride, padding, dilation, groups = arguments
    flat = (1, stride), (0, padding), (1, dilation), groups
    xs, ws = np.expand_dims(x, -2), np.expand_dims(w, -2)
    y = ops.conv1d(x, w, bias, *arguments)
    np.testing.assert_array_equal(y, ops.conv2d(xs, ws, bias, *flat).squeeze(-2))
    dx = ops.conv1d_input_grad(y, w, x.shape, *arguments)
    ys = np.expand_dims(y, -2)
    np.testing.assert_array_equal(dx, ops.conv2d_input_grad(ys, ws, xs.shape, *flat).squeeze(-2))
    dw = ops.conv1d_weight_grad(y, x, w.shape, *arguments)
    np.testing.assert_array_equal(dw, ops.conv2d_weight_grad(ys, xs, ws.shape, *flat).squeeze(-2))
    up = ops.conv_transpose1d(y, w, None, stride, padding, 0, groups, dilation)
    flat = (1, stride), (0, padding), 0, groups, (1, dilation)
    np.testing.assert_array_equal(up, ops.conv_transpose2d(ys, ws, None, *flat).squeeze(-2))


def test_padding_by_name(isa, dtype, rng):
    x, w = rng.normal(size=(2, 3, 9, 8)).astype(dtype), rng.normal(size=(4, 3, 4, 3)).astype(dtype)
    same = ops.conv2d(x, w, None, 1, "same", (1, 2))
    assert same.shape == (2, 4, 9, 8)
    wider = np.pad(x, ((0, 0), (0, 0), (1, 2), (2, 2)))
    np.testing.assert_array_equal(same, ops.conv2d(wider, w, None, 1, 0, (1, 2)))
    np.testing.assert_array_equal(ops.conv2d(x, w, None, 2, "valid"), ops.conv2d(x, w, None, 2, 0))


def test_any_thread_count_gives_the_same_bits(isa, rng, same_for_any_thread_count):
    for x, w, arguments in [
        ((4, 16, 20, 20), (24, 16, 3, 3), (1, 1)),
        ((2, 70, 30, 30), (50, 70, 3, 3), (2, 1)),
        ((1, 8, 90, 90), (9, 8, 5, 5), (1, 0)),
        ((16, 130, 4, 4), (40, 130, 3, 3), (1, 1)),
        ((3, 24, 30, 31), (24, 1, 3, 3), (1, 1, 1, 24)),
    ]:
        a, b = (rng.normal(size=s).astype(np.float32) for s in (x, w))
        y = same_for_any_thread_count(lambda a=a, b=b, r=arguments: ops.conv2d(a, b, None, *r))
        same_for_any_thread_count(
            lambda y=y, a=a, b=b, r=arguments: (
                ops.conv2d_input_grad(y, b, a.shape, *r),
                ops.conv2d_weight_grad(y, a, b.shape, *r),
            )
        )


STEPS = st.sampled_from([1, -1, 2, -3])


@pytest.mark.sanitize
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_strided_views(data):
    """Any layout of any operand: reversed, sliced, channels last, repeated, read-only, unaligned."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sizes = [data.draw(st.integers(1, top)) for top in (3, 4, 5, 9, 12)]
    n, c, m, h, w = sizes
    kernel = data.draw(st.integers(1, min(3, h))), data.draw(st.integers(1, min(3, w)))
    arguments = [data.draw(st.integers(1, 3)), data.draw(st.integers(0, 2)), 1, 1]
    out, _ = windows((n, c, h, w), kernel, *arguments[:3])

    def view(*shape):
        steps = [data.draw(STEPS) for _ in shape]
        order = data.draw(st.permutations(range(4)))
        large = [shape[i] * abs(steps[i]) for i in order]
        x = rng.normal(size=large).astype(np.float32).transpose(np.argsort(order))
        x = x[tuple(slice(None, None, s) for s in steps)]
        kind = data.draw(st.sampled_from(["plain", "repeated", "unaligned"]))
        if kind == "repeated":
            x = np.broadcast_to(x[:, :1], shape)
        if kind == "unaligned":
            memory = np.empty(x.size * 4 + 1, np.uint8)[1:]
            unaligned = memory.view(np.float32).reshape(x.shape)
            unaligned[...] = x
            x = unaligned
        x.flags.writeable = False
        return x

    x, weight, g = view(n, c, h, w), view(m, c, *kernel), view(n, m, *out)
    dense_x, dense_w, dense_g = (np.array(v, order="C") for v in (x, weight, g))
    np.testing.assert_array_equal(
        ops.conv2d(x, weight, None, *arguments), ops.conv2d(dense_x, dense_w, None, *arguments)
    )
    np.testing.assert_array_equal(
        ops.conv2d_input_grad(g, weight, x.shape, *arguments),
        ops.conv2d_input_grad(dense_g, dense_w, x.shape, *arguments),
    )
    np.testing.assert_array_equal(
        ops.conv2d_weight_grad(g, x, weight.shape, *arguments),
        ops.conv2d_weight_grad(dense_g, dense_x, weight.shape, *arguments),
    )


def test_nan_reaches_its_windows_only(isa, dtype, rng):
    x, w = rng.normal(size=(2, 3, 8, 9)).astype(dtype), rng.normal(size=(4, 3, 3, 3)).astype(dtype)
    x[1, 2, 4, 4] = np.nan
    y = ops.conv2d(x, w, None, 1, 1, activation="relu")
    hit = np.zeros(y.shape, bool)
    hit[1, :, 3:6, 3:6] = True
    np.testing.assert_array_equal(np.isnan(y), hit)


F32 = np.float32
X, W = np.zeros((2, 4, 5, 6), F32), np.zeros((6, 4, 3, 3), F32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.conv2d(X, np.zeros((6, 4, 7, 3), F32)),
            ValueError,
            "^conv2d: x size: expected at least 7 with padding, the extent of the kernel, got 5$",
        ),
        (
            lambda: ops.conv2d(X, W, None, 1, 0, 3),
            ValueError,
            "^conv2d: x size: expected at least 7 .* got 5$",
        ),
        (
            lambda: ops.conv2d(X, np.zeros((6, 3, 3, 3), F32)),
            ValueError,
            r"conv2d: weight shape: expected \(\*, 4, ...\) for 4 channels, got \(6, 3, 3, 3\)",
        ),
        (lambda: ops.conv2d(X, W[0]), ValueError, "conv2d: weight ndim: expected 4, got 3"),
        (lambda: ops.conv2d(X[0, 0], W), ValueError, "conv2d: x ndim: expected 4, or 3 without"),
        (
            lambda: ops.conv2d(X, W, np.zeros(4, F32)),
            ValueError,
            r"conv2d: bias shape: expected \(6,\), got \(4,\)",
        ),
        (
            lambda: ops.conv2d(X, W.astype(float)),
            TypeError,
            "conv2d: weight dtype: expected float32, got float64",
        ),
        (
            lambda: ops.conv2d(X.astype(int), W),
            TypeError,
            "x dtype: expected float16, bfloat16, float32 or float64",
        ),
        (lambda: ops.conv2d(X, W, None, 0), ValueError, "stride value: expected at least 1, got 0"),
        (lambda: ops.conv2d(X, W, None, 1, -1), ValueError, "padding value: expected at least 0"),
        (lambda: ops.conv2d(X, W, None, 1, 0, 0), ValueError, "dilation value: expected at least"),
        (lambda: ops.conv2d(X, W, groups=3), ValueError, "x channels: expected a multiple of gro"),
        (lambda: ops.conv2d(X, W, groups=0), ValueError, "groups value: expected at least 1"),
        (
            lambda: ops.conv2d(X, W[:5, :2], groups=2),
            ValueError,
            "weight shape: expected a multiple of groups = 2",
        ),
        (
            lambda: ops.conv2d(X, W, None, (1, 1, 1)),
            ValueError,
            "stride length: expected 1 or 2, got 3",
        ),
        (lambda: ops.conv2d(X, W, None, 1.5), TypeError, "stride type: expected int or 2 of them"),
        (lambda: ops.conv2d(X, W, None, 2, "same"), ValueError, "stride value: expected 1 with"),
        (
            lambda: ops.conv2d(X, W, None, 1, "full"),
            ValueError,
            "padding value: expected int, 2 of",
        ),
        (lambda: ops.conv2d(X, W, None, 2**70), (TypeError, OverflowError), None),
        (lambda: ops.conv2d(X, W, activation="swish"), ValueError, "conv2d: activation value"),
        (
            lambda: ops.conv2d(X, np.zeros((6, 4, 0, 3), F32)),
            ValueError,
            "weight shape: expected a kernel of at least 1",
        ),
        (
            lambda: ops.conv2d_input_grad(X, W, (2, 4, 5, 6)),
            ValueError,
            r"^conv2d_input_grad: grad shape: expected \(2, 6, 3, 4\), got \(2, 4, 5, 6\)$",
        ),
        (
            lambda: ops.conv2d_input_grad(X, W, (2, 4, -5, 6)),
            ValueError,
            "input_shape size: expected at least 0, got -5",
        ),
        (
            lambda: ops.conv2d_weight_grad(X, X, (6, 4, 3, 3)),
            ValueError,
            r"^conv2d_weight_grad: grad shape: expected \(2, 6, 3, 4\)",
        ),
        (
            lambda: ops.conv_transpose2d(X, W),
            ValueError,
            "conv_transpose2d: x channels: expected 6, got 4",
        ),
        (
            lambda: ops.conv_transpose2d(X, W[:4], None, 2, 0, 2),
            ValueError,
            "output_padding value: expected at least 0 and less than stride or dilation, got 2",
        ),
        (
            lambda: ops.conv_transpose2d(X, W[:4], None, 1, 4),
            ValueError,
            "conv_transpose2d: result size: expected at least 1, got -1",
        ),
        (lambda: ops.conv1d(X, W), ValueError, "conv1d: x ndim: expected 3, or 2 without a batch"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_result_too_large_is_refused():
    x = np.broadcast_to(F32(0), (1, 1, 2**30, 2**30))
    with pytest.raises((MemoryError, OverflowError, ValueError)):
        ops.conv2d(x, np.zeros((1, 1, 1, 1), F32), None, 1, 2**36)
