"""Activations against PyTorch: values, slopes and their slopes, kinks and special values, options."""

from __future__ import annotations

import numpy as np
import pytest
from differences import check_gradient, gradient_of

import vectile as vt
from vectile import nn

torch = pytest.importorskip("torch", reason="PyTorch is the reference")
F = nn.functional

# name of the module, its arguments
ACTIVATIONS = [
    ("ReLU6", ()),
    ("ELU", ()),
    ("ELU", (0.3,)),
    ("SELU", ()),
    ("CELU", ()),
    ("CELU", (0.5,)),
    ("Hardtanh", ()),
    ("Hardtanh", (-0.5, 2.0)),
    ("Hardsigmoid", ()),
    ("Hardswish", ()),
    ("Mish", ()),
    ("Softsign", ()),
    ("LogSigmoid", ()),
    ("Tanhshrink", ()),
    ("Softshrink", ()),
    ("Softshrink", (0.0,)),
    ("Hardshrink", ()),
    ("Hardshrink", (1.0,)),
    ("Threshold", (0.25, -3.0)),
    ("GLU", ()),
    ("GLU", (1,)),
    ("Softmin", (1,)),
    ("Softmax2d", ()),
    ("PReLU", ()),
    ("PReLU", (6,)),
]
IDS = [f"{name}{arguments}" for name, arguments in ACTIVATIONS]
EVERYWHERE = [(name, a) for name, a in ACTIVATIONS if name not in ("GLU", "Softmin", "Softmax2d")]
SHAPES = [(2, 6, 4, 2), (6, 6, 2), (0, 6, 2), (2, 6, 0, 4)]
# float64: a handful of roundings; float32: the same, and exp of its own 2 ulp
TOLERANCE = {np.float64: 1e-13, np.float32: 4e-6}


def both(name, arguments, dtype=np.float64):
    ours, theirs = getattr(nn, name)(*arguments), getattr(torch.nn, name)(*arguments)
    return ours.to(dtype), theirs.to(torch.from_numpy(np.empty(0, dtype)).dtype)


def close(actual, expected, dtype, tolerance=0.0):
    a, e = actual.numpy(), expected.detach().numpy()
    assert a.dtype == dtype
    tolerance = max(tolerance, TOLERANCE[dtype])
    np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "arguments"), ACTIVATIONS, ids=IDS)
def test_equals_torch(rng, dtype, name, arguments):
    for shape in SHAPES:
        ours, theirs = both(name, arguments, dtype)
        x = (3 * rng.normal(size=shape)).astype(dtype)
        a, b = vt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        close(y, z, dtype)
        g = rng.normal(size=y.shape).astype(dtype)
        mine, yours = [a, *ours.parameters()], [b, *theirs.parameters()]
        first = vt.grad(y, mine, g, create_graph=True)
        reference = torch.autograd.grad(z, yours, torch.tensor(g), create_graph=True)
        for p, q in zip(first, reference, strict=True):
            # PyTorch's slope of hardsigmoid is 1 / 6 in float32.
            close(p, q, dtype, 5e-8 if name == "Hardsigmoid" else 0.0)
        if not first[0].requires_grad:  # constant slopes
            continue
        second = vt.grad((first[0] * first[0]).sum(), mine, allow_unused=True)
        reference = torch.autograd.grad((reference[0] ** 2).sum(), yours, allow_unused=True)
        for p, q, leaf in zip(second, reference, yours, strict=True):
            zero = torch.zeros_like(leaf)
            close(vt.tensor(zero.numpy()) if p is None else p, zero if q is None else q, dtype)


