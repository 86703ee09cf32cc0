"""Recurrent layers as functions of Tensors: one layer and one direction over whole sequences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from vectile.autograd import rules
from vectile.autograd.arithmetic import relu, sigmoid, tanh, where
from vectile.autograd.networks import linear
from vectile.autograd.shaping import split, stack
from vectile.autograd.tape import mode
from vectile.autograd.tensor import Tensor, TensorLike, as_tensor, edge, track, wrap
from vectile.ops.recurrent import recurrent

__all__ = ["gru", "lstm", "rnn"]


def rnn(
    x: TensorLike,
    h0: TensorLike | None,
    w_ih: TensorLike,
    w_hh: TensorLike,
    b_ih: TensorLike | None = None,
    b_hh: TensorLike | None = None,
    *,
    nonlinearity: Literal["tanh", "relu"] = "tanh",
    reverse: bool = False,
    lengths: ArrayLike | None = None,
) -> tuple[Tensor, Tensor]:
    """(y, h_n) with ``h_t = f(w_ih x_t + b_ih + w_hh h_{t-1} + b_hh)``: x (T, B, I), y (T, B, H), h_n (B, H).

    h0 (B, H) is zeros if None. `lengths` (B,): sequence b ends after lengths[b] steps, with zeros in y and
    its state there in h_n; `reverse` runs from each sequence's last step to its first.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"rnn: nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
    states = _run(f"rnn_{nonlinearity}", x, h0, None, w_ih, w_hh, b_ih, b_hh, reverse, lengths)
    return states[:-1], states[-1]


def lstm(
    x: TensorLike,
    h0: TensorLike | None,
    c0: TensorLike | None,
    w_ih: TensorLike,
    w_hh: TensorLike,
    b_ih: TensorLike | None = None,
    b_hh: TensorLike | None = None,
    *,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, h_n, c_n) of long short-term memory; arguments as `rnn`, gates in PyTorch's order i, f, g, o."""
    states = _run("lstm", x, h0, c0, w_ih, w_hh, b_ih, b_hh, reverse, lengths)
    return states[:-2], states[-2], states[-1]


def gru(
    x: TensorLike,
    h0: TensorLike | None,
    w_ih: TensorLike,
    w_hh: TensorLike,
    b_ih: TensorLike | None = None,
    b_hh: TensorLike | None = None,
    *,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
) -> tuple[Tensor, Tensor]:
    """(y, h_n) of gated recurrent units; arguments as `rnn`, gates in PyTorch's order r, z, n."""
    states = _run("gru", x, h0, None, w_ih, w_hh, b_ih, b_hh, reverse, lengths)
    return states[:-1], states[-1]


def _run(cell: Any, *arguments: Any) -> Tensor:
    """`ops.recurrent.recurrent`: every step's h, then the final h, then lstm's final c, in one Tensor."""
    *operands, reverse, lengths = arguments
    tensors = [None if t is None else as_tensor(t) for t in operands]
    edges = tuple([None if t is None else edge(t) for t in tensors])
    arrays = [None if t is None else t._data for t in tensors]
    run: Any = functools.partial(recurrent, reverse=reverse, lengths=lengths)
    if not mode.enabled or not any(e is not None for e in edges):
        return wrap(run(cell, *arrays))
    states, *kept = run(cell, *arrays, return_kept=True)
    params = cell, reverse, lengths, *kept
    return track(states, rules.recurrent, edges, tuple(tensors), params, states)


# ---- the definition, step by step ----------------------------------------------------------------------


def _rnn_step(activate: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def step(from_x: Tensor, from_h: Tensor, h: Any, c: Any) -> Any:
        return activate(from_x + from_h), c

    return step


def _lstm_step(from_x: Tensor, from_h: Tensor, h: Any, c: Any) -> Any:
    i, f, g, o = split(from_x + from_h, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def _gru_step(from_x: Tensor, from_h: Tensor, h: Any, c: Any) -> Any:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = split(from_x, 3, -1), split(from_h, 3, -1)
    z, n = sigmoid(x_z + h_z), tanh(x_n + sigmoid(x_r + h_r) * h_n)
    return (1.0 - z) * n + z * h, c


_STEPS = {
    "rnn_tanh": _rnn_step(tanh),
    "rnn_relu": _rnn_step(relu),
    "lstm": _lstm_step,
    "gru": _gru_step,
}


def recurrent_by_steps(cell: str, operands: tuple[Any, ...], reverse: bool, lengths: Any) -> Tensor:
    """What `_run` computes, in differentiable steps."""
    x, h0, c0, w_ih, w_hh, b_ih, b_hh = operands
    steps, batch = x.shape[:2]
    zeros = np.zeros((batch, w_hh.shape[-1]), x.dtype)
    h, c = (wrap(zeros) if t is None else t for t in (h0, c0))
    runs = None
    if lengths is not None:
        runs = (np.arange(steps)[:, None] < np.asarray(lengths))[..., None]
        x = where(runs, x, 0.0)
    from_x = linear(x, w_ih, b_ih)
    ys: list[Any] = [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        new_h, new_c = _STEPS[cell](from_x[t], linear(h, w_hh, b_hh), h, c)
        if runs is None:
            ys[t], h, c = new_h, new_h, new_c
        else:
            ys[t] = where(runs[t], new_h, 0.0)
            h, c = where(runs[t], new_h, h), where(runs[t], new_c, c)
    return stack([*ys, h, c] if cell == "lstm" else [*ys, h])
