"""Quantised weights on a GPU, for :func:`vectile.ops.linear`: plain arrays, as the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vectile import device

__all__ = ["DeviceMatrix"]


@dataclass(frozen=True, eq=False)
class DeviceMatrix:
    """A weight (out, in) as integers, ``w ~ scales * (values - zero_points)``; from `quantize_weight`.

    With 8 bits ``values`` are int8 (out, in), and there is a scale for each row or for all. With 4 bits two
    of them lie in a byte, uint8 (out, ceil(in / 2)), the first in its lower half, and `group_size` neighbours
    along ``in`` share a scale; without ``zero_points`` every zero is 8. NaN or infinity in what shares a
    scale makes it NaN.
    """

    values: Any
    scales: Any
    zero_points: Any | None
    shape: tuple[int, int]
    group_size: int | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the scales."""
        dtype: np.dtype[Any] = np.dtype(self.scales.dtype)
        return dtype

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        zeros = 0 if self.zero_points is None else self.zero_points.nbytes
        return int(self.values.nbytes + self.scales.nbytes + zeros)

    def linear(
        self,
        op: str,
        x: Any,
        bias: Any,
        activation: Any = None,
        residual: Any = None,
        **ranges: Any,
    ) -> Any:
        """`ops.linear` or `ops.quantized_linear` with this weight.

        With 8 bits x is quantised as on the CPU, where `ranges` may say how; with 4 bits it is not.
        """
        arrays = self.values, self.scales, self.zero_points, bias
        if self.group_size is None:
            y = device.call("quantized_linear", x, *arrays, activation=activation, **ranges)
        elif op == "quantized_linear":
            raise TypeError("quantized_linear: weight bits: expected 8, got 4")
        else:
            options = {"group_size": self.group_size, "activation": activation}
            y = device.call("linear_4bit", x, *arrays, **options)
        return y if residual is None else device.call("add", y, residual, None)


def quantize(
    weight: Any, symmetric: bool, per_channel: bool = True, group: int | None = None
) -> DeviceMatrix:
    """A weight (out, in) on a GPU in 8 bits, or in 4 with a `group` of neighbours to a scale."""
    if group is not None:
        found = device.call("quantize_weight_4bit", weight, group, symmetric)
    else:
        found = device.call("quantize_weight", weight, symmetric=symmetric, per_channel=per_channel)
    values, scales, zero_points = found
    rows, columns = weight.shape
    return DeviceMatrix(values, scales, zero_points, (rows, columns), group)
