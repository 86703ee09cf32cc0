"""Keys and values of the tokens that a model has read: one block for each sequence, or many from a pool.

Both caches hold blocks of tokens, and a table that lists each sequence's blocks; a contiguous cache has one
block for each sequence, as long as its capacity. Sequences may share blocks, which are copied when one of
them writes (PagedAttention, arXiv 2309.06180).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from vectile import device, ops
from vectile.autograd import Tensor
from vectile.autograd.functional import scaled_dot_product_attention
from vectile.autograd.tape import mode
from vectile.autograd.tensor import array_of, wrap
from vectile.nn.blocks import Integers, Pool, Tables, widened
from vectile.runtime import is_floating, named_dtype

Self = TypeVar("Self", bound="Cache")
_MOST = int(np.iinfo(np.int64).max)


class Cache:
    """What both caches are: `layers` times keys (tokens, kv_heads, head_dim) and values for each sequence.

    Sequences are numbered from 0 and differ in length. Keys and values come and go as arrays or Tensors
    without a gradient, where the cache's `device` is; lengths, counts and numbers of sequences are NumPy's.
    An append that raises has changed nothing.
    """

    _tables: Tables = np.empty((0, 0), np.int32)
    _most = _MOST  # tokens of a sequence

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        value_dim: int | None,
        batch: int,
        blocks: int,
        block_size: int,
        dtype: DTypeLike,
        grows: bool,
        place: str,
    ) -> None:
        value_dim = head_dim if value_dim is None else value_dim
        self._expect(
            layers=layers,
            kv_heads=kv_heads,
            head_dim=head_dim,
            value_dim=value_dim,
            blocks=blocks,
        )
        kind = named_dtype(dtype)
        if not is_floating(kind) and kind != np.int8:
            raise TypeError(
                f"{type(self).__name__}: dtype: expected a floating-point type or int8, got {kind}"
            )
        self.layers, self.kv_heads = layers, kv_heads
        self.head_dim, self.value_dim = head_dim, value_dim
        self.dtype, self.block_size = kind, block_size
        shape = (layers, blocks, kv_heads, block_size)
        self._pool = Pool(shape, head_dim, value_dim, kind, grows, place)
        self._list(np.full((batch, 1), -1, np.int32), np.zeros((layers, batch), np.int64))

    def __del__(self) -> None:
        if self._tables.size:
            self._pool.hold(self._tables, -1)

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self._tables)

    @property
    def lengths(self) -> Integers:
        """The tokens of each sequence that every layer has, (sequences,)."""
        shortest: Integers = self._lengths.min(0)
        return shortest

    @property
    def device(self) -> str:
        """Where keys and values are: "cpu", or "cuda:0" and so on."""
        return self._pool.place

    @property
    def nbytes(self) -> int:
        """The bytes of all blocks, in use or not."""
        return sum(array.nbytes for array in self._pool.arrays.values())

    def append(self, layer: int, key: Any, value: Any, counts: ArrayLike | None = None) -> None:
        """Add tokens to one layer of every sequence.

        Args:
            key: (sequences, kv_heads, n, head_dim), floating-point; converted to the cache's dtype, for int8
                with a scale for each token and head.
            value: (sequences, kv_heads, n, value_dim).
            counts: (sequences,): only so many of the n tokens, the first ones, are a sequence's own.

        Raises:
            ValueError: shapes that do not fit, or more tokens than a contiguous cache has room for.
            MemoryError: too few free blocks in the pool.
        """
        k = self._array("key", key, self.head_dim, self.kv_heads)
        v = self._array("value", value, self.value_dim, self.kv_heads)
        if k.shape[2] != v.shape[2]:
            raise ValueError(
                f"{type(self).__name__}: value length: expected {k.shape[2]}, got {v.shape[2]}"
            )
        start, n = self._lengths[layer], k.shape[2]
        end = start + (n if counts is None else self._counts(counts, n))
        if n > self._room[layer]:
            self._reserve(start, end)
        ops.append_to_cache(
            k,
            v,
            block_tables=self._there("tables", self._tables),
            lengths=self._there("start", start),
            counts=None if counts is None else self._there("counts", end - start),
            **self._pool.layers[layer],
        )
        self._lengths[layer] = end
        self._room[layer] -= n

    def attend(
        self,
        layer: int,
        query: Any,
        counts: ArrayLike | None = None,
        *,
        is_causal: bool = True,
        **options: Any,
    ) -> Any:
        """Attention of the newest tokens' queries to what `layer` holds, their own keys included.

        Args:
            query: (sequences, heads, n, head_dim); `kv_heads` divides heads. The last query stands at the
                last key.
            counts: as in `append`: the first so many queries are a sequence's own, of which the last stands
                at the last key. What the others give means nothing.
            is_causal: False lets each query see every key, as those of a decoder see its encoder.
            options: scale, window, softcap, alibi_slopes, sinks and return_lse of
                `ops.decode_attention`; window and alibi_slopes need places, so `is_causal`.

        Returns:
            (sequences, heads, n, value_dim), a Tensor, or with its log-sum-exp (sequences, heads, n).
        """
        if options:
            options = {name: array_of(given) for name, given in options.items()}
        q = self._array("query", query, self.head_dim, "heads")
        if q.shape[1] % self.kv_heads:
            raise ValueError(
                f"{type(self).__name__}: query heads: expected a multiple of kv_heads "
                f"{self.kv_heads}, got {q.shape[1]}"
            )
        batch, heads, n, _ = q.shape
        first = None if counts is None or n < 2 or not is_causal else self._counts(counts, n)
        if not is_causal:  # each query a head of its own, at the last key
            for name in ("window", "alibi_slopes"):
                if options.get(name) is not None:
                    raise ValueError(
                        f"{type(self).__name__}: {name}: expected None without is_causal"
                    )
            q = q.reshape(batch, heads * n, 1, self.head_dim)
            if options.get("sinks") is not None:
                options["sinks"] = np.repeat(options["sinks"], n)
        elif first is not None:  # a sequence's own queries to the end
            first = np.broadcast_to(first, (batch,))[:, None]
            order = self._there("order", (np.arange(n) + first) % n)
            q = np.take_along_axis(q, order[:, None, :, None], 2)
        found = ops.decode_attention(
            q,
            block_tables=self._there("tables", self._tables),
            lengths=self._there("end", self._lengths[layer]),
            **self._pool.layers[layer],
            **options,
        )
        out, lse = found if isinstance(found, tuple) else (found, None)
        if not is_causal:
            out = out.reshape(batch, heads, n, self.value_dim)
            lse = None if lse is None else lse.reshape(batch, heads, n)
        elif first is not None:
            back = self._there("back", (np.arange(n) - first) % n)[:, None]
            out = np.take_along_axis(out, back[..., None], 2)
            lse = None if lse is None else np.take_along_axis(lse, back, 2)
        return wrap(out) if lse is None else (wrap(out), lse)

    def step(
        self,
        layer: int,
        query: Any,
        key: Any,
        value: Any,
        counts: ArrayLike | None = None,
        **options: Any,
    ) -> Any:
        """`append`, then `attend`; a prompt, several first tokens, goes through the ordinary attention."""
        first = query.shape[-2] > 1 and not self._lengths[layer].any()
        self.append(layer, key, value, counts)
        if not first:
            return self.attend(layer, query, counts, **options)
        if counts is not None:
            counts = self._there("counts", self._counts(counts, query.shape[-2]))
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, key_lengths=counts, **options
        )

    def truncate(self, lengths: ArrayLike) -> None:
        """Keep the first tokens of each sequence only: ``truncate(cache.lengths - n)`` takes n back.

        Args:
            lengths: (sequences,) or one for all, each between 0 and the present length.
        """
        kept = np.broadcast_to(self._integers("lengths", lengths), len(self))
        present = self._lengths.max(0)
        if (kept < 0).any() or (kept > present).any():
            raise ValueError(
                f"{type(self).__name__}: lengths: expected 0 to the present {present}, got {kept}"
            )
        left = np.arange(self._tables.shape[1]) >= -(-kept // self.block_size)[:, None]
        self._pool.hold(self._tables[left], -1)
        self._list(np.where(left, -1, self._tables), np.minimum(self._lengths, kept))

    def take(self: Self, sequences: Sequence[int] | Integers) -> Self:
        """Another cache of `sequences`, in this order and any number of times, as beam search wants them.

        Nothing is copied until one of those that share a block appends to it.
        """
        rows = device.to(device.as_array(sequences, np.int64), "cpu").reshape(-1)
        tables, lengths = self._tables[rows], self._lengths[:, rows]
        self._pool.hold(tables)
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._list(tables, lengths)
        return other

    def __copy__(self: Self) -> Self:
        return self.take(range(len(self)))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(layers={self.layers}, kv_heads={self.kv_heads}, "
            f"head_dim={self.head_dim}, block_size={self.block_size}, dtype={self.dtype}, "
            + ("" if self.device == "cpu" else f"device={self.device}, ")
            + f"sequences={len(self)})"
        )

    # ---- blocks ------------------------------------------------------------------------------------------

    def _list(self, tables: Tables, lengths: Integers) -> None:
        """Have these sequences, whose blocks others may list too."""
        self._tables, self._lengths = tables, lengths
        self._sent: dict[str, tuple[Integers, Any]] = {}
        # tokens that a layer may add before it must look at blocks; who lists them later copies them first
        self._room = [0] * len(lengths)

    def _reserve(self, start: Integers, end: Integers) -> None:
        """Have blocks of its own for the tokens start … end of each sequence, or raise and change nothing."""
        if (end > self._most).any():
            raise ValueError(
                f"KVCache: length: expected at most the capacity {self._most}, got {end.max()}"
            )
        self._tables = self._pool.reserve(self._tables, start, end, self._lengths.max(0))
        size, lengths = self.block_size, self._lengths
        own = np.where(end > start, -(-end // size) * size, 0)
        below = (lengths < start // size * size).any(1)
        self._room = np.where(below, 0, (own - lengths).min(1, initial=_MOST)).tolist()

    def _there(self, name: str, array: NDArray[Any]) -> Any:
        """`array` where the keys and values are; sent again under its name only where it has changed."""
        if self.device == "cpu":
            return array
        sent = self._sent.get(name)
        if sent is None or not np.array_equal(sent[0], array):
            sent = self._sent[name] = array.copy(), device.to(array, self.device)
        return sent[1]

    # ---- arguments ---------------------------------------------------------------------------------------

    def _array(self, name: str, x: Any, dim: int, heads: int | str) -> NDArray[Any]:
        """`x` as an array (sequences, heads, length, dim), where a word allows any size."""
        if isinstance(x, Tensor):
            if x.requires_grad and mode.enabled:
                raise RuntimeError(
                    f"{type(self).__name__}: {name}: expected no_grad(), "
                    "got a Tensor that requires grad"
                )
            x = x._data
        array = device.as_array(x)
        if device.place_of(array) != self.device:
            raise TypeError(
                f"{type(self).__name__}: {name} device: expected {self.device}, "
                f"got {device.place_of(array)}"
            )
        if not is_floating(array.dtype):
            raise TypeError(
                f"{type(self).__name__}: {name} dtype: expected floating point, got {array.dtype}"
            )
        shape = array.shape
        fits = len(shape) == 4 and shape[0] == len(self._tables) and shape[3] == dim
        if not fits or heads not in (shape[1], "heads"):
            raise ValueError(
                f"{type(self).__name__}: {name} shape: expected "
                f"({len(self)}, {heads}, length, {dim}), got {shape}"
            )
        return array

    def _counts(self, counts: ArrayLike, n: int) -> Integers:
        added = self._integers("counts", counts)
        if (added < 0).any() or (added > n).any():
            raise ValueError(f"{type(self).__name__}: counts: expected 0 to {n}, got {added}")
        return added

    def _integers(self, name: str, values: ArrayLike) -> Integers:
        array: NDArray[Any] = device.to(device.as_array(values), "cpu")
        if array.dtype.kind not in "iu":
            raise TypeError(
                f"{type(self).__name__}: {name} dtype: expected integers, got {array.dtype}"
            )
        if array.shape not in ((), (len(self),)):
            raise ValueError(
                f"{type(self).__name__}: {name} shape: expected ({len(self)},), got {array.shape}"
            )
        return array.astype(np.int64)

    def _expect(self, minimum: int = 1, **values: int) -> None:
        for name, value in values.items():
            if value < minimum:
                raise ValueError(
                    f"{type(self).__name__}: {name}: expected >= {minimum}, got {value}"
                )


class KVCache(Cache):
    """A cache whose sequences lie in one piece each, with room for `capacity` tokens.

    Args:
        layers, kv_heads, head_dim: of the model.
        capacity: tokens of a sequence at most.
        batch: sequences, empty at first.
        value_dim: of the values, `head_dim` by default.
        dtype: float32, float64, float16, bfloat16, or int8 with a scale for each token and head.
        device: "cpu", "cuda" or "cuda:1", as of the model.

    Example:
        >>> cache = KVCache(layers=1, kv_heads=2, head_dim=8, capacity=64)
        >>> key = value = query = np.ones((1, 2, 5, 8), np.float32)
        >>> cache.append(0, key, value)
        >>> cache.attend(0, query).shape
        (1, 2, 5, 8)
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        batch: int = 1,
        *,
        value_dim: int | None = None,
        dtype: DTypeLike = np.float32,
        device: str = "cpu",
    ) -> None:
        self._expect(capacity=capacity)
        self._expect(0, batch=batch)
        blocks = max(batch, 1)
        super().__init__(
            layers, kv_heads, head_dim, value_dim, batch, blocks, capacity, dtype, True, device
        )
        self._most = capacity

    @property
    def capacity(self) -> int:
        """The tokens that each sequence has room for."""
        return self.block_size


