"""Vision Transformer (Dosovitskiy et al., arXiv 2010.11929): an image is a sequence of patches."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vectile import nn
from vectile.autograd import Tensor, broadcast_to, concatenate, no_grad
from vectile.models import checks
from vectile.nn.utils import evaluating


class ViT(nn.Module):
    """Class logits (batch, classes) of images (batch, channels, size, size).

    `patch` divides `size`. A trained class token is put before the patches, a trained position is added, and
    pre-norm encoder layers with GELU follow; the head reads the class token.
    """

    def __init__(
        self,
        size: int = 8,
        patch: int = 2,
        channels: int = 1,
        classes: int = 10,
        d_model: int = 64,
        n_layers: int = 4,
        n_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        checks.integers("ViT", size=size, patch=patch, channels=channels, classes=classes)
        if size % patch:
            raise ValueError(f"ViT: patch: expected a divisor of size {size}, got {patch}")
        self.size, self.patch, self.channels = size, patch, channels
        self.embed = nn.Linear(channels * patch * patch, d_model)
        self.token = nn.Parameter(nn.init.empty(1, 1, d_model))
        nn.init.normal_(self.token, std=0.02)
        length = 1 + (size // patch) ** 2
        self.positions = nn.LearnedPositionalEmbedding(d_model, length, dropout)
        layer = nn.TransformerEncoderLayer(
            d_model, n_heads, 4 * d_model, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, n_layers, nn.LayerNorm(d_model))
        self.head = nn.Linear(d_model, classes)

    def forward(self, images: Any) -> Tensor:
        out: Tensor = self.head(self.encoder(self._tokens(images))[:, 0])
        return out

    def attention_weights(self, images: Any) -> NDArray[Any]:
        """(layers, batch, heads, 1 + patches, 1 + patches): rows attend to columns, the class token first."""
        found = []
        with evaluating(self), no_grad():
            x = self._tokens(images)
            for layer in cast(Any, self.encoder).layers:
                normed = layer.norm1(x)
                weights = layer.self_attn(normed, normed, normed, average_attn_weights=False)[1]
                found.append(weights.numpy())
                x = layer(x)
        return np.stack(found)

    def _tokens(self, images: Any) -> Tensor:
        """The encoder's input (batch, 1 + patches, d_model)."""
        shape = ("batch", self.channels, self.size, self.size)
        x = checks.shaped("ViT", "images", images, *shape)
        n, p, side = x.shape[0], self.patch, self.size // self.patch
        cut = x.reshape((n, self.channels, side, p, side, p)).transpose((0, 2, 4, 1, 3, 5))
        patches = self.embed(cut.reshape((n, side * side, self.channels * p * p)))
        token = broadcast_to(self.token, (n, 1, self.token.shape[2]))
        out: Tensor = self.positions(concatenate([token, patches], 1))
        return out
