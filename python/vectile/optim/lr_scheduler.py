"""Learning-rate schedules. Each is a closed form of the epoch number, so a resumed run continues exactly.

`scheduler.step()` after every optimiser step (or epoch): the unit is what you count with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from vectile.optim.optimizer import Optimizer


class LRScheduler:
    """Base: sets each group's lr to `factor(epoch) * initial lr`; subclasses give the factor."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.last_epoch = 0
        self._apply()

    def lr(self, base: float, epoch: int) -> float:
        """The learning rate at `epoch` of a group that began with `base`."""
        raise TypeError(f"{type(self).__name__}: lr: expected a definition in the subclass")

    def step(self) -> None:
        """Move to the next epoch and set the learning rates."""
        self.last_epoch += 1
        self._apply()

    def _apply(self) -> None:
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = self.lr(group["initial_lr"], self.last_epoch)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        base_lrs = [group["initial_lr"] for group in self.optimizer.param_groups]
        return {"last_epoch": self.last_epoch, "base_lrs": base_lrs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.last_epoch = int(state["last_epoch"])
        for group, base in zip(self.optimizer.param_groups, state["base_lrs"], strict=True):
            group["initial_lr"] = base
        self._apply()


class LambdaLR(LRScheduler):
    """lr = base * function(epoch)."""

    def __init__(self, optimizer: Optimizer, function: Callable[[int], float]) -> None:
        self.function = function
        super().__init__(optimizer)

    def lr(self, base: float, epoch: int) -> float:
        return base * self.function(epoch)


class ConstantLR(LRScheduler):
    """lr = base * factor until `total_iters`, then base."""

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer)

    def lr(self, base: float, epoch: int) -> float:
        return base * self.factor if epoch < self.total_iters else base


class StepLR(LRScheduler):
    """lr = base * gamma^(epoch // step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = _positive("StepLR", "step_size", step_size), gamma
        super().__init__(optimizer)

    def lr(self, base: float, epoch: int) -> float:
        return base * self.gamma ** (epoch // self.step_size)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from base to `eta_min` over `T_max` epochs, periodic (arXiv 1608.03983, eq. 5)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max, self.eta_min = _positive("CosineAnnealingLR", "T_max", T_max), eta_min
        super().__init__(optimizer)

    def lr(self, base: float, epoch: int) -> float:
        return (
            self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2
        )


class LinearWarmupLR(LRScheduler):
    """lr = base * (epoch + 1) / (warmup + 1) for `warmup` epochs, then base."""

    def __init__(self, optimizer: Optimizer, warmup: int) -> None:
        if warmup < 0:
            raise ValueError(f"LinearWarmupLR: warmup: expected a number >= 0, got {warmup}")
        self.warmup = warmup
        super().__init__(optimizer)

    def lr(self, base: float, epoch: int) -> float:
        return base * warmup_factor(epoch, self.warmup)


class WarmupCosineLR(LRScheduler):
    """Linear warm-up over `warmup` epochs, then half a cosine down to `final_ratio * base` at `total`."""

    def __init__(
        self, optimizer: Optimizer, warmup: int, total: int, final_ratio: float = 0.0
    ) -> None:
        if not 0 <= warmup < total:
            raise ValueError(
                f"WarmupCosineLR: warmup: expected in [0, total={total}), got {warmup}"
            )
        self.warmup, self.total, self.final_ratio = warmup, total, final_ratio
        super().__init__(optimizer)

    def lr(self, base: float, epoch: int) -> float:
        progress = (epoch - self.warmup) / (self.total - self.warmup)
        cosine = cosine_factor(progress, self.final_ratio)
        return base * warmup_factor(epoch, self.warmup) * cosine


class InverseSqrtLR(LRScheduler):
    """Linear warm-up to base over `warmup` epochs, then base * sqrt(warmup / epoch).

    With base (d_model * warmup)^-0.5 this is arXiv 1706.03762, eq. 3, whose step is epoch + 1.
    """

    def __init__(self, optimizer: Optimizer, warmup: int) -> None:
        self.warmup = _positive("InverseSqrtLR", "warmup", warmup)
        super().__init__(optimizer)

    def lr(self, base: float, epoch: int) -> float:
        step = epoch + 1
        return base * min(step / self.warmup, math.sqrt(self.warmup / step))


class ReduceLROnPlateau:
    """Multiply the lr by `factor` once a metric has not improved for more than `patience` epochs.

    `step(metric)` takes the validation loss (mode "min") or score ("max"). An improvement must exceed
    `threshold`, relative ("rel") or absolute ("abs").
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                'ReduceLROnPlateau: mode, threshold_mode: expected "min"|"max" and "rel"|"abs", '
                f"got {mode!r} and {threshold_mode!r}"
            )
        if not 0.0 < factor < 1.0:
            raise ValueError(f"ReduceLROnPlateau: factor: expected in (0, 1), got {factor}")
        self.optimizer = optimizer
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self.factor, self.patience, self.cooldown = factor, patience, cooldown
        self.min_lr, self.eps = min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def step(self, metric: float) -> None:
        value = float(metric)
        self.last_epoch += 1
        if self._better(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group in self.optimizer.param_groups:
                lower = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - lower > self.eps:
                    group["lr"] = lower
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _better(self, value: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        if self.threshold_mode == "abs":
            return sign * value > sign * self.best + self.threshold
        return sign * value > sign * self.best * (1.0 + sign * self.threshold)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)


def warmup_factor(epoch: int, warmup: int) -> float:
    """Rises linearly from 1 / (warmup + 1) to 1 at epoch `warmup`."""
    return min(1.0, (epoch + 1) / (warmup + 1))


def cosine_factor(progress: float, final_ratio: float = 0.0) -> float:
    """1 at progress 0 and `final_ratio` at 1, along half a cosine; progress is clamped to [0, 1]."""
    progress = min(1.0, max(0.0, progress))
    return final_ratio + (1.0 - final_ratio) * (1.0 + math.cos(math.pi * progress)) / 2


def _positive(owner: str, name: str, value: int) -> int:
    if value <= 0:
        raise ValueError(f"{owner}: {name}: expected a number > 0, got {value}")
    return value
