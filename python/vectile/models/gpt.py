"""GPT: a decoder-only Transformer with pre-norm blocks and learned positions (the GPT-2 layout)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import nn, ops
from vectile.autograd import Tensor, no_grad
from vectile.models.sampling import Sampler, prompt_rows
from vectile.nn import functional as F
from vectile.nn.utils import evaluating


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a GPT; ValueError for sizes that do not fit together."""

    vocab_size: int = 256
    context: int = 64
    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 128
    dropout: float = 0.0
    bias: bool = True
    tie_weights: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "n_layers", "n_heads", "d_model"):
            if getattr(self, name) <= 0:
                raise ValueError(f"GPTConfig: {name}: expected > 0, got {getattr(self, name)}")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"GPTConfig: d_model: expected a multiple of n_heads {self.n_heads}, "
                f"got {self.d_model}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"GPTConfig: dropout: expected in [0, 1), got {self.dropout}")


class Cache:
    """Keys and values of the positions seen so far, one (batch, heads, context, head_dim) pair a layer."""

    def __init__(self, config: GPTConfig, batch: int, dtype: Any = np.float32) -> None:
        shape = (batch, config.n_heads, config.context, config.d_model // config.n_heads)
        self.length = 0
        self.layers = [
            (np.zeros(shape, dtype), np.zeros(shape, dtype)) for _ in range(config.n_layers)
        ]


class Attention(nn.Module):
    """Causal self-attention with one linear layer for queries, keys and values."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, config.bias)
        self.out = nn.Linear(config.d_model, config.d_model, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, length, d_model) -> the same shape."""
        dropout = self.dropout if self.training else 0.0
        packed = self.qkv(x)
        heads = F.packed_self_attention(packed, self.n_heads, is_causal=True, dropout_p=dropout)
        out: Tensor = self.out(heads)
        return out

    def heads(self, x: Tensor) -> NDArray[Any]:
        """Queries, keys and values as an array (3, batch, heads, length, head_dim)."""
        packed: NDArray[Any] = self.qkv(x).numpy()
        batch, length, width = packed.shape
        split = packed.reshape(batch, length, 3, self.n_heads, width // (3 * self.n_heads))
        out: NDArray[Any] = split.transpose(2, 0, 3, 1, 4)
        return out

    def decode(self, x: Tensor, keys: NDArray[Any], values: NDArray[Any], past: int) -> Tensor:
        """Forward of positions past … past + length, whose keys and values are added to the cache."""
        q, k, v = self.heads(x)
        end = past + x.shape[1]
        keys[:, :, past:end], values[:, :, past:end] = k, v
        out = ops.scaled_dot_product_attention(
            q, keys[:, :, :end], values[:, :, :end], is_causal=True
        )
        joined: Tensor = self.out(out.swapaxes(1, 2).reshape(x.shape))
        return joined


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) with a GELU four times as wide."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        d = config.d_model
        self.norm1 = nn.LayerNorm(d, bias=config.bias)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(d, bias=config.bias)
        self.up = nn.Linear(d, 4 * d, config.bias)
        self.down = nn.Linear(4 * d, d, config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, attend: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """x (batch, length, d_model); `attend` stands in for the block's own attention."""
        attended = self.dropout((attend or self.attention)(self.norm1(x)))
        normed, x = self.norm2(attended, x)
        out: Tensor = x + self.dropout(self.down(self.up(normed, "gelu")))
        return out


class GPT(nn.Module):
    """Next-token logits (batch, length, vocab_size) from ids (batch, length), length <= context.

    Matrices start N(0, 0.02^2), those that write to the residual stream scaled by 1/sqrt(2 n_layers)
    (Radford et al. 2019, section 2.3).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Embedding(config.context, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks: Any = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model, bias=config.bias)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                writes = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(
                    parameter, std=0.02 / math.sqrt(2 * config.n_layers if writes else 1)
                )
        if config.tie_weights:
            self.head.weight = self.tokens.weight

    def forward(self, ids: ArrayLike, targets: ArrayLike | None = None) -> Tensor:
        """Logits, or with `targets` (batch, length) the mean cross-entropy in nats."""
        x = self._embed(ids, 0)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        if targets is None:
            return logits
        return F.cross_entropy(
            logits.reshape((-1, logits.shape[-1])), np.asarray(targets).reshape(-1)
        )

    def decode(self, ids: ArrayLike, cache: Cache) -> NDArray[Any]:
        """Logits (batch, vocab_size) after the last of `ids`, which follow what `cache` holds."""
        with no_grad():
            past = cache.length
            x = self._embed(ids, past)
            for block, (keys, values) in zip(self.blocks, cache.layers, strict=True):
                x = block(x, partial(block.attention.decode, keys=keys, values=values, past=past))
            cache.length = past + x.shape[1]
            logits: NDArray[Any] = self.head(self.norm(x[:, -1])).numpy()
            return logits

    def attention_weights(self, ids: ArrayLike) -> NDArray[Any]:
        """Every head's weights: (n_layers, batch, heads, length, length), rows attend to columns."""
        found = []

        def attend(block: Any) -> Callable[[Tensor], Tensor]:
            def run(x: Tensor) -> Tensor:
                q, k, v = block.attention.heads(x)
                out, weights = ops.scaled_dot_product_attention(
                    q, k, v, is_causal=True, return_weights=True
                )
                found.append(weights)
                joined: Tensor = block.attention.out(out.swapaxes(1, 2).reshape(x.shape))
                return joined

            return run

        with evaluating(self), no_grad():
            x = self._embed(ids, 0)
            for block in self.blocks:
                x = block(x, attend(block))
        return np.stack(found)

    def generate(
        self,
        ids: ArrayLike,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        greedy: bool = False,
        use_cache: bool = True,
        callback: Callable[[NDArray[np.int64]], object] | None = None,
    ) -> NDArray[np.int64]:
        """Continue `ids` (length,) or (batch, length); returns prompt and continuation together.

        Samples from softmax(logits / temperature), restricted to the `top_k` likeliest tokens and to the
        smallest set of probability `top_p`; `greedy` takes the likeliest. `seed` None draws from
        `vectile.manual_seed`'s generator. Once the context is full, the model sees its newest half and
        goes on from there, with and without the cache. `callback` gets each step's new ids (batch,).
        ValueError for an empty prompt or settings out of range, a negative `seed` among them.
        """
        sampler = Sampler(temperature, top_k, top_p, seed, greedy, "GPT.generate")
        prompt = prompt_rows("GPT.generate", ids, max_new_tokens)
        out = np.empty((len(prompt), prompt.shape[1] + max_new_tokens), np.int64)
        out[:, : prompt.shape[1]] = prompt
        context, start, cache = (
            self.config.context,
            max(0, prompt.shape[1] - self.config.context),
            None,
        )
        with evaluating(self):
            for end in range(prompt.shape[1], out.shape[1]):
                if end - start > context:
                    start, cache = end - max(1, context // 2), None
                if cache is None or not use_cache:
                    cache = Cache(self.config, len(out), self.tokens.weight.dtype)
                logits = self.decode(out[:, start + cache.length : end], cache)
                out[:, end] = sampler(logits)
                if callback is not None:
                    callback(out[:, end])
        return out[0] if np.ndim(ids) == 1 else out

    def _embed(self, ids: ArrayLike, past: int) -> Tensor:
        array = np.asarray(ids)
        if array.ndim != 2:
            raise ValueError(f"GPT: ids rank: expected 2 (batch, length), got {array.ndim}")
        end = past + array.shape[1]
        if not 0 < array.shape[1] or end > self.config.context:
            raise ValueError(
                f"GPT: ids length: expected 1 to {self.config.context - past}, got {array.shape[1]}"
            )
        x: Tensor = self.dropout(self.tokens(array) + self.positions.weight[past:end])
        return x
