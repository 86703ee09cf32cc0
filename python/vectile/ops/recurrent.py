"""Recurrent layers over whole sequences: rnn, lstm and gru, one layer and one direction a call.

Weights and gate order are PyTorch's: with G gates (rnn 1; lstm 4: input, forget, cell, output; gru 3:
reset, update, new) w_ih is (G H, I), w_hh (G H, H) and each bias (G H,).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import _core

__all__ = [
    "gru",
    "gru_backward",
    "lstm",
    "lstm_backward",
    "rnn",
    "rnn_backward",
]

Cell = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]
Kept = tuple[NDArray[Any], Any, Any]
Gradients = tuple[NDArray[Any], ...]


def rnn(
    x: ArrayLike,
    h0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
    reverse: bool = False,
    lengths: ArrayLike | None = None,
    return_kept: bool = False,
) -> Any:
    """``h_t = f(w_ih x_t + b_ih + w_hh h_{t-1} + b_hh)``, f = tanh or relu (Elman 1990).

    Args:
        x: (T, B, I), floating-point, any strides: a batch-first array is a transposed view.
        h0: (B, H), the state before the first step; None means zeros.
        w_ih, w_hh: (H, I) and (H, H). b_ih, b_hh: (H,), or None.
        nonlinearity: "tanh" or "relu".
        reverse: run from the last step to the first.
        lengths: integers (B,) in [0, T]: sequence b has lengths[b] steps. Its outputs after them are
            zeros, its final state is that at its own end (with `reverse`, it starts there), and what
            x holds after them is never read.
        return_kept: also return what the backward needs.

    Returns:
        y (T, B, H) and h_n (B, H); with `return_kept` a third item, for :func:`rnn_backward`.

    Raises:
        TypeError: x is not a floating-point array, the dtypes differ, or lengths are not integers.
        ValueError: shapes do not fit together, a length is outside [0, T], or the nonlinearity is
            unknown.
    """
    arguments = _rnn_cell(nonlinearity), x, h0, None, w_ih, w_hh, b_ih, b_hh, reverse, lengths
    return _split(_core.recurrent(*arguments, return_kept), 1, return_kept)


def lstm(
    x: ArrayLike,
    h0: ArrayLike | None,
    c0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
    return_kept: bool = False,
) -> Any:
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    With i, f, o the sigmoids and g the tanh of the four blocks of ``w_ih x + b_ih + w_hh h + b_hh``:
    ``c_t = f c_{t-1} + i g`` and ``h_t = o tanh(c_t)``. Arguments and errors as :func:`rnn`, with a cell
    state c0 (B, H).

    Returns:
        y (T, B, H), h_n (B, H), c_n (B, H)[, kept].
    """
    arguments = "lstm", x, h0, c0, w_ih, w_hh, b_ih, b_hh, reverse, lengths
    return _split(_core.recurrent(*arguments, return_kept), 2, return_kept)


def gru(
    x: ArrayLike,
    h0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
    return_kept: bool = False,
) -> Any:
    """Gated recurrent unit (Cho et al., arXiv 1406.1078), the reset gate after the product.

    ``h_t = (1 - z) n + z h_{t-1}`` with r, z sigmoids and
    ``n = tanh(w_in x + b_in + r (w_hn h_{t-1} + b_hn))``. Arguments, results and errors as :func:`rnn`.
    """
    arguments = "gru", x, h0, None, w_ih, w_hh, b_ih, b_hh, reverse, lengths
    return _split(_core.recurrent(*arguments, return_kept), 1, return_kept)


def rnn_backward(
    grads: tuple[ArrayLike, ArrayLike],
    kept: Kept,
    x: ArrayLike,
    h0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    *,
    nonlinearity: str = "tanh",
    reverse: bool = False,
    lengths: ArrayLike | None = None,
) -> Gradients:
    """Return (dx, dh0, dw_ih, dw_hh, db_ih, db_hh) of :func:`rnn`.

    `grads` are the gradients of its results (y, h_n); `kept` is what it returned with `return_kept`.
    """
    operands = x, h0, None, w_ih, w_hh
    cell = _rnn_cell(nonlinearity)
    dx, dh0, _, *rest = _backward(cell, grads, kept, operands, reverse, lengths)
    return dx, dh0, *rest


