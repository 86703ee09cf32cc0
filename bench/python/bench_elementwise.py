"""Activations, arithmetic with broadcasting, their derivatives, dropout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, byte, torch
from vectile import ops

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def erf(x: Array) -> Array:
    return np.vectorize(math.erf)(x)


def phi(x: Array) -> Array:
    """Distribution function of the normal distribution."""
    return (1 + erf(x / math.sqrt(2))) / 2


def density(x: Array) -> Array:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu_tanh(x: Array) -> Array:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def functional(name: str) -> Any:
    return lambda x: getattr(torch.nn.functional, name)(x)


# name: (float64 reference, torch, NumPy where it has one call)
UNARY: dict[str, tuple[Any, Any, Any]] = {
    "exp": (np.exp, lambda x: torch.exp(x), np.exp),
    "expm1": (np.expm1, lambda x: torch.expm1(x), np.expm1),
    "log": (lambda x: np.log(np.abs(x)), None, None),
    "log1p": (lambda x: np.log1p(np.abs(x)), None, None),
    "tanh": (np.tanh, lambda x: torch.tanh(x), np.tanh),
    "sigmoid": (sigmoid, lambda x: torch.sigmoid(x), sigmoid),
    "erf": (erf, lambda x: torch.erf(x), None),
    "relu": (lambda x: np.maximum(x, 0), functional("relu"), lambda x: np.maximum(x, 0)),
    "leaky_relu": (
        lambda x: np.where(x > 0, x, 0.01 * x),
        functional("leaky_relu"),
        lambda x: np.where(x > 0, x, x * np.float32(0.01)),
    ),
    "gelu": (lambda x: x * phi(x), functional("gelu"), None),
    "silu": (lambda x: x * sigmoid(x), functional("silu"), lambda x: x * sigmoid(x)),
    "softplus": (
        lambda x: np.logaddexp(0, x),
        functional("softplus"),
        lambda x: np.logaddexp(0, x),
    ),
    "sqrt": (lambda x: np.sqrt(np.abs(x)), None, None),
    "absolute": (np.absolute, lambda x: torch.absolute(x), np.absolute),
    "negative": (np.negative, lambda x: torch.negative(x), np.negative),
}
POSITIVE = {"log": np.log, "log1p": np.log1p, "sqrt": np.sqrt}

# name: (float64 reference from (grad, y or x), torch)
BACKWARD: dict[str, tuple[Any, Any]] = {
    "tanh_backward": (
        lambda g, y: g * (1 - y * y),
        lambda g, y: torch.ops.aten.tanh_backward(g, y),
    ),
    "sigmoid_backward": (
        lambda g, y: g * y * (1 - y),
        lambda g, y: torch.ops.aten.sigmoid_backward(g, y),
    ),
    "relu_backward": (
        lambda g, y: g * (y > 0),
        lambda g, y: torch.ops.aten.threshold_backward(g, y, 0),
    ),
    "leaky_relu_backward": (
        lambda g, x: g * np.where(x > 0, 1, 0.01),
        lambda g, x: torch.ops.aten.leaky_relu_backward(g, x, 0.01, False),
    ),
    "gelu_backward": (
        lambda g, x: g * (phi(x) + x * density(x)),
        lambda g, x: torch.ops.aten.gelu_backward(g, x),
    ),
    "silu_backward": (
        lambda g, x: g * sigmoid(x) * (1 + x * (1 - sigmoid(x))),
        lambda g, x: torch.ops.aten.silu_backward(g, x),
    ),
    "softplus_backward": (
        lambda g, x: g * sigmoid(x),
        lambda g, x: torch.ops.aten.softplus_backward(g, x, 1, 20),
    ),
    "erf_backward": (lambda g, x: g * 2 / math.sqrt(math.pi) * np.exp(-x * x), None),
}

BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")


def arrays(*shapes: tuple[int, ...]) -> Any:
    return lambda rng: tuple(rng.standard_normal(s, np.float32) for s in shapes)


def positive(shape: tuple[int, ...]) -> Any:
    return lambda rng: (rng.random(shape, np.float32) + np.float32(0.1),)


def kept(y: Any) -> tuple[float, float]:
    """The share of elements that dropout keeps, and the mean, which it preserves."""
    y = np.asarray(y)
    return float((y != 0).mean()), float(y.mean())


def unary_cases(shape: tuple[int, int], names: list[str]) -> Iterator[Case]:
    n_bytes = 4 * shape[0] * shape[1]
    for name in names:
        exact, in_torch, in_numpy = UNARY[name]
        make = arrays(shape)
        if name in POSITIVE:
            exact = in_numpy = POSITIVE[name]
            make = positive(shape)
            in_torch = lambda x, name=name: getattr(torch, name)(x)  # noqa: E731
        peers = {"torch": in_torch} | ({"numpy": in_numpy} if in_numpy else {})
        yield Case(
            f"{name} {shape[0]}x{shape[1]}",
            make,
            getattr(ops, name),
            exact,
            peers,
            tolerance=1e-6,
            work=byte(2 * n_bytes),
        )
    yield Case(
        f"gelu tanh {shape[0]}x{shape[1]}",
        arrays(shape),
        lambda x: ops.gelu(x, "tanh"),
        gelu_tanh,
        {
            "torch": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
            "numpy": gelu_tanh,
        },
        tolerance=1e-6,
        work=byte(2 * n_bytes),
    )


def prelu_cases(shape: tuple[int, int, int]) -> Iterator[Case]:
    """One slope for each channel of (batch, channels, length)."""
    size = "x".join(map(str, shape))
    n_bytes = 4 * math.prod(shape)
    yield Case(
        f"prelu {size}",
        arrays(shape, shape[1:2]),
        ops.prelu,
        lambda x, w: np.where(x > 0, x, w[:, None] * x),
        {
            "torch": lambda x, w: torch.prelu(x, w),
            "numpy": lambda x, w: np.where(x > 0, x, w[:, None] * x),
        },
        tolerance=1e-6,
        work=byte(2 * n_bytes),
    )
    yield Case(
        f"prelu_backward {size}",
        arrays(shape, shape, shape[1:2]),
        ops.prelu_backward,
        lambda g, x, w: (
            np.where(x > 0, g, w[:, None] * g),
            np.where(x > 0, 0, g * x).sum((0, 2)),
        ),
        {"torch": _torch_prelu_backward},
        tolerance=1e-5,
        work=byte(3 * n_bytes),
    )


def _torch_prelu_backward(g: Any, x: Any, w: Any) -> Any:
    dx, dw = torch.ops.aten._prelu_kernel_backward(g, x, w[:, None])
    return dx, dw.sum((0, 2))


def fused_cases(shape: tuple[int, int]) -> Iterator[Case]:
    """gelu of a sum with a bias, then dropout: the mask of this generator, random on the other side."""
    size, n_bytes = f"{shape[0]}x{shape[1]}", 4 * math.prod(shape)

    def in_torch(x: Any, b: Any) -> Any:
        return torch.nn.functional.dropout(torch.nn.functional.gelu(x + b), 0.1)

    def graph(g: Array, x: Array, b: Array) -> tuple[Any, ...]:
        t, u = (torch.from_numpy(v).requires_grad_() for v in (x, b))
        return in_torch(t, u), t, u, torch.from_numpy(g)

    yield Case(
        f"bias_activation_dropout gelu {size}",
        lambda rng: (np.full(shape, 2, np.float32), rng.random(shape[1:], np.float32)),
        lambda x, b: ops.bias_activation_dropout(x, b, "gelu", 0.1, 7),
        lambda x, b: (0.9, float(((x + b) * phi(x + b)).mean())),
        {"torch": in_torch},
        tolerance=0.03,
        work=byte(2 * n_bytes),
        summary=kept,
    )
    yield Case(
        f"bias_activation_dropout_backward gelu {size}",
        lambda rng: (
            np.ones(shape, np.float32),
            np.full(shape, 2, np.float32),
            rng.random(shape[1:], np.float32),
        ),
        lambda g, x, b: ops.bias_activation_dropout_backward(g, x, b, "gelu", 0.1, 7),
        lambda g, x, b: (0.9, float((phi(x + b) + (x + b) * density(x + b)).mean())),
        {"torch": lambda y, x, b, g: torch.autograd.grad(y, (x, b), g, retain_graph=True)},
        tolerance=0.03,
        work=byte(3 * n_bytes),
        prepare={"torch": graph},
        summary=lambda r: kept(r[0]),
    )


def cases(quick: bool) -> Iterator[Case]:
    yield from unary_cases((128, 128), list(UNARY))
    if not quick:
        yield from unary_cases((1024, 1024), list(UNARY))
        yield from unary_cases((4096, 4096), ["gelu"])
    shape = (128, 128) if quick else (1024, 1024)
    size = f"{shape[0]}x{shape[1]}"
    n_bytes = 4 * shape[0] * shape[1]
    for name, (exact, in_torch) in BACKWARD.items():
        yield Case(
            f"{name} {size}",
            arrays(shape, shape),
            getattr(ops, name),
            exact,
            {"torch": in_torch} if in_torch else {},
            tolerance=1e-6,
            work=byte(3 * n_bytes),
        )
    for name in BINARY:
        make = arrays(shape, shape)
        if name == "divide":
            make = lambda rng: (*arrays(shape)(rng), *positive(shape)(rng))  # noqa: E731
        yield Case(
            f"{name} {size}",
            make,
            getattr(ops, name),
            getattr(np, name),
            {
                "torch": lambda a, b, name=name: getattr(torch, name)(a, b),
                "numpy": getattr(np, name),
            },
            tolerance=1e-6,
            work=byte(3 * n_bytes),
        )
    for label, other in (("row", shape[1:]), ("column", (shape[0], 1))):
        yield Case(
            f"add a {label} to {size}",
            arrays(shape, other),
            ops.add,
            np.add,
            {"torch": lambda a, b: torch.add(a, b), "numpy": np.add},
            tolerance=1e-6,
            work=byte(2 * n_bytes),
        )
    yield from prelu_cases((64, 64, 4) if quick else (16, 64, 1024))
    yield from fused_cases(shape)
    yield Case(
        f"dropout {size}",
        lambda rng: (np.ones(shape, np.float32),),
        lambda x: ops.dropout(x, 0.1, 7),
        lambda x: (0.9, 1.0),
        {"torch": lambda x: torch.nn.functional.dropout(x, 0.1)},
        tolerance=0.03,
        work=byte(2 * n_bytes),
        summary=kept,
    )
