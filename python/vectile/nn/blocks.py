"""A pool of blocks of cached tokens, which the tables of several caches list."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectile import device

Integers = NDArray[np.int64]
Tables = NDArray[np.int32]
"""(sequences, columns): the block of each `block_size` tokens of a sequence, -1 for none."""


class Pool:
    """Blocks of every layer's keys and values, and how many entries of tables list each.

    `grows`: more blocks are made where too few are free, else that is a MemoryError.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        head_dim: int,
        value_dim: int,
        dtype: np.dtype[Any],
        grows: bool,
        place: str,
    ) -> None:
        """`shape`: layers, blocks, kv_heads, block_size. `place`: where the blocks are; all else is here."""
        self.arrays = {
            "key_cache": device.empty((*shape, head_dim), dtype, place),
            "value_cache": device.empty((*shape, value_dim), dtype, place),
        }
        if dtype == np.int8:  # one scale for each token and head
            for name in ("key_scales", "value_scales"):
                self.arrays[name] = device.empty(shape, np.float32, place)
        self.place = device.place_of(self.arrays["key_cache"])
        self.block_size, self.grows = shape[3], grows
        self.holders = np.zeros(shape[1], np.int64)
        self.layers = self._layers()

    def _layers(self) -> list[dict[str, Any]]:
        """The arrays of each layer, (blocks, kv_heads, block_size[, dim])."""
        names, arrays = self.arrays.keys(), self.arrays.values()
        return [dict(zip(names, of, strict=True)) for of in zip(*arrays, strict=True)]

    def hold(self, blocks: NDArray[Any], count: int = 1) -> None:
        """Note that `blocks`, those of -1 aside, are listed `count` times more."""
        self.holders += count * np.bincount(blocks[blocks >= 0], minlength=len(self.holders))

    def free(self) -> Integers:
        """The blocks that no table lists."""
        return np.flatnonzero(self.holders == 0)

    def reserve(self, tables: Tables, start: Integers, end: Integers, lengths: Integers) -> Tables:
        """Tables that list blocks of their own for the tokens start … end of each sequence.

        A block that others list too is copied, of `lengths` tokens in all layers. MemoryError if blocks are
        missing; nothing has changed then.
        """
        first, last = start // self.block_size, -(-end // self.block_size)
        tables = widened(tables, int(last.max(initial=0)))
        columns = np.arange(tables.shape[1])
        written = (columns >= first[:, None]) & (columns < last[:, None]) & (end > start)[:, None]
        missing = written & (tables < 0)
        rows, places = np.nonzero(written & ~missing & (self.holders[tables] > 1))
        listed, first, writers = np.unique(
            tables[rows, places], return_index=True, return_counts=True
        )
        copied = np.ones(len(rows), bool)  # where all that list a block write to it, one keeps it
        copied[first[writers == self.holders[listed]]] = False
        rows, places, fresh = rows[copied], places[copied], int(missing.sum())
        if fresh + len(rows):
            blocks = self._take(fresh + len(rows))
            if len(rows):
                filled = lengths[rows] - places * self.block_size
                old, new = tables[rows, places], blocks[fresh:]
                self._copy(old, new, min(int(filled.max()), self.block_size))
                self.hold(old, -1)
                tables[rows, places] = new
            tables[missing] = blocks[:fresh]
            self.hold(blocks)
        return tables

    def _take(self, count: int) -> Integers:
        free = self.free()
        if len(free) < count and self.grows:
            self._grow(len(self.holders) + count - len(free))
            free = self.free()
        if len(free) < count:
            raise MemoryError(
                f"PagedKVCache: pool: expected {count} free blocks, got {len(free)} "
                f"of {len(self.holders)}"
            )
        return free[:count]

    def _grow(self, blocks: int) -> None:
        """Have at least so many blocks."""
        blocks = max(blocks, len(self.holders) * 3 // 2)
        for name, array in self.arrays.items():
            shape = array.shape[0], blocks, *array.shape[2:]
            self.arrays[name] = device.empty(shape, array.dtype, self.place)
            self.arrays[name][:, : array.shape[1]] = array
        self.holders = np.pad(self.holders, (0, blocks - len(self.holders)))
        self.layers = self._layers()

    def _copy(self, source: NDArray[Any], target: Integers, tokens: int) -> None:
        """Copy the first tokens of the blocks `source` into `target`."""
        source, target = (device.to(blocks, self.place) for blocks in (source, target))
        for array in self.arrays.values():
            array[:, target, :, :tokens] = array[:, source, :, :tokens]


def widened(tables: Tables, columns: int) -> Tables:
    """`tables` with at least so many columns."""
    more = columns - tables.shape[1]
    return np.pad(tables, ((0, 0), (0, more)), constant_values=-1) if more > 0 else tables
