"""Row by row work in a cache and beyond all of them, both sides writing into memory they have.

torch is called in every form that it has, and the fastest counts; bandwidth is that of copying.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench_elementwise import phi, sigmoid
from bench_loss import gradient
from bench_norm import channel_norm, layer_norm, rms_norm
from bench_optimizer import adam, adam_exact, adam_torch
from bench_softmax import exact as softmax
from harness import Case, copied, torch
from vectile import ops

Array = np.ndarray

ROWS = 32  # a float64 check of that many rows of the result
PLANES = {
    128: (4, 64, 8, 8),
    1024: (16, 64, 32, 32),
    4096: (32, 128, 64, 64),
    8192: (64, 128, 64, 64),
}


def first_rows(f: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, *rest: f(x[:ROWS], *(r[:ROWS] if r.shape == x.shape else r for r in rest))


def aten(name: str) -> Any:
    return getattr(torch.ops.aten, name).out


def calls(*forms: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """torch's calls for one work; the first by its name, the others numbered."""
    return {"torch" if i == 0 else f"torch {i + 1}": f for i, f in enumerate(forms)}


def log_softmax(x: Array) -> Array:
    return np.log(softmax(x))


# name: (ours, float64, torch's calls), each from (x, y) with y the place for the result
UNARY: dict[str, tuple[Any, Any, Any]] = {
    "softmax": (
        lambda x, y: ops.softmax(x, out=y),
        softmax,
        (lambda x, y: torch.softmax(x, -1), lambda x, y: torch.softmax(x, -1, out=y)),
    ),
    "log_softmax": (
        lambda x, y: ops.log_softmax(x, out=y),
        log_softmax,
        (
            lambda x, y: torch.log_softmax(x, -1),
            lambda x, y: torch.log_softmax(x, -1, out=y),
        ),
    ),
    "exp": (
        lambda x, y: ops.exp(x, out=y),
        np.exp,
        (lambda x, y: torch.exp(x), lambda x, y: torch.exp(x, out=y)),
    ),
    "tanh": (
        lambda x, y: ops.tanh(x, out=y),
        np.tanh,
        (lambda x, y: torch.tanh(x), lambda x, y: torch.tanh(x, out=y)),
    ),
    "relu": (
        lambda x, y: ops.relu(x, out=y),
        lambda x: np.maximum(x, 0),
        (
            lambda x, y: torch.relu(x),
            lambda x, y: aten("relu")(x, out=y),
            lambda x, y: torch.clamp_min(x, 0, out=y),
        ),
    ),
    "gelu": (
        lambda x, y: ops.gelu(x, out=y),
        lambda x: x * phi(x),
        (lambda x, y: torch.nn.functional.gelu(x), lambda x, y: torch._C._nn.gelu(x, out=y)),
    ),
    "silu": (
        lambda x, y: ops.silu(x, out=y),
        lambda x: x * sigmoid(x),
        (lambda x, y: torch.nn.functional.silu(x), lambda x, y: torch._C._nn.silu(x, out=y)),
    ),
}


def unary_cases(rows: int, n: int) -> Iterator[Case]:
    def make(rng: np.random.Generator) -> tuple[Array, ...]:
        return (rng.standard_normal((rows, n), np.float32),)

    def with_place(x: Array) -> tuple[Array, Array]:
        return x, np.ones_like(x)

    for name, (ours, exact, forms) in UNARY.items():
        yield Case(
            f"{name} {rows}x{n}",
            make,
            ours,
            first_rows(exact),
            calls(*forms),
            tolerance=1e-5,
            work=copied(2 * 4 * rows * n),
            prepare={"vectile": with_place}
            | dict.fromkeys(calls(*forms), lambda x: tuple(map(torch.from_numpy, with_place(x)))),
            summary=lambda y: y[:ROWS],
        )


def binary_cases(rows: int, n: int) -> Iterator[Case]:
    def make(rng: np.random.Generator) -> tuple[Array, ...]:
        return tuple(rng.standard_normal((2, rows, n), np.float32))

    def with_place(a: Array, b: Array) -> tuple[Array, ...]:
        return a, b, np.ones_like(a)

    in_torch = calls(
        lambda a, b, y: torch.add(a, b),
        lambda a, b, y: torch.add(a, b, out=y),
    )
    yield Case(
        f"add {rows}x{n}",
        make,
        lambda a, b, y: ops.add(a, b, out=y),
        first_rows(np.add),
        in_torch,
        tolerance=1e-6,
        work=copied(3 * 4 * rows * n),
        prepare={"vectile": with_place}
        | dict.fromkeys(in_torch, lambda a, b: tuple(map(torch.from_numpy, with_place(a, b)))),
        summary=lambda y: y[:ROWS],
    )


