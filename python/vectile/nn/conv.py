"""Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from vectile.autograd import Tensor, as_tensor
from vectile.nn import functional as F
from vectile.nn import init
from vectile.nn.functional.padding import MODES, padded
from vectile.nn.module import Module
from vectile.nn.parameter import Parameter
from vectile.ops.conv import Padding, settings_of
from vectile.ops.gemm import Activation
from vectile.ops.sizes import Sizes, sizes


class _Convolution(Module):
    """What convolutions share: settings, and parameters with PyTorch's initialisation."""

    axes: ClassVar[int]
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes,
        padding: Padding,
        dilation: Sizes,
        groups: int,
        bias: bool,
        padding_mode: str,
        transposed: bool,
        dtype: DTypeLike | None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = sizes(name, "kernel_size", kernel_size, self.axes)
        self.stride = sizes(name, "stride", stride, self.axes)
        self.padding = (
            padding if isinstance(padding, str) else sizes(name, "padding", padding, self.axes)
        )
        self.dilation = sizes(name, "dilation", dilation, self.axes)
        self.groups = groups
        self.padding_mode = padding_mode
        for setting, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if groups < 1 or channels % groups:
                raise ValueError(
                    f"{name}: {setting}: expected a multiple of groups = {groups}, got {channels}"
                )
        if padding_mode != "zeros" and (transposed or padding_mode not in MODES):
            known = "'zeros'" if transposed else f"'zeros' or one of {sorted(MODES)}"
            raise ValueError(f"{name}: padding_mode: expected {known}, got {padding_mode!r}")
        settings_of(name, self.axes, self.kernel_size, self.stride, self.padding)
        first, second = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        shape = first, second // groups, *self.kernel_size
        self.weight = Parameter(init.empty(*shape, dtype=dtype))
        array = init.empty(out_channels, dtype=dtype) if bias else None
        self.register_parameter("bias", None if array is None else Parameter(array))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight and bias ~ U(-b, b), b = 1 / sqrt(weight.shape[1] * kernel size), as PyTorch."""
        bound = 1.0 / math.sqrt(max(1, init.fans(self.weight)[0]))
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        if self.padding != (0,) * self.axes:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * self.axes:
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _Conv(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            False,
            dtype,
        )

    def forward(self, x: Any, activation: Activation | None = None) -> Tensor:
        """`activation` names one that is applied while the result is in cache."""
        convolve = F.conv1d if self.axes == 1 else F.conv2d
        padding: Padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = self._padded(x), 0
        return convolve(
            x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups, activation
        )

    def _padded(self, x: Any) -> Tensor:
        """x with the elements that `padding_mode` repeats."""
        t = as_tensor(x)
        if t.ndim < self.axes:
            return t  # which the convolution refuses
        name = type(self).__name__
        around = settings_of(
            name, self.axes, self.kernel_size, self.stride, self.padding, self.dilation
        ).padding
        pairs = list(zip(around[::2], around[1::2], strict=True))
        return padded(f"{name}: padding", t, pairs, self.padding_mode)


class _ConvTranspose(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            True,
            dtype,
        )
        name = type(self).__name__
        if isinstance(padding, str):
            raise ValueError(
                f"{name}: padding: expected int or {self.axes} of them, got {padding!r}"
            )
        self.output_padding = sizes(name, "output_padding", output_padding, self.axes)

    def forward(
        self, x: Any, output_size: Any = None, activation: Activation | None = None
    ) -> Tensor:
        """`output_size`: one of the sizes that `stride` leaves open, in place of output_padding."""
        transpose = F.conv_transpose1d if self.axes == 1 else F.conv_transpose2d
        extra = self.output_padding
        if output_size is not None:
            extra = self._output_padding(tuple(np.shape(x)), output_size)
        return transpose(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,  # type: ignore[arg-type]
            extra,
            self.groups,
            self.dilation,
            activation,
        )

    def _output_padding(self, shape: tuple[int, ...], output_size: Any) -> tuple[int, ...]:
        name = type(self).__name__
        wanted = tuple(output_size)[-self.axes :]
        if len(wanted) != self.axes:
            raise ValueError(f"{name}: output_size length: expected {self.axes}, got {output_size}")
        extra = []
        for n, k, s, p, d, size in zip(
            shape[-self.axes :],
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            wanted,
            strict=True,
        ):
            least = (n - 1) * s - 2 * int(p) + d * (k - 1) + 1
            if not least <= size < least + max(s, d):
                raise ValueError(
                    f"{name}: output_size: expected {least} to {least + max(s, d) - 1}, got {size}"
                )
            extra.append(size - least)
        return tuple(extra)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        if self.output_padding != (0,) * self.axes:
            text += f", output_padding={self.output_padding}"
        return text


class Conv1d(_Conv):
    """Convolution of (N, in_channels, L) with weight (out_channels, in_channels / groups, k).

    `padding`: int or 1-tuple of elements on either side, "same" or "valid"; `padding_mode`: "zeros",
    "reflect", "replicate" or "circular".
    """

    axes = 1


class Conv2d(_Conv):
    """Convolution of (N, in_channels, H, W) with weight (out_channels, in_channels / groups, kh, kw).

    `kernel_size`, `stride`, `padding`, `dilation`: int or (vertical, horizontal); `padding` also "same"
    (stride 1) or "valid". `padding_mode`: "zeros", "reflect", "replicate" or "circular".
    """

    axes = 2


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution of (N, in_channels, L) with weight (in_channels, out_channels / groups, k)."""

    axes = 1


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution of (N, in_channels, H, W), weight (in_channels, out_channels / groups, kh, kw).

    The gradient of Conv2d with respect to its input (Dumoulin & Visin, arXiv 1603.07285): upsamples by
    `stride`. ``OH = (H - 1) * stride - 2 * padding + dilation * (kh - 1) + output_padding + 1``.
    """

    axes = 2
