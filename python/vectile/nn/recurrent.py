"""RNN, LSTM and GRU over whole sequences, and the cells that take one step."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from vectile.autograd import Tensor, as_tensor, concatenate, stack, where
from vectile.nn import functional as F
from vectile.nn import init
from vectile.nn.module import Module
from vectile.nn.parameter import Parameter


def _positive(owner: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if size <= 0:
            raise ValueError(f"{owner}: {name}: expected at least 1, got {size}")


class _Weights(Module):
    """The parameters of `gates` blocks of `hidden_size` rows, and their initialisation."""

    gates = 1
    states = 1  # h, or h and c
    proj_size = 0  # of h, where that is a projection

    def __init__(self, input_size: int, hidden_size: int, bias: bool) -> None:
        super().__init__()
        _positive(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias

    @property
    def _width(self) -> int:
        """The length of h."""
        return self.proj_size or self.hidden_size

    def _add(self, suffix: str, input_size: int, dtype: DTypeLike | None) -> None:
        rows = self.gates * self.hidden_size
        shapes = {
            "weight_ih": (rows, input_size),
            "weight_hh": (rows, self._width),
            "bias_ih": (rows,) if self.bias else None,
            "bias_hh": (rows,) if self.bias else None,
        }
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        for name, shape in shapes.items():
            array = None if shape is None else Parameter(init.empty(*shape, dtype=dtype))
            self.register_parameter(name + suffix, array)

    def _weights(self, suffix: str) -> list[Any]:
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
        if self.proj_size:
            names.append("weight_hr")
        return [getattr(self, name + suffix) for name in names]

    def reset_parameters(self) -> None:
        """Everything ~ U(-b, b), b = 1 / sqrt(hidden_size), as PyTorch."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _run(self, x: Any, states: Any, weights: list[Any], **options: Any) -> tuple[Tensor, ...]:
        """y and the final states of one layer in one direction."""
        raise TypeError(f"{type(self).__name__}: _run: expected a definition in the subclass")

    def _states(self, hx: Any, lead: tuple[int, ...], kind: str) -> list[Any]:
        """The given initial states, checked: (*lead, length) each; Nones where there are none."""
        if hx is None:
            return [None] * self.states
        given = [hx] if self.states == 1 else list(hx)
        owner = type(self).__name__
        if len(given) != self.states:
            raise ValueError(f"{owner}: hx length: expected {self.states}, got {len(given)}")
        tensors = [as_tensor(s) for s in given]
        lengths = {"h": self._width, "c": self.hidden_size}
        for (name, length), state in zip(lengths.items(), tensors, strict=False):
            shape = (*lead, length)
            if state.shape != shape:
                raise ValueError(
                    f"{owner}: {name}{kind} shape: expected {shape}, got {state.shape}"
                )
        return tensors

    def _checked(self, x: Any, ranks: tuple[int, ...]) -> Tensor:
        t = as_tensor(x)
        owner = type(self).__name__
        if t.ndim not in ranks:
            raise ValueError(
                f"{owner}: input rank: expected {' or '.join(map(str, ranks))}, got {t.ndim}"
            )
        if t.shape[-1] != self.input_size:
            raise ValueError(
                f"{owner}: input features: expected {self.input_size}, got {t.shape[-1]}"
            )
        return t


class _Plain(_Weights):
    """h' = f(W_ih x + b_ih + W_hh h + b_hh), f = tanh or relu."""

    nonlinearity: Literal["tanh", "relu"]

    def _set_nonlinearity(self, nonlinearity: str) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"{type(self).__name__}: nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}"
            )
        self.nonlinearity = nonlinearity  # type: ignore[assignment]

    def _run(self, x: Any, states: Any, weights: list[Any], **options: Any) -> tuple[Tensor, ...]:
        return F.rnn(x, *states, *weights, nonlinearity=self.nonlinearity, **options)


class _LongShortTerm(_Weights):
    gates, states = 4, 2

    def _run(self, x: Any, states: Any, weights: list[Any], **options: Any) -> tuple[Tensor, ...]:
        run = _projected_lstm if self.proj_size else F.lstm
        return run(x, *states, *weights, **options)


