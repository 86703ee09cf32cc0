"""Recurrent layers over whole sequences: the ops, and nn's modules forward with backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import vectile
from harness import Case, flop, torch
from vectile import nn, ops

Array = np.ndarray
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
FORWARD = {
    "rnn": lambda x, g, *w: ops.rnn(x, None, *w)[0],
    "lstm": lambda x, g, *w: ops.lstm(x, None, None, *w)[0],
    "gru": lambda x, g, *w: ops.gru(x, None, *w)[0],
}
KEPT = {
    "rnn": lambda x, g, *w: ops.rnn(x, None, *w, return_kept=True)[-1],
    "lstm": lambda x, g, *w: ops.lstm(x, None, None, *w, return_kept=True)[-1],
    "gru": lambda x, g, *w: ops.gru(x, None, *w, return_kept=True)[-1],
}
BACKWARD = {
    "rnn": lambda g, kept, x, *w: ops.rnn_backward(g, kept, x, None, *w[:2]),
    "lstm": lambda g, kept, x, *w: ops.lstm_backward(g, kept, x, None, None, *w[:2]),
    "gru": lambda g, kept, x, *w: ops.gru_backward(g, kept, x, None, *w[:2]),
}


def module(library: Any, kind: str, x: Any, parameters: tuple[Array, ...]) -> Any:
    """A layer of `library` (nn or torch.nn) with these parameters."""
    layer = getattr(library, kind.upper())(parameters[0].shape[1], parameters[1].shape[1])
    for own, given in zip(layer.parameters(), parameters, strict=True):
        own.data = given.copy() if library is nn else torch.from_numpy(given.copy())
    return layer


def in_vectile(kind: str, x: Array, g: Array, *parameters: Array) -> tuple[Any, ...]:
    return module(nn, kind, x, parameters), vectile.tensor(x, requires_grad=True), g


def in_torch(kind: str, x: Array, g: Array, *parameters: Array) -> tuple[Any, ...]:
    layer = module(torch.nn, kind, x, parameters)
    return layer, torch.from_numpy(x.copy()).requires_grad_(), torch.from_numpy(g)


def ready(kind: str, x: Array, g: Array, *parameters: Array) -> tuple[Any, ...]:
    """Arguments of the fused backward; the final states get no gradient of their own."""
    kept = KEPT[kind](x, g, *parameters)
    zeros = np.zeros_like(g[0])
    return (g, zeros, zeros) if kind == "lstm" else (g, zeros), kept, x, *parameters


def torch_ready(kind: str, *inputs: Array) -> tuple[Any, ...]:
    """torch has no backward by itself: what autograd runs from a recorded forward."""
    layer, x, g = in_torch(kind, *inputs)
    return layer(x)[0], [x, *layer.parameters()], g


def torch_forward(layer: Any, x: Any, g: Any) -> Any:
    with torch.no_grad():
        return layer(x)[0]


def torch_backward(y: Any, leaves: Any, g: Any) -> Any:
    return torch.autograd.grad(y, leaves, g, retain_graph=True)


def of_inputs(result: Any) -> Any:
    """The gradients of x and the parameters, leaving out those of the initial states."""
    return [result[0], *result[-4:]]


def training(layer: Any, x: Any, g: Any) -> list[Any]:
    """The gradients of the input and of every parameter."""
    leaves = [x, *layer.parameters()]
    for leaf in leaves:
        leaf.grad = None
    layer(x)[0].backward(g)
    return [leaf.grad for leaf in leaves]


def plain(result: Any) -> Any:
    """Arrays of either library's gradients."""
    return [r.detach().numpy() for r in result]


def exact(kind: str, forward: bool, *inputs: Array) -> Any:
    """torch in float64; without torch, vectile in float64."""
    if torch is not None:
        arguments = in_torch(kind, *inputs)
        return torch_forward(*arguments) if forward else plain(training(*arguments))
    if forward:
        return FORWARD[kind](*inputs)
    return plain(training(*in_vectile(kind, *inputs)))


def cases(quick: bool) -> Iterator[Case]:
    sizes = [(64, 32, 256), (35, 20, 650), (128, 1, 128), (1, 32, 256), (1, 1, 256)]
    for kind, gates in GATES.items():
        for steps, batch, hidden in sizes[3:4] if quick else sizes:

            def inputs(
                rng: np.random.Generator, shape=(steps, batch, hidden), gates=gates
            ) -> tuple[Array, ...]:
                n, bound = shape[2], shape[2] ** -0.5
                sizes = (gates * n, n), (gates * n, n), (gates * n,), (gates * n,)
                parameters = (rng.uniform(-bound, bound, s).astype(np.float32) for s in sizes)
                x, g = rng.standard_normal((2, *shape), np.float32)
                return x, g, *parameters

            # The first step's state is zero: no product with it is needed.
            work = 2.0 * (2 * steps - 1) * batch * gates * hidden * hidden
            size = f"T{steps} B{batch} H{hidden}"

            def case(name, ours, theirs, forward, work, prepare, summary, kind=kind, inputs=inputs):
                return Case(
                    name,
                    inputs,
                    ours,
                    lambda *a: exact(kind, forward, *a),
                    {"torch": theirs},
                    tolerance=1e-4,
                    work=flop(work),
                    prepare={
                        side: lambda *a, make=make: make(kind, *a) for side, make in prepare.items()
                    },
                    summary=summary,
                )

            yield case(
                f"{kind} {size}",
                FORWARD[kind],
                torch_forward,
                True,
                work,
                {"torch": in_torch},
                lambda y: y,
            )
            yield case(
                f"{kind}_backward {size}",
                BACKWARD[kind],
                torch_backward,
                False,
                2 * work,
                {"vectile": ready, "torch": torch_ready},
                of_inputs,
            )
            yield case(
                f"nn.{kind.upper()} {size} forward+backward",
                training,
                training,
                False,
                3 * work,
                {"vectile": in_vectile, "torch": in_torch},
                plain,
            )
