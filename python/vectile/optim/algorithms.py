"""SGD, Adam, AdamW and RMSprop over the fused multi-tensor steps of `vectile.ops`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vectile import ops
from vectile.autograd import Tensor
from vectile.optim.optimizer import Array, Group, Optimizer

Params = Iterable[Tensor] | Iterable[dict[str, Any]]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, dampening, Nesterov's form and L2 weight decay."""

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                dampening=dampening,
                weight_decay=weight_decay,
                nesterov=nesterov,
            ),
        )

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0.0 or group["dampening"] != 0.0):
            raise ValueError("SGD: nesterov: expected momentum > 0 and dampening 0 with it")

    def _state_names(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def _update(
        self, group: Group, step: int, params: list[Array], grads: list[Array], *state: list[Array]
    ) -> None:
        # PyTorch starts the buffer with the first gradient itself: dampening counts from the second on.
        ops.sgd_(
            params,
            grads,
            state[0] if state else None,
            lr=group["lr"],
            momentum=group["momentum"],
            dampening=group["dampening"] if step > 1 else 0.0,
            weight_decay=group["weight_decay"],
            nesterov=group["nesterov"],
        )


class Adam(Optimizer):
    """Adam (Kingma & Ba, arXiv 1412.6980); `weight_decay` is added to the gradient (L2)."""

    _fused = staticmethod(ops.adam_)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    def _state_names(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _update(
        self, group: Group, step: int, params: list[Array], grads: list[Array], *state: list[Array]
    ) -> None:
        beta1, beta2 = group["betas"]
        self._fused(
            params,
            grads,
            *state,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            step=step,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101)."""

    _fused = staticmethod(ops.adamw_)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


class RMSprop(Optimizer):
    """RMSprop (Hinton's lecture 6e of "Neural Networks for Machine Learning"), with momentum."""

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        super().__init__(
            params, dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        )

    def _state_names(self, group: Group) -> tuple[str, ...]:
        return ("square_avg", "momentum_buffer") if group["momentum"] else ("square_avg",)

    def _update(
        self, group: Group, step: int, params: list[Array], grads: list[Array], *state: list[Array]
    ) -> None:
        ops.rmsprop_(
            params,
            grads,
            state[0],
            state[1] if len(state) > 1 else None,
            lr=group["lr"],
            alpha=group["alpha"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
        )