def norm_cases(rows: int, n: int) -> Iterator[Case]:
    def make(rng: np.random.Generator) -> tuple[Array, ...]:
        x = rng.standard_normal((rows, n), np.float32) + np.float32(0.5)
        return x, rng.random(n, np.float32), rng.random(n, np.float32)

    def prepared(x: Array, *parameters: Array) -> tuple[Any, ...]:
        place, mean, rstd = np.ones_like(x), np.ones((rows, 1)), np.ones((rows, 1))
        stats = (mean.astype(np.float32), rstd.astype(np.float32))
        return tuple(map(torch.from_numpy, (x, *parameters, place, *stats)))

    in_torch = calls(
        lambda x, w, b, *out: torch.nn.functional.layer_norm(x, w.shape, w, b),
        lambda x, w, b, y, m, r: aten("native_layer_norm")(
            x, w.shape, w, b, 1e-5, out0=y, out1=m, out2=r
        ),
    )
    yield Case(
        f"layer_norm {rows}x{n}",
        make,
        ops.layer_norm,
        first_rows(layer_norm),
        in_torch,
        tolerance=1e-5,
        work=copied(2 * 4 * rows * n),
        prepare=dict.fromkeys(in_torch, prepared),
        summary=lambda y: (y[0] if isinstance(y, tuple) else y)[:ROWS],
    )
    yield Case(
        f"rms_norm {rows}x{n}",
        lambda rng: make(rng)[:2],
        ops.rms_norm,
        first_rows(rms_norm),
        {"torch": lambda x, w: torch.nn.functional.rms_norm(x, w.shape, w, 1e-6)},
        tolerance=1e-5,
        work=copied(2 * 4 * rows * n),
        summary=lambda y: y[:ROWS],
    )


def channel_cases(rows: int) -> Iterator[Case]:
    shape = PLANES[rows]
    size = "x".join(map(str, shape))

    def make(rng: np.random.Generator) -> tuple[Array, ...]:
        x = rng.standard_normal(shape, np.float32) + np.float32(0.5)
        return x, rng.random(shape[1], np.float32), rng.random(shape[1], np.float32)

    yield Case(
        f"batch_norm {size}",
        make,
        lambda x, w, b: ops.batch_norm(x, None, None, w, b, training=True),
        channel_norm,
        {"torch": lambda x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, True)},
        tolerance=1e-5,
        work=copied(2 * 4 * math.prod(shape)),
    )
    yield Case(
        f"group_norm {size}",
        make,
        lambda x, w, b: ops.group_norm(x, 8, w, b),
        lambda x, w, b: channel_norm(x, w, b, 8),
        {"torch": lambda x, w, b: torch.nn.functional.group_norm(x, 8, w, b)},
        tolerance=1e-5,
        work=copied(2 * 4 * math.prod(shape)),
    )


def loss_cases(rows: int, n: int) -> Iterator[Case]:
    def make(rng: np.random.Generator) -> tuple[Array, Array]:
        return rng.standard_normal((rows, n), np.float32), rng.integers(0, n, rows)

    def train(x: Array, targets: Array) -> Array:
        _, lse = ops.cross_entropy(x, targets, return_lse=True)
        return ops.cross_entropy_backward(np.float32(1), x, targets, lse, -100, 0.0, "mean")

    yield Case(
        f"cross_entropy with backward {rows}x{n}",
        make,
        train,
        gradient,
        {
            "torch": lambda x, t: torch.autograd.grad(torch.nn.functional.cross_entropy(x, t), x)[
                0
            ],
        },
        tolerance=1e-5,
        work=copied(3 * 4 * rows * n),
        prepare={"torch": lambda x, t: (torch.from_numpy(x).requires_grad_(), torch.from_numpy(t))},
    )


def reduce_cases(rows: int, n: int) -> Iterator[Case]:
    def make(rng: np.random.Generator) -> tuple[Array, ...]:
        return (rng.random((rows, n), np.float32) + np.float32(0.5),)

    for name, in_torch in (("sum", "sum"), ("max", "amax")):
        yield Case(
            f"{name} {rows}x{n}",
            make,
            lambda x, name=name: getattr(ops, name)(x, -1),
            lambda x, name=name: getattr(np, name)(x, -1),
            {"torch": lambda x, f=in_torch: getattr(torch, f)(x, -1)},
            tolerance=1e-5,
            work=copied(4 * rows * n),
        )


def optimizer_cases(elements: int) -> Iterator[Case]:
    def make(rng: np.random.Generator) -> tuple[list[Array], ...]:
        signed = [[rng.standard_normal(elements, np.float32)] for _ in range(2)]
        return (*signed, *([rng.random(elements, np.float32)] for _ in range(2)))

    yield Case(
        f"adamw_ {elements}",
        make,
        lambda *a: adam(ops.adamw_, *a),
        lambda *a: adam_exact(True, *a),
        {"torch": lambda *a: adam_torch(torch._fused_adamw_, *a)},
        tolerance=1e-6,
        work=copied(7 * 4 * elements),
    )


def cases(quick: bool) -> Iterator[Case]:
    for rows, n in (
        [(128, 128)] if quick else [(128, 128), (1024, 1024), (4096, 4096), (8192, 4096)]
    ):
        yield from unary_cases(rows, n)
        yield from binary_cases(rows, n)
        yield from norm_cases(rows, n)
        yield from channel_cases(rows)
        yield from loss_cases(rows, n)
        yield from reduce_cases(rows, n)
    yield from optimizer_cases(10_000 if quick else 10_000_000)