def lstm_backward(
    grads: tuple[ArrayLike, ArrayLike, ArrayLike],
    kept: Kept,
    x: ArrayLike,
    h0: ArrayLike | None,
    c0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    *,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
) -> Gradients:
    """Return (dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh) of :func:`lstm`; `grads` of (y, h_n, c_n)."""
    return _backward("lstm", grads, kept, (x, h0, c0, w_ih, w_hh), reverse, lengths)


def gru_backward(
    grads: tuple[ArrayLike, ArrayLike],
    kept: Kept,
    x: ArrayLike,
    h0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    *,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
) -> Gradients:
    """Return (dx, dh0, dw_ih, dw_hh, db_ih, db_hh) of :func:`gru`; arguments as :func:`rnn_backward`."""
    operands = x, h0, None, w_ih, w_hh
    dx, dh0, _, *rest = _backward("gru", grads, kept, operands, reverse, lengths)
    return dx, dh0, *rest


def recurrent(
    cell: Cell,
    x: ArrayLike,
    h0: ArrayLike | None,
    c0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
    return_kept: bool = False,
) -> Any:
    """:func:`rnn`, :func:`lstm` or :func:`gru`, named by `cell`, with its results stacked in one array.

    Returns:
        states (T + 1, B, H): y, then h_n; for "lstm" (T + 2, B, H), c_n last. With `return_kept`
        (states, gates, c), the latter two as :func:`recurrent_backward` wants them.
    """
    return _core.recurrent(cell, x, h0, c0, w_ih, w_hh, b_ih, b_hh, reverse, lengths, return_kept)


def recurrent_backward(
    cell: Cell,
    grad: ArrayLike,
    states: ArrayLike,
    gates: ArrayLike | None,
    c: ArrayLike | None,
    x: ArrayLike,
    h0: ArrayLike | None,
    c0: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
    want_x: bool = True,
    want_parameters: bool = True,
) -> tuple[Any, ...]:
    """Return (dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh) of :func:`recurrent`.

    `grad` is the gradient of `states`; states, gates and c are the forward's. dc0 is None but for
    "lstm"; dx, and the parameters' gradients, are None where they are not wanted.
    """
    return _core.recurrent_backward(
        cell,
        grad,
        states,
        gates,
        c,
        x,
        h0,
        c0,
        w_ih,
        w_hh,
        reverse,
        lengths,
        want_x,
        want_parameters,
    )


def _rnn_cell(nonlinearity: str) -> Cell:
    if nonlinearity == "tanh":
        return "rnn_tanh"
    if nonlinearity == "relu":
        return "rnn_relu"
    raise ValueError(f"rnn: nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")


def _split(result: Any, finals: int, kept: bool) -> Any:
    """y and the `finals` final states out of the stacked states, as views; what was `kept` behind them."""
    states = result[0] if kept else result
    steps = len(states) - finals
    results = states[:steps], *(states[steps + i] for i in range(finals))
    return (*results, result) if kept else results


def _backward(
    cell: Cell,
    grads: tuple[ArrayLike, ...],
    kept: Kept,
    operands: tuple[Any, ...],
    reverse: bool,
    lengths: ArrayLike | None,
) -> Gradients:
    y, *finals = [np.asarray(g) for g in grads]
    if y.ndim != 3 or len({g.dtype for g in (y, *finals)}) > 1:
        raise ValueError(
            f"{cell}_backward: grads: expected arrays of one dtype, the first of 3 dimensions, got "
            f"{', '.join(f'{g.dtype} {g.shape}' for g in (y, *finals))}"
        )
    grad = np.concatenate([y, *(np.broadcast_to(g, (1, *y.shape[1:])) for g in finals)])
    arguments = cell, grad, *kept, *operands, reverse, lengths, True, True
    return _core.recurrent_backward(*arguments)
