"""Losses of values and probabilities, and lengths of vectors, against PyTorch and differences."""

from __future__ import annotations

import numpy as np
import pytest
from differences import check_gradient, gradient_of

import vectile as vt
from vectile import nn

torch = pytest.importorskip("torch", reason="PyTorch is the reference")
F = nn.functional
# A few roundings; in float32 also those of two logarithms.
TOLERANCE = {np.float64: 1e-12, np.float32: 3e-6}
WEIGHT = np.array([[0.5], [2.0], [0.0], [2.5]])

# name: (function, options, whether it takes probabilities)
LOSSES = {
    "bce": ("binary_cross_entropy", {}, True),
    "bce_weight": ("binary_cross_entropy", {"weight": WEIGHT}, True),
    "smooth_l1": ("smooth_l1_loss", {}, False),
    "smooth_l1_beta": ("smooth_l1_loss", {"beta": 0.3}, False),
    "smooth_l1_sharp": ("smooth_l1_loss", {"beta": 0.0}, False),
    "huber": ("huber_loss", {}, False),
    "huber_delta": ("huber_loss", {"delta": 0.4}, False),
    "huber_weight": ("huber_loss", {"weight": np.repeat(WEIGHT, 3, 1)}, False),
    "l1_weight": ("l1_loss", {"weight": np.repeat(WEIGHT, 3, 1)}, False),
    "mse_weight": ("mse_loss", {"weight": np.repeat(WEIGHT, 3, 1)}, False),
}
VECTORS = {
    "normalize": (F.normalize, "normalize", {}),
    "normalize_last": (F.normalize, "normalize", {"p": 1, "dim": -1}),
    "normalize_first": (F.normalize, "normalize", {"p": 3.0, "dim": 0, "eps": 0.5}),
    "normalize_largest": (F.normalize, "normalize", {"p": float("inf")}),
    "cosine": (F.cosine_similarity, "cosine_similarity", {}),
    "cosine_eps": (F.cosine_similarity, "cosine_similarity", {"dim": -1, "eps": 1e-3}),
}


def close(actual, expected, dtype, scale=1.0):
    a, e = actual.numpy(), expected.detach().numpy()
    assert a.dtype == dtype and a.shape == e.shape
    tolerance = TOLERANCE[dtype] * scale
    np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance, equal_nan=True)


def compare(ours, theirs, values, dtype):
    """Results, first derivatives and those of their squares."""
    mine = [vt.tensor(v.astype(dtype), requires_grad=True) for v in values]
    yours = [torch.tensor(v.astype(dtype), requires_grad=True) for v in values]
    y, z = ours(*mine), theirs(*yours)
    close(y, z, dtype)
    g = np.random.default_rng(1).normal(size=y.shape).astype(dtype)
    first = vt.grad(y, mine, g, create_graph=True)
    reference = torch.autograd.grad(z, yours, torch.tensor(g), create_graph=True)
    for p, q in zip(first, reference, strict=True):
        close(p, q, dtype, 10)
    total, torch_total = (first[0] * first[0]).sum(), (reference[0] ** 2).sum()
    if total.requires_grad and torch_total.requires_grad:
        second = vt.grad(total, mine, allow_unused=True)
        reference = torch.autograd.grad(torch_total, yours, allow_unused=True)
        for p, q in zip(second, reference, strict=True):
            if p is not None and q is not None:
                assert np.isfinite(p.numpy()).all()
                undefined = np.isnan(q.numpy())  # PyTorch's, of vectors of length 0
                close(
                    p, torch.where(torch.tensor(undefined), torch.tensor(p.numpy()), q), dtype, 30
                )


def pair(rng, shape, probabilities):
    if probabilities:
        return [rng.uniform(0.05, 0.95, shape), rng.uniform(0.05, 0.95, shape)]
    return [rng.normal(size=shape), rng.normal(size=shape)]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_equals_torch(rng, dtype, name, reduction):
    function, options, probabilities = LOSSES[name]
    tensors = {
        k: torch.tensor(v.astype(dtype)) if isinstance(v, np.ndarray) else v
        for k, v in options.items()
    }
    for shape in [(4, 3), (), (0, 3)]:
        if "weight" in options and shape != (4, 3):
            continue
        compare(
            lambda x, t: getattr(F, function)(x, t, reduction=reduction, **options),
            lambda x, t: getattr(torch.nn.functional, function)(
                x, t, reduction=reduction, **tensors
            ),
            pair(rng, shape, probabilities),
            dtype,
        )


@pytest.mark.parametrize("name", LOSSES)
def test_loss_differences(rng, name):
    function, options, probabilities = LOSSES[name]

    def f(x, t):
        return getattr(F, function)(x, t, reduction="none", **options)

    values = pair(rng, (4, 3), probabilities)
    check_gradient(f, values, 1)
    check_gradient(gradient_of(f, 2), [*values, rng.normal(size=(4, 3))], 2)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("BCELoss", {}),
        ("BCELoss", {"weight": WEIGHT}),
        ("SmoothL1Loss", {"beta": 0.5}),
        ("HuberLoss", {"delta": 0.5}),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_modules_equal_torch(rng, name, arguments, reduction):
    ours = getattr(nn, name)(**arguments, reduction=reduction)
    tensors = {k: torch.tensor(v) if k == "weight" else v for k, v in arguments.items()}
    theirs = getattr(torch.nn, name)(**tensors, reduction=reduction)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    compare(ours, theirs, pair(rng, (4, 3), name == "BCELoss"), np.float64)


