"""One optimiser step over all parameters of a model, against torch's fused kernels."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import numpy as np

from harness import Case, byte, torch
from vectile import ops

Array = np.ndarray
Arrays = list[np.ndarray]

LR, BETA1, BETA2, EPS, DECAY, MOMENTUM, ALPHA = 1e-3, 0.9, 0.999, 1e-8, 0.01, 0.9, 0.99


def sgd(p: Arrays, g: Arrays, m: Arrays) -> Arrays:
    ops.sgd_(p, g, m, lr=LR, momentum=MOMENTUM, dampening=0.0, weight_decay=DECAY, nesterov=True)
    return p


def sgd_exact(p: Arrays, g: Arrays, m: Arrays) -> Arrays:
    result = []
    for x, d, v in zip(p, g, m, strict=True):
        d = d + DECAY * x
        result.append(x - LR * (d + MOMENTUM * (MOMENTUM * v + d)))
    return result


def sgd_torch(p, g, m):
    torch._fused_sgd_(
        p,
        g,
        m,
        lr=LR,
        momentum=MOMENTUM,
        dampening=0.0,
        weight_decay=DECAY,
        nesterov=True,
        maximize=False,
        is_first_step=False,
    )
    return p


def adam(function, p: Arrays, g: Arrays, m: Arrays, v: Arrays) -> Arrays:
    function(p, g, m, v, lr=LR, beta1=BETA1, beta2=BETA2, eps=EPS, weight_decay=DECAY, step=10)
    return p


def adam_exact(decoupled: bool, p: Arrays, g: Arrays, m: Arrays, v: Arrays) -> Arrays:
    result = []
    for x, d, a, b in zip(p, g, m, v, strict=True):
        if decoupled:
            x = x * (1 - LR * DECAY)
        else:
            d = d + DECAY * x
        a = BETA1 * a + (1 - BETA1) * d
        b = BETA2 * b + (1 - BETA2) * d * d
        denominator = np.sqrt(b / (1 - BETA2**10)) + EPS
        result.append(x - LR / (1 - BETA1**10) * a / denominator)
    return result


def adam_torch(function, p, g, m, v):
    step = [torch.tensor(10.0) for _ in p]
    function(
        p,
        g,
        m,
        v,
        [],
        step,
        lr=LR,
        beta1=BETA1,
        beta2=BETA2,
        weight_decay=DECAY,
        eps=EPS,
        amsgrad=False,
        maximize=False,
    )
    return p


def rmsprop(p: Arrays, g: Arrays, v: Arrays) -> Arrays:
    ops.rmsprop_(p, g, v, None, lr=LR, alpha=ALPHA, eps=EPS, weight_decay=DECAY, momentum=0.0)
    return p


def rmsprop_exact(p: Arrays, g: Arrays, v: Arrays) -> Arrays:
    result = []
    for x, d, s in zip(p, g, v, strict=True):
        d = d + DECAY * x
        result.append(x - LR * d / (np.sqrt(ALPHA * s + (1 - ALPHA) * d * d) + EPS))
    return result


def rmsprop_torch(p, g, v):
    importlib.import_module("torch.optim.rmsprop").rmsprop(
        p,
        g,
        v,
        [],
        [],
        [torch.tensor(1.0) for _ in p],
        foreach=True,
        lr=LR,
        alpha=ALPHA,
        eps=EPS,
        weight_decay=DECAY,
        momentum=0.0,
        centered=False,
    )
    return p


def scale(function, grads: Arrays) -> Arrays:
    function(grads, 0.5)
    return grads


MODELS = {
    "MLP": [(128, 784), (128,), (128, 128), (128,), (10, 128), (10,)],
    "GPT 0.8M": [(256, 128)]
    + 4 * [(384, 128), (384,), (128, 128), (128,), (512, 128), (512,), (128, 512), *5 * [(128,)]],
}


def cases(quick: bool) -> Iterator[Case]:
    for model, shapes in list(MODELS.items())[: 1 if quick else None]:
        elements = sum(int(np.prod(s)) for s in shapes)

        def buffers(count: int, shapes=shapes):
            def make(rng: np.random.Generator) -> tuple[Arrays, ...]:
                signed = [[rng.standard_normal(s, np.float32) for s in shapes] for _ in range(2)]
                state = [[rng.random(s, np.float32) for s in shapes] for _ in range(count)]
                return (*signed, *state)

            return make

        yield Case(
            f"sgd_ Nesterov, {model}",
            buffers(1),
            sgd,
            sgd_exact,
            {"torch": sgd_torch},
            tolerance=1e-6,
            work=byte(5 * 4 * elements),
        )
        for name in ("adam_", "adamw_"):
            yield Case(
                f"{name}, {model}",
                buffers(2),
                lambda *a, f=name: adam(getattr(ops, f), *a),
                lambda *a, d=name == "adamw_": adam_exact(d, *a),
                {"torch": lambda *a, f=f"_fused_{name}": adam_torch(getattr(torch, f), *a)},
                tolerance=1e-6,
                work=byte(7 * 4 * elements),
            )
        yield Case(
            f"rmsprop_, {model}",
            buffers(1),
            rmsprop,
            rmsprop_exact,
            {"torch": rmsprop_torch},
            tolerance=1e-6,
            work=byte(5 * 4 * elements),
        )
        yield Case(
            f"scale_, {model}",
            buffers(0),
            lambda p, g: scale(ops.scale_, g),
            lambda p, g: [x * 0.5 for x in g],
            {"torch": lambda p, g: scale(torch._foreach_mul_, g)},
            tolerance=1e-6,
            work=byte(2 * 4 * elements),
        )
