"""GPT: a decoder-only Transformer with pre-norm blocks (the GPT-2 layout)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from vectile import nn
from vectile.autograd import Tensor, no_grad
from vectile.autograd.functional import attention_and_weights
from vectile.device import as_array, beside, near, place_of
from vectile.models.sampling import Sampler, prompt_rows
from vectile.nn import functional as F
from vectile.nn.cache import Cache
from vectile.nn.utils import evaluating


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a GPT; ValueError for sizes that do not fit together.

    `positions` are a table that learns, rotations of queries and keys (RoFormer), or slopes (ALiBi).
    `n_kv_heads` heads of keys and values are shared by the others, all of them by default. With a `window`
    each token sees at most so many before its own.
    """

    vocab_size: int = 256
    context: int = 64
    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 128
    dropout: float = 0.0
    bias: bool = True
    tie_weights: bool = True
    n_kv_heads: int | None = None
    positions: Literal["learned", "rotary", "alibi"] = "learned"
    window: int | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context", "n_layers", "n_heads", "d_model", "n_kv_heads", "window")
        for name in sizes:
            size = getattr(self, name)
            if size is not None and size <= 0:
                raise ValueError(f"GPTConfig: {name}: expected > 0, got {size}")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"GPTConfig: d_model: expected a multiple of n_heads {self.n_heads}, "
                f"got {self.d_model}"
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"GPTConfig: n_kv_heads: expected a divisor of n_heads {self.n_heads}, "
                f"got {self.n_kv_heads}"
            )
        if self.positions not in ("learned", "rotary", "alibi"):
            raise ValueError(
                f"GPTConfig: positions: expected 'learned', 'rotary' or 'alibi', "
                f"got {self.positions!r}"
            )
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(
                f"GPTConfig: d_model / n_heads: expected an even number for rotary positions, "
                f"got {self.head_dim}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"GPTConfig: dropout: expected in [0, 1), got {self.dropout}")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_dim(self) -> int:
        """Elements of a head."""
        return self.d_model // self.n_heads


class Attention(nn.Module):
    """Causal self-attention with one linear layer for queries, keys and values."""

    slopes: NDArray[Any] | None

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads, self.kv_heads, self.head_dim = (
            config.n_heads,
            config.kv_heads,
            config.head_dim,
        )
        self.dropout = config.dropout
        self.window = None if config.window is None else (config.window, 0)
        width = (config.n_heads + 2 * config.kv_heads) * config.head_dim
        self.qkv = nn.Linear(config.d_model, width, config.bias)
        self.out = nn.Linear(config.d_model, config.d_model, config.bias)
        rotary, alibi = (config.positions == name for name in ("rotary", "alibi"))
        self.rotary = nn.RotaryEmbedding(config.head_dim, config.context) if rotary else None
        slopes = nn.alibi_slopes(config.n_heads) if alibi else None
        self.register_buffer("slopes", slopes, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, length, d_model) -> the same shape."""
        dropout = self.dropout if self.training else 0.0
        options: dict[str, Any] = {"is_causal": True, "dropout_p": dropout, **self.options()}
        if self.rotary is not None:
            options |= {
                "rotary": self.rotary.tables(x.shape[1]),
                "rotary_interleaved": self.rotary.interleaved,
            }
        if self.kv_heads == self.n_heads:
            heads = F.packed_self_attention(self.qkv(x), self.n_heads, **options)
            out: Tensor = self.out(heads)
            return out
        return self.join(F.scaled_dot_product_attention(*self.split(x), **options))

    def options(self) -> dict[str, Any]:
        """Those of attention that belong to the model."""
        given = {"window": self.window, "alibi_slopes": self.slopes}
        return {name: value for name, value in given.items() if value is not None}

    def split(self, x: Tensor) -> list[Any]:
        """Queries, keys and values (batch, heads, length, head_dim)."""
        batch, length = x.shape[:2]
        packed: Any = self.qkv(x)
        packed = packed if packed.requires_grad else packed.numpy()
        packed = packed.reshape((batch, length, -1, self.head_dim)).swapaxes(1, 2)
        keys = self.n_heads + self.kv_heads
        return [packed[:, : self.n_heads], packed[:, self.n_heads : keys], packed[:, keys:]]

    def heads(self, x: Tensor, past: ArrayLike = 0) -> list[Any]:
        """The same of positions past … past + length, turned by these where the model says so."""
        q, k, v = self.split(x)
        if self.rotary is not None:
            q, k = self.rotary(q, past), self.rotary(k, past)
        return [q, k, v]

    def join(self, heads: Any) -> Tensor:
        """The output (batch, length, d_model) for what the heads found."""
        batch, n_heads, length, dim = heads.shape
        out: Tensor = self.out(heads.swapaxes(1, 2).reshape((batch, length, n_heads * dim)))
        return out

    def decode(self, x: Tensor, cache: Cache, layer: int, past: ArrayLike) -> Tensor:
        """Forward of tokens after those `past` ones in `cache`, to which keys and values are added."""
        q, k, v = self.heads(x, past)
        return self.join(cache.step(layer, q, k, v, **self.options()).numpy())


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
        learned = config.positions == "learned"
        self.positions = nn.Embedding(config.context, config.d_model) if learned else None
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
            logits.reshape((-1, logits.shape[-1])), as_array(targets).reshape(-1)
        )

    def cache(self, batch: int = 1, dtype: DTypeLike | None = None) -> nn.KVCache:
        """An empty cache for `decode` where the model is, of the weights' dtype by default."""
        config, weight = self.config, self.tokens.weight.data
        return nn.KVCache(
            config.n_layers,
            config.kv_heads,
            config.head_dim,
            config.context,
            batch,
            dtype=weight.dtype if dtype is None else dtype,
            device=place_of(weight),
        )

    def decode(self, ids: ArrayLike, cache: Cache) -> NDArray[Any]:
        """Logits (batch, vocab_size) after the last of `ids`, which follow what `cache` holds.

        `cache` is one of `cache`, or an `nn.PagedKVCache` of the model's layers and heads.
        """
        with no_grad():
            lengths = cache.lengths
            past = lengths if len(set(lengths.tolist())) != 1 else int(lengths[0])
            x = self._embed(ids, past)
            for i, block in enumerate(self.blocks):
                x = block(x, partial(block.attention.decode, cache=cache, layer=i, past=past))
            logits: NDArray[Any] = self.head(self.norm(x[:, -1])).numpy()
            return logits

    def attention_weights(self, ids: ArrayLike) -> NDArray[Any]:
        """Every head's weights: (n_layers, batch, heads, length, length), rows attend to columns."""
        found = []

        def attend(block: Any) -> Callable[[Tensor], Tensor]:
            def run(x: Tensor) -> Tensor:
                attention = block.attention
                heads, options = attention.heads(x), attention.options()
                out, weights = attention_and_weights(*heads, is_causal=True, **options)
                found.append(weights.numpy())
                joined: Tensor = attention.join(out)
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
        cache_dtype: DTypeLike | None = None,
        callback: Callable[[NDArray[np.int64]], object] | None = None,
    ) -> NDArray[np.int64]:
        """Continue `ids` (length,) or (batch, length); returns prompt and continuation together.

        Samples from softmax(logits / temperature), restricted to the `top_k` likeliest tokens and to the
        smallest set of probability `top_p`; `greedy` takes the likeliest. `seed` None draws from
        `vectile.manual_seed`'s generator. Once the context is full, the model sees its newest half and
        goes on from there, with and without the cache, which is of `cache_dtype`: float32, bfloat16, int8, …
        `callback` gets each step's new ids (batch,). Ids are NumPy arrays, wherever the model is.
        ValueError for an empty prompt or settings out of range, a negative `seed` among them.
        """
        sampler = Sampler(temperature, top_k, top_p, seed, greedy, "GPT.generate")
        prompt = prompt_rows("GPT.generate", ids, max_new_tokens)
        out = np.empty((len(prompt), prompt.shape[1] + max_new_tokens), np.int64)
        out[:, : prompt.shape[1]] = prompt
        context, cache = self.config.context, None
        start = seen = max(0, prompt.shape[1] - context)
        with evaluating(self):
            for end in range(prompt.shape[1], out.shape[1]):
                if end - start > context:
                    start, cache = end - max(1, context // 2), None
                if cache is None or not use_cache:
                    cache = self.cache(len(out), cache_dtype)
                    seen = start
                logits = self.decode(near(out[:, seen:end], self.tokens.weight.data), cache)
                seen = end
                out[:, end] = sampler(logits)
                if callback is not None:
                    callback(out[:, end])
        return out[0] if np.ndim(ids) == 1 else out

    def _embed(self, ids: ArrayLike, past: int | NDArray[np.int64]) -> Tensor:
        array = beside(ids, self.tokens.weight.data)
        if array.ndim != 2:
            raise ValueError(f"GPT: ids rank: expected 2 (batch, length), got {array.ndim}")
        length, most = array.shape[1], past if isinstance(past, int) else int(past.max(initial=0))
        if not 0 < length or most + length > self.config.context:
            raise ValueError(
                f"GPT: ids length: expected 1 to {self.config.context - most}, got {length}"
            )
        x: Tensor = self.tokens(array)
        if self.positions is not None:
            if isinstance(past, int):
                x = x + self.positions.weight[past : past + length]
            else:
                places = past[:, None] + np.arange(length)
                x = x + self.positions(near(places, self.tokens.weight.data))
        out: Tensor = self.dropout(x)
        return out
