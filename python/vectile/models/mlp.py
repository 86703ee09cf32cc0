"""MLP: fully connected layers with an activation in between."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from vectile import nn
from vectile.autograd import Tensor, as_tensor
from vectile.models import checks


class MLP(nn.Module):
    """x (batch, …) is flattened to (batch, in_features) and leaves as (batch, out_features).

    `hidden` are the widths in between: an int for one layer, () for a linear model. Dropout follows each
    activation. Parameters are `layers.0.weight`, `layers.0.bias`, `layers.1.weight`, …
    """

    def __init__(
        self,
        in_features: int,
        hidden: int | Sequence[int],
        out_features: int,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        between = tuple(hidden) if isinstance(hidden, Sequence) else (hidden,)
        widths = (in_features, *between, out_features)
        for width in widths:
            checks.integers("MLP", widths=width)
        self.flatten = nn.Flatten()
        self.layers: Any = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation()
        self.dropout = nn.Dropout(dropout)

    def features(self, x: Any) -> Tensor:
        """What the last layer sees: the last hidden layer after its activation."""
        x = as_tensor(x)
        if x.ndim < 2:
            raise ValueError(f"MLP: x shape: expected (batch, …), got {x.shape}")
        x = self.flatten(x)
        for layer in list(self.layers)[:-1]:
            x = self.dropout(self.activation(layer(x)))
        out: Tensor = x
        return out

    def forward(self, x: Any) -> Tensor:
        out: Tensor = self.layers[-1](self.features(x))
        return out