class PagedKVCache(Cache):
    """A cache whose sequences take blocks of `block_size` tokens from one pool as they grow.

    Sequences come and go with `allocate`, `fork` and `free`, and start with none. An append that needs more
    blocks than are free raises MemoryError and changes nothing: free or truncate a sequence, and try again.

    Args:
        layers, kv_heads, head_dim, value_dim, dtype, device: as of `KVCache`.
        blocks: in the pool, for all sequences.
        block_size: tokens of a block, 16 to 256.

    Example:
        >>> cache = PagedKVCache(layers=1, kv_heads=2, head_dim=8, blocks=16, block_size=16)
        >>> prompt = cache.allocate()
        >>> key = value = np.ones((1, 2, 40, 8), np.float32)
        >>> cache.append(0, key, value)
        >>> answers = [prompt, cache.fork(prompt)]  # they share the prompt's blocks
        >>> cache.free_blocks
        13
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        blocks: int,
        block_size: int = 64,
        *,
        value_dim: int | None = None,
        dtype: DTypeLike = np.float32,
        device: str = "cpu",
    ) -> None:
        if not 16 <= block_size <= 256:
            raise ValueError(f"PagedKVCache: block_size: expected 16 to 256, got {block_size}")
        super().__init__(
            layers, kv_heads, head_dim, value_dim, 0, blocks, block_size, dtype, False, device
        )

    @property
    def free_blocks(self) -> int:
        """The blocks that no sequence holds."""
        return len(self._pool.free())

    def allocate(self) -> int:
        """Add an empty sequence; returns its number, the last one."""
        self._list(
            np.pad(self._tables, ((0, 1), (0, 0)), constant_values=-1),
            np.pad(self._lengths, ((0, 0), (0, 1))),
        )
        return len(self) - 1

    def fork(self, sequence: int) -> int:
        """Add a sequence that begins as `sequence` does, without a copy; returns its number, the last one."""
        self.extend(self.take([sequence]))
        return len(self) - 1

    def extend(self, other: PagedKVCache) -> None:
        """Add the sequences of `other`, which a `take` of this cache gave: requests that join a batch."""
        if other._pool is not self._pool:
            raise ValueError("PagedKVCache: other: expected a cache with the same pool")
        width = max(self._tables.shape[1], other._tables.shape[1])
        self._pool.hold(other._tables)
        tables = np.concatenate([widened(t, width) for t in (self._tables, other._tables)])
        self._list(tables, np.concatenate([self._lengths, other._lengths], 1))

    def free(self, sequence: int) -> None:
        """Drop a sequence; those after it move up by one, as in a list."""
        row = range(len(self))[sequence]
        self._pool.hold(self._tables[row], -1)
        self._list(np.delete(self._tables, row, 0), np.delete(self._lengths, row, 1))