def test_probabilities_at_their_ends(dtype):
    x = np.array([0.0, 1.0, 0.0, 1.0, 1e-30, 1e-10, 1 - 2.0**-20], dtype)
    t = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0], dtype)
    a, b = vt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = F.binary_cross_entropy(a, t, reduction="none")
    z = torch.nn.functional.binary_cross_entropy(b, torch.tensor(t), reduction="none")
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=TOLERANCE[dtype])
    y.sum().backward()
    z.sum().backward()
    # PyTorch's bound of the slope, 1e-12, is a float32.
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=max(TOLERANCE[dtype], 1e-8))


def test_kinks_and_infinities():
    x = np.array([0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e30])
    for ours, theirs in [
        (F.huber_loss, torch.nn.functional.huber_loss),
        (F.smooth_l1_loss, torch.nn.functional.smooth_l1_loss),
    ]:
        a, b = vt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = (
            ours(a, np.zeros(7), reduction="none"),
            theirs(b, torch.zeros(7).double(), reduction="none"),
        )
        np.testing.assert_array_equal(y.numpy(), z.detach().numpy())
        y.sum().backward()
        z.sum().backward()
        np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_equal_torch(rng, dtype, name):
    ours, theirs, options = VECTORS[name]
    count = 2 if "cosine" in name else 1
    for shape in [(4, 5), (2, 3, 4), (0, 3)]:
        if 0 in shape and options.get("dim") == 0:
            continue
        values = [rng.normal(size=shape) for _ in range(count)]
        for value in values:
            value[1:2] = 0  # a vector without direction
        compare(
            lambda *v: ours(*v, **options),
            lambda *v: getattr(torch.nn.functional, theirs)(*v, **options),
            values,
            dtype,
        )


@pytest.mark.parametrize("name", VECTORS)
def test_vector_differences(rng, name):
    f, _, options = VECTORS[name]
    values = [rng.normal(size=(3, 4)) for _ in range(2 if "cosine" in name else 1)]

    def g(*v):
        return f(*v, **options)

    check_gradient(g, values, 1)
    size = g(*map(vt.tensor, values)).shape
    check_gradient(gradient_of(g, len(values)), [*values, rng.normal(size=size)], 2)


def test_cosine_similarity_broadcasts(rng):
    values = [rng.normal(size=(4, 1, 5)), rng.normal(size=(3, 5))]
    compare(
        lambda a, b: F.cosine_similarity(a, b, -1),
        lambda a, b: torch.nn.functional.cosine_similarity(a, b, -1),
        values,
        np.float64,
    )


@pytest.mark.parametrize("classes", [-1, 4])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_one_hot_equals_torch(rng, shape, classes):
    for dtype in (np.int64, np.uint8):
        ids = rng.integers(0, 4, size=shape)
        y = F.one_hot(ids.astype(dtype), classes)
        z = torch.nn.functional.one_hot(torch.tensor(ids), classes)
        np.testing.assert_array_equal(y.numpy(), z.numpy(), strict=True)
    assert F.one_hot(np.zeros((0, 2), int), 3).shape == (0, 2, 3)


X = np.full((2, 3), 0.5, np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.smooth_l1_loss(X, X, beta=-1.0),
            ValueError,
            "smooth_l1_loss: beta: expected at",
        ),
        (
            lambda: F.huber_loss(X, X, delta=0.0),
            ValueError,
            "huber_loss: delta: expected more than",
        ),
        (
            lambda: F.huber_loss(X, X[:1]),
            ValueError,
            r"huber_loss: target shape: expected \(2, 3\)",
        ),
        (lambda: F.huber_loss(X, X, weight=X[0]), ValueError, "huber_loss: weight shape: expected"),
        (lambda: F.huber_loss(X, X, "all"), ValueError, "huber_loss: reduction: expected one of"),
        (lambda: nn.HuberLoss("all"), ValueError, "HuberLoss: reduction: expected one of"),
        (
            lambda: F.binary_cross_entropy(X * 3, X),
            ValueError,
            r"binary_cross_entropy: x value: expected in \[0, 1\], got 1.5",
        ),
        (
            lambda: F.binary_cross_entropy(X, X * np.float32("nan")),
            ValueError,
            "binary_cross_entropy: target value: expected .* got nan",
        ),
        (lambda: F.binary_cross_entropy(X, X[0]), ValueError, "target shape: expected"),
        (lambda: F.normalize(X, 0.0), ValueError, "normalize: p: expected more than 0, got 0.0"),
        (
            lambda: F.normalize(X, dim=2),
            IndexError,
            r"normalize: dim: expected in \[-2, 2\), got 2",
        ),
        (lambda: F.cosine_similarity(X, X, 2), IndexError, "cosine_similarity: dim: expected in"),
        (lambda: F.one_hot(X), TypeError, "one_hot: tensor dtype: expected integers, got float32"),
        (lambda: F.one_hot([0, 3], 3), IndexError, r"one_hot: tensor value: .*\[0, 3\), got 3"),
        (lambda: F.one_hot([0, -1]), IndexError, "one_hot: tensor value: .* got -1"),
        (
            lambda: F.one_hot(np.zeros(0, int)),
            ValueError,
            "one_hot: num_classes: expected a number",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