def _projected_lstm(
    x: Tensor,
    h: Any,
    c: Any,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Any,
    b_hh: Any,
    w_hr: Tensor,
    *,
    reverse: bool = False,
    lengths: ArrayLike | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`functional.lstm` with h_t = w_hr (o tanh(c_t)) (Sak et al., arXiv 1402.1128).

    It takes the steps one by one, each as a sequence of one that starts without h: that comes beside x.
    """
    steps, batch = x.shape[:2]
    width, hidden = w_hr.shape
    h = as_tensor(np.zeros((batch, width), x.dtype)) if h is None else h
    c = as_tensor(np.zeros((batch, hidden), x.dtype)) if c is None else c
    weight, no_weight = concatenate([w_ih, w_hh], 1), np.zeros((4 * hidden, hidden), x.dtype)
    runs = None if lengths is None else _running(lengths, steps, batch)
    ys: list[Any] = [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        inputs = concatenate([x[t], h], 1).expand_dims(0)
        length = None if runs is None else runs[t].astype(np.int64)
        y, _, c = F.lstm(inputs, None, c, weight, no_weight, b_ih, b_hh, lengths=length)
        ys[t] = F.linear(y[0], w_hr)
        h = ys[t] if runs is None else where(runs[t][:, None], ys[t], h)
    return stack(ys) if ys else as_tensor(np.zeros((0, batch, width), x.dtype)), h, c


def _running(lengths: ArrayLike, steps: int, batch: int) -> NDArray[np.bool_]:
    """(steps, batch): whether each sequence has that step."""
    counts = np.asarray(lengths)
    if counts.dtype.kind not in "iu":
        raise TypeError(f"lstm: lengths dtype: expected integers, got {counts.dtype}")
    if counts.shape != (batch,):
        raise ValueError(f"lstm: lengths shape: expected {(batch,)}, got {counts.shape}")
    wrong = counts[(counts < 0) | (counts > steps)]
    if wrong.size:
        raise ValueError(f"lstm: lengths value: expected 0 to {steps}, got {wrong[0]}")
    return np.arange(steps)[:, None] < counts


class _Gated(_Weights):
    gates = 3

    def _run(self, x: Any, states: Any, weights: list[Any], **options: Any) -> tuple[Tensor, ...]:
        return F.gru(x, *states, *weights, **options)


class _Layers(_Weights):
    """Layers of one or two directions; layer k reads what layer k - 1 put out, after dropout."""

    def _build(
        self,
        num_layers: int,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        dtype: DTypeLike | None,
    ) -> None:
        owner = type(self).__name__
        _positive(owner, num_layers=num_layers)
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"{owner}: dropout: expected a probability in [0, 1], got {dropout}")
        self.num_layers, self.batch_first, self.dropout = num_layers, batch_first, dropout
        self.bidirectional = bidirectional
        self._directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            width = self._width * len(self._directions) if layer else self.input_size
            for direction in self._directions:
                self._add(f"_l{layer}{direction}", width, dtype)
        self.reset_parameters()

    def forward(
        self, input: Any, hx: Any = None, *, lengths: ArrayLike | None = None
    ) -> tuple[Tensor, Any]:
        """(output, h_n), or (output, (h_n, c_n)) for LSTM, as in PyTorch.

        Args:
            input: (T, B, input_size), or (B, T, input_size) with `batch_first`, or (T, input_size).
            hx: the initial states h_0 (and c_0), (num_layers * directions, B, hidden_size) each, without B
                for an input without a batch; h_0 has `proj_size` in place of hidden_size if that is given.
                Zeros by default.
            lengths: integers (B,) in [0, T]: sequence b has lengths[b] steps. Its outputs after them are
                zeros, the final states are those at its own end, and the reverse direction starts there.

        output: (T, B, directions * length of h), laid out as input; h_n like h_0. ValueError for shapes that
        do not fit.
        """
        x = self._checked(input, (2, 3))
        batched = x.ndim == 3
        if not batched:
            x = x.expand_dims(1)
        elif self.batch_first:
            x = x.swapaxes(0, 1)
        count = self.num_layers * len(self._directions)
        given = self._states(hx, (count, x.shape[1]) if batched else (count,), "_0")
        if not batched:
            given = [None if s is None else s.expand_dims(1) for s in given]

        finals: list[Any] = []  # of every layer and direction
        for layer in range(self.num_layers):
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for direction in self._directions:
                initial = [None if s is None else s[len(finals)] for s in given]
                weights = self._weights(f"_l{layer}{direction}")
                y, *final = self._run(x, initial, weights, reverse=bool(direction), lengths=lengths)
                outputs.append(y)
                finals.append(final)
            x = outputs[0] if len(outputs) == 1 else concatenate(outputs, -1)

        if not batched:
            x = x[:, 0]
        elif self.batch_first:
            x = x.swapaxes(0, 1)
        joined = [
            s[0].expand_dims(0) if count == 1 else stack(s) for s in zip(*finals, strict=True)
        ]
        if not batched:
            joined = [s[:, 0] for s in joined]
        return x, joined[0] if self.states == 1 else tuple(joined)

    def extra_repr(self) -> str:
        options = {
            "proj_size": (self.proj_size, 0),
            "num_layers": (self.num_layers, 1),
            "bias": (self.bias, True),
            "batch_first": (self.batch_first, False),
            "dropout": (self.dropout, 0.0),
            "bidirectional": (self.bidirectional, False),
        }
        shown = [f"{name}={value}" for name, (value, usual) in options.items() if value != usual]
        return ", ".join([f"{self.input_size}", f"{self.hidden_size}", *shown])


class RNN(_Layers, _Plain):
    """Elman network: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), f = tanh or relu (Elman 1990).

    `dropout` applies between layers, in training. Parameters weight_ih_l0, weight_hh_l0, bias_ih_l0,
    bias_hh_l0, then with the suffix _reverse for the other direction, then those of the next layer.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self._set_nonlinearity(nonlinearity)
        self._build(num_layers, batch_first, dropout, bidirectional, dtype)


