"""What this machine reaches at best, measured now: the denominators of "fraction of peak"."""

from __future__ import annotations

from typing import NamedTuple

from vectile import _core


class Ceilings(NamedTuple):
    """Measured rates of the active tier on the current number of threads."""

    isa: str
    threads: int
    fma_gflops: float
    """float32 multiply-adds out of registers, 10⁹ operations a second (a multiply-add is two)."""
    int8_gops: float
    """int8 dot products into int32 out of registers, 10⁹ operations a second."""
    read_gbs: dict[int, float]
    """10⁹ bytes a second read from a working set of that many bytes."""
    copy_gbs: dict[int, float]
    """10⁹ bytes a second read and written by copying one half of such a working set to the other."""
    stream_gbs: dict[int, float]
    """The same with non-temporal stores, which write around the caches (plain ones on a tier without)."""


WORKING_SETS = (1 << 14, 1 << 18, 1 << 22, 1 << 27)


def ceilings(working_sets: tuple[int, ...] = WORKING_SETS) -> Ceilings:
    """Measure all ceilings; takes about half a second.

    Args:
        working_sets: sizes in bytes for the bandwidths; by default inside the first-level cache,
            the second, the third, and beyond most of them.

    Raises:
        ValueError: a working set below 4096 bytes.
    """
    config = _core.config()
    return Ceilings(
        isa=config["isa"],
        threads=config["threads"],
        fma_gflops=_core.fma_rate() / 1e9,
        int8_gops=_core.dot_s8_rate() / 1e9,
        read_gbs={n: _core.read_rate(n) / 1e9 for n in working_sets},
        copy_gbs={n: _core.copy_rate(n, False) / 1e9 for n in working_sets},
        stream_gbs={n: _core.copy_rate(n, True) / 1e9 for n in working_sets},
    )
