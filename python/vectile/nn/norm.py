"""LayerNorm and RMSNorm over the last axes; BatchNorm, InstanceNorm and GroupNorm over channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vectile.autograd import Tensor
from vectile.device import on_device
from vectile.nn import functional as F
from vectile.nn import init
from vectile.nn.module import Module
from vectile.nn.parameter import Parameter


def _last_axis(owner: str, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = (
        (normalized_shape,)
        if isinstance(normalized_shape, (int, np.integer))
        else tuple(normalized_shape)
    )
    if not shape or any(size < 0 for size in shape):
        raise ValueError(f"{owner}: normalized_shape: expected sizes >= 0, got {normalized_shape}")
    return shape


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over the trailing `normalized_shape` axes."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _last_axis("LayerNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        shape = self.normalized_shape
        for name, present in (
            ("weight", elementwise_affine),
            ("bias", elementwise_affine and bias),
        ):
            array = init.empty(*shape, dtype=dtype) if present else None
            self.register_parameter(name, None if array is None else Parameter(array))
        self.reset_parameters()

    weight: Parameter | None
    bias: Parameter | None

    def reset_parameters(self) -> None:
        """Weight one, bias zero."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: Any, residual: Any = None) -> Any:
        """Of x; or of x + residual, and that sum as a second result."""
        settings = self.normalized_shape, self.weight, self.bias, self.eps
        if residual is None:
            return F.layer_norm(x, *settings)
        return F.add_layer_norm(x, residual, *settings)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, affine={self.elementwise_affine}"


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the trailing axes (Zhang & Sennrich, arXiv 1910.07467).

    `eps=None` is the dtype's machine epsilon, as in PyTorch.
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _last_axis("RMSNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        array = init.empty(*self.normalized_shape, dtype=dtype) if elementwise_affine else None
        self.register_parameter("weight", None if array is None else Parameter(array))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Any, residual: Any = None) -> Any:
        """Of x; or of x + residual, and that sum as a second result."""
        settings = self.normalized_shape, self.weight, self.eps
        if residual is None:
            return F.rms_norm(x, *settings)
        return F.add_rms_norm(x, residual, *settings)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, affine={self.elementwise_affine}"


def _register_affine(module: Module, channels: int, affine: bool, dtype: DTypeLike | None) -> None:
    """Parameters weight = 1 and bias = 0 of shape (channels,), or None under both names."""
    for name in ("weight", "bias"):
        array = init.empty(channels, dtype=dtype) if affine else None
        module.register_parameter(name, None if array is None else Parameter(array))


class _RunningNorm(Module):
    """What BatchNorm and InstanceNorm share: parameters, running statistics, the check of the input."""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: NDArray[Any] | None
    running_var: NDArray[Any] | None
    num_batches_tracked: NDArray[Any] | None
    _ranks: ClassVar[tuple[int, ...]] = ()

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: DTypeLike | None,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        _register_affine(self, num_features, affine, dtype)
        for name in ("running_mean", "running_var"):
            self.register_buffer(
                name, init.empty(num_features, dtype=dtype) if track_running_stats else None
            )
        self.register_buffer(
            "num_batches_tracked", np.zeros((), np.int64) if track_running_stats else None
        )
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Mean zero, variance one, no batch seen."""
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean[...] = 0
            self.running_var[...] = 1
        if self.num_batches_tracked is not None:
            self.num_batches_tracked[...] = 0

    def reset_parameters(self) -> None:
        """Weight one, bias zero, running statistics as new."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def _check(self, x: Any, ranks: tuple[int, ...], axis: int) -> None:
        name, shape = type(self).__name__, tuple(x.shape)
        if len(shape) not in ranks:
            expected = " or ".join(map(str, ranks))
            raise ValueError(f"{name}: x ndim: expected {expected}, got {len(shape)}")
        if shape[axis] != self.num_features:
            raise ValueError(f"{name}: x channels: expected {self.num_features}, got {shape[axis]}")

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_RunningNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    def forward(self, x: Any) -> Tensor:
        self._check(x, self._ranks, 1)
        momentum, mean, var = self.momentum, self.running_mean, self.running_var
        count = self.num_batches_tracked
        if self.training and count is not None:
            if on_device(count):
                count += 1  # and nothing waits for it
            else:
                count[...] = (
                    int(count) + 1
                )  # a ufunc between two convolutions finds its caches cold
            if momentum is None:  # the plain average of all batches
                momentum = 1.0 / int(count)
        return F.batch_norm(
            x,
            mean,
            var,
            self.weight,
            self.bias,
            self.training or mean is None,
            0.0 if momentum is None else momentum,
            self.eps,
        )


class BatchNorm1d(_BatchNorm):
    """Each channel of (N, C) or (N, C, L) normalised over the batch (Ioffe & Szegedy, arXiv 1502.03167).

    In training by the batch's statistics, which also move `running_mean` and `running_var` by `momentum`
    (None: their plain average over all batches); in evaluation by the running statistics, unless
    `track_running_stats` is False.
    """

    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Each channel of (N, C, H, W) normalised over the batch and the plane; see `BatchNorm1d`."""

    _ranks = (4,)


class _InstanceNorm(_RunningNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    def forward(self, x: Any) -> Tensor:
        batched = max(self._ranks)
        self._check(x, self._ranks, 1 if x.ndim == batched else 0)
        lone = x.ndim < batched  # one sample without its axis
        y = F.instance_norm(
            x[None] if lone else x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            self.momentum or 0.0,
            self.eps,
        )
        return y[0] if lone else y


class InstanceNorm1d(_InstanceNorm):
    """Each channel of each sample of (N, C, L) or (C, L) normalised by itself (arXiv 1607.08022)."""

    _ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Each channel of each sample of (N, C, H, W) or (C, H, W) normalised by itself (arXiv 1607.08022)."""

    _ranks = (3, 4)


class GroupNorm(Module):
    """Each sample of (N, C, ...) normalised over `num_groups` groups of channels (arXiv 1803.08494)."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_groups: expected a divisor of the {num_channels} channels, "
                f"got {num_groups}"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        _register_affine(self, num_channels, affine, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one, bias zero."""
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, x: Any) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(
                f"GroupNorm: x shape: expected (N, {self.num_channels}, ...), got {tuple(x.shape)}"
            )
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