@pytest.mark.parametrize(("name", "arguments"), EVERYWHERE)
def test_special_values_and_kinks(dtype, name, arguments):
    points = [
        np.nan,
        np.inf,
        -np.inf,
        0.0,
        -0.0,
        1e-30,
        -1e-30,
        1e30,
        -1e30,
        1e-4,
        -1e-4,
        200,
        -200,
    ]
    x = np.array([*points, *np.arange(-7, 7.25, 0.25)], dtype).reshape(1, 1, -1).repeat(6, 1)
    ours, theirs = both(name, arguments, dtype)
    a, b = vt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * np.finfo(dtype).tiny}
    if name == "Tanhshrink":  # x - tanh x cancels
        tolerance["atol"] = np.finfo(dtype).eps
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), **tolerance)
    y.sum().backward()
    z.sum().backward()
    got, expected = a.grad.numpy(), b.grad.numpy()
    finite = np.isfinite(x)  # elsewhere slopes are inf * 0, which each side rounds as it comes
    np.testing.assert_allclose(got[finite], expected[finite], rtol=1e-5, atol=2e-7)
    assert np.isfinite(got[finite]).all()


@pytest.mark.parametrize(("name", "arguments"), ACTIVATIONS, ids=IDS)
def test_differences(rng, name, arguments):
    ours = getattr(nn, name)(*arguments).double()
    x = rng.permutation(np.linspace(-3.3, 3.4, 24)).reshape(1, 6, 2, 2)
    check_gradient(ours, [x], 1)
    check_gradient(gradient_of(ours, 1), [x, rng.normal(size=ours(x).shape)], 2)


@pytest.mark.parametrize(
    ("x", "weight"), [((), 1), ((5,), 1), ((3, 4), 4), ((3, 4), 1), ((0, 4), 4)]
)
def test_prelu_of_few_axes(rng, x, weight):
    x, w = rng.normal(size=x), rng.normal(size=weight)
    a, u = vt.tensor(x, requires_grad=True), vt.tensor(w, requires_grad=True)
    b, v = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    y, z = F.prelu(a, u), torch.nn.functional.prelu(b, v)
    close(y, z, np.float64)
    y.sum().backward()
    z.sum().backward()
    close(a.grad, b.grad, np.float64)
    close(u.grad, v.grad, np.float64)


def test_prelu_is_a_layer():
    ours, theirs = nn.PReLU(3, 0.1), torch.nn.PReLU(3, 0.1)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
    np.testing.assert_array_equal(ours.weight.numpy(), theirs.weight.detach().numpy())
    assert repr(ours) == repr(theirs)
    x = np.full((2, 3), -1.0, np.float32)
    ours.requires_grad_(False)
    leaf = vt.tensor(x, requires_grad=True)
    ours(leaf).sum().backward()
    assert ours.weight.grad is None and leaf.grad is not None
    with vt.no_grad():
        assert not ours(leaf).requires_grad


def test_repr_names_the_arguments():
    for name, arguments in [("Hardtanh", (-0.5, 2.0)), ("ELU", (0.3,)), ("GELU", ()), ("GLU", ())]:
        ours, theirs = both(name, arguments)
        assert repr(ours) == repr(theirs)


X = np.zeros((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.celu(X, 0.0), ValueError, "celu: alpha: expected another value than 0"),
        (lambda: F.softshrink(X, -1.0), ValueError, "softshrink: lambd: expected at least 0"),
        (lambda: F.hardtanh(X, 1.0, 0.0), ValueError, "hardtanh: max_val: expected at least"),
        (lambda: nn.Hardtanh(1.0, 1.0), ValueError, "Hardtanh: max_val: expected more than 1.0"),
        (lambda: F.glu(X, 1), ValueError, "glu: x length on axis 1: expected an even one, got 3"),
        (lambda: F.glu(X, 3), IndexError, r"glu: dim: expected in \[-3, 3\), got 3"),
        (lambda: nn.Softmax2d()(X[0]), ValueError, "Softmax2d: x rank: expected 3 or 4, got 2"),
        (lambda: nn.PReLU(0), ValueError, "PReLU: num_parameters: expected at least 1, got 0"),
        (
            lambda: nn.Sequential(nn.PReLU(4))(X),
            ValueError,
            r"prelu: weight length: expected 1 or x's channels, 3, got 4 \(in 0\)",
        ),
        (lambda: nn.GELU("fast"), ValueError, "GELU: approximate: expected"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
