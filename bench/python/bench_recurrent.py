"""Recurrent layers over whole sequences: nn modules, forward alone and forward with backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import vectile
from harness import Case, flop, torch
from vectile import nn

Array = np.ndarray
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def module(library: Any, kind: str, x: Any, parameters: tuple[Array, ...]) -> Any:
    """A layer of `library` (nn or torch.nn) with these parameters."""
    layer = getattr(library, kind)(parameters[0].shape[1], parameters[1].shape[1])
    if library is not nn:
        layer = layer.to(torch.from_numpy(x).dtype)
    elif x.dtype == np.float64:
        layer = layer.double()
    for own, given in zip(layer.parameters(), parameters, strict=True):
        own.data = given.copy() if library is nn else torch.from_numpy(given.copy())
    return layer


def in_vectile(kind: str, x: Array, g: Array, *parameters: Array) -> tuple[Any, ...]:
    return module(nn, kind, x, parameters), vectile.tensor(x, requires_grad=True), g


def in_torch(kind: str, x: Array, g: Array, *parameters: Array) -> tuple[Any, ...]:
    layer = module(torch.nn, kind, x, parameters)
    return layer, torch.from_numpy(x.copy()).requires_grad_(), torch.from_numpy(g)


def forward(library: Any) -> Any:
    def run(layer: Any, x: Any, g: Any) -> Any:
        with library.no_grad():
            return layer(x)[0]

    return run


def training(layer: Any, x: Any, g: Any) -> list[Any]:
    """Output and the gradients of the input and of every parameter."""
    leaves = [x, *layer.parameters()]
    for leaf in leaves:
        leaf.grad = None
    y = layer(x)[0]
    y.backward(g)
    return [y, *(leaf.grad for leaf in leaves)]


def plain(result: Any) -> Any:
    """Arrays of either library's results."""
    results = result if isinstance(result, list) else [result]
    return [r.detach().numpy() for r in results]


def exact(kind: str, both: bool, *inputs: Array) -> Any:
    """torch in float64; without torch, vectile in float64."""
    library = vectile if torch is None else torch
    arguments = (in_vectile if torch is None else in_torch)(kind, *inputs)
    return plain((training if both else forward(library))(*arguments))


def cases(quick: bool) -> Iterator[Case]:
    sizes = [(64, 32, 256), (35, 20, 650), (128, 1, 128), (1, 32, 256), (1, 1, 256)]
    for kind, gates in GATES.items():
        for steps, batch, hidden in sizes[:1] if quick else sizes[: 5 if kind != "RNN" else 3]:

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
            for both in (False, True):
                yield Case(
                    f"{kind} T{steps} B{batch} H{hidden} {'forward+backward' if both else 'forward'}",
                    inputs,
                    training if both else forward(vectile),
                    lambda *a, kind=kind, both=both: exact(kind, both, *a),
                    {"torch": training if both else forward(torch)},
                    tolerance=1e-4,
                    work=flop(work * (3 if both else 1)),
                    prepare={
                        "vectile": lambda *a, kind=kind: in_vectile(kind, *a),
                        "torch": lambda *a, kind=kind: in_torch(kind, *a),
                    },
                    summary=plain,
                )