class LSTM(_Layers, _LongShortTerm):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    Gates in the order i, f, g, o; parameters and options as `RNN`. With `proj_size` h_t is
    weight_hr_l0 (proj_size, hidden_size) times what it would be, and c_t stays as long as it is.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"LSTM: proj_size: expected in [0, {hidden_size}), got {proj_size}")
        self.proj_size = proj_size
        self._build(num_layers, batch_first, dropout, bidirectional, dtype)


class GRU(_Layers, _Gated):
    """Gated recurrent units (Cho et al., arXiv 1406.1078), the reset gate after the product with h.

    Gates in the order r, z, n; parameters and options as `RNN`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self._build(num_layers, batch_first, dropout, bidirectional, dtype)


class _Cell(_Weights):
    """One step; parameters weight_ih, weight_hh, bias_ih, bias_hh."""

    def _build(self, dtype: DTypeLike | None) -> None:
        self._add("", self.input_size, dtype)
        self.reset_parameters()

    def forward(self, input: Any, hx: Any = None) -> Any:
        """The state after one step: h', or (h', c') for LSTMCell.

        input: (B, input_size) or (input_size,); hx: the state before, (B, hidden_size) or (hidden_size,)
        each, zeros by default. ValueError for shapes that do not fit.
        """
        x = self._checked(input, (1, 2))
        given = self._states(hx, x.shape[:-1], "")
        batched = x.ndim == 2
        if not batched:
            x = x.expand_dims(0)
            given = [None if s is None else s.expand_dims(0) for s in given]
        _, *after = self._run(x.expand_dims(0), given, self._weights(""))
        if not batched:
            after = [s[0] for s in after]
        return after[0] if self.states == 1 else tuple(after)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell, _Plain):
    """One step of `RNN`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self._set_nonlinearity(nonlinearity)
        self._build(dtype)


class LSTMCell(_Cell, _LongShortTerm):
    """One step of `LSTM`."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self._build(dtype)


class GRUCell(_Cell, _Gated):
    """One step of `GRU`."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self._build(dtype)
