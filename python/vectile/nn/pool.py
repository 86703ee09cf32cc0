"""Pooling and upsampling layers over (N, C, L) or (N, C, H, W), with or without N."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vectile.autograd import Tensor
from vectile.nn import functional as F
from vectile.nn.functional.pool import AdaptiveSize
from vectile.nn.module import Plain
from vectile.ops.sizes import Sizes


class _MaxPool(Plain):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            dilation=dilation,
            return_indices=return_indices,
            ceil_mode=ceil_mode,
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window of the last axis; see `functional.max_pool1d`."""

    def forward(self, x: Any) -> Any:
        return F.max_pool1d(x, **self._values())


class MaxPool2d(_MaxPool):
    """The largest element of each window of the last two axes; see `functional.max_pool1d`."""

    def forward(self, x: Any) -> Any:
        return F.max_pool2d(x, **self._values())


class AvgPool1d(Plain):
    """The mean of each window of the last axis; see `functional.avg_pool1d`."""

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )

    def forward(self, x: Any) -> Tensor:
        return F.avg_pool1d(x, **self._values())


class AvgPool2d(Plain):
    """The mean of each window of the last two axes; see `functional.avg_pool2d`."""

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            divisor_override=divisor_override,
        )

    def forward(self, x: Any) -> Tensor:
        return F.avg_pool2d(x, **self._values())


class _AdaptiveAvgPool(Plain):
    def __init__(self, output_size: AdaptiveSize) -> None:
        super().__init__(output_size=output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of `output_size` windows that cover the last axis evenly."""

    def forward(self, x: Any) -> Tensor:
        return F.adaptive_avg_pool1d(x, **self._values())


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The means of `output_size` windows that cover the last two axes evenly."""

    def forward(self, x: Any) -> Tensor:
        return F.adaptive_avg_pool2d(x, **self._values())


class _AdaptiveMaxPool(Plain):
    def __init__(self, output_size: AdaptiveSize, return_indices: bool = False) -> None:
        super().__init__(output_size=output_size, return_indices=return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The maxima of `output_size` windows that cover the last axis evenly."""

    def forward(self, x: Any) -> Any:
        return F.adaptive_max_pool1d(x, **self._values())


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The maxima of `output_size` windows that cover the last two axes evenly."""

    def forward(self, x: Any) -> Any:
        return F.adaptive_max_pool2d(x, **self._values())


class Upsample(Plain):
    """Resample to `size` or by `scale_factor`; see `functional.interpolate`."""

    def __init__(
        self,
        size: Sizes | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__(
            size=size,
            scale_factor=scale_factor,
            mode=mode,
            align_corners=align_corners,
            recompute_scale_factor=recompute_scale_factor,
        )

    def forward(self, x: Any) -> Tensor:
        return F.interpolate(x, **self._values())


class PixelShuffle(Plain):
    """(..., C r², H, W) -> (..., C, H r, W r) for r = `upscale_factor`."""

    upscale_factor: int

    def __init__(self, upscale_factor: int) -> None:
        super().__init__(upscale_factor=upscale_factor)

    def forward(self, x: Any) -> Tensor:
        return F.pixel_shuffle(x, self.upscale_factor)


class PixelUnshuffle(Plain):
    """(..., C, H r, W r) -> (..., C r², H, W) for r = `downscale_factor`."""

    downscale_factor: int

    def __init__(self, downscale_factor: int) -> None:
        super().__init__(downscale_factor=downscale_factor)

    def forward(self, x: Any) -> Tensor:
        return F.pixel_unshuffle(x, self.downscale_factor)
