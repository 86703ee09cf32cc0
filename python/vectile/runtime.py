"""What this build and machine offer: tier, threads, memory, versions."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vectile import _core

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16))


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether ops compute on ``dtype``: float16, bfloat16 (of ml_dtypes), float32 or float64."""
    return dtype in _FLOATS or (dtype.kind == "V" and dtype.name == "bfloat16")


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is float16 or bfloat16, which ops store and compute on in float32."""
    return dtype.itemsize == 2 and is_floating(dtype)


def named_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """``np.dtype(dtype)``, which knows the names of ml_dtypes once that is imported."""
    if isinstance(dtype, str):
        import ml_dtypes  # noqa: F401
    return np.dtype(dtype)


def config() -> dict[str, Any]:
    """Return the configuration as a dictionary that is ready for JSON.

    Keys: ``version``, ``isa`` (the tier in use), ``supported_isas``, ``emulated_isas`` (those of them
    that a build for tests runs slowly without the hardware), ``built_isas``, ``cpu``, ``threads``,
    ``threads_from``, ``compiler``, ``arithmetic_16`` (of ``fp16`` and ``bf16`` what the tier multiplies in
    faster than in float32, which decides what ``compute=`` does, and for bfloat16 arrays what runs without
    it), ``python``, ``numpy``, ``platform``.
    """
    units = {"fp16": _core.uses_f16(), "bf16": _core.uses_bf16()}
    return {
        **_core.config(),
        "arithmetic_16": [name for name, used in units.items() if used],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{sys.platform} {platform.machine()}",
    }


def show_config() -> None:
    """Print :func:`config`, one setting a line."""
    for key, value in config().items():
        print(f"{key:15} {', '.join(value) if isinstance(value, list) else value}")


def get_num_threads() -> int:
    """Return how many threads a kernel may use."""
    return _core.get_num_threads()


def set_num_threads(n: int) -> None:
    """Let kernels use up to ``n`` threads (1 to 4096); results do not depend on it.

    Raises:
        ValueError: ``n`` is out of range.
    """
    _core.set_num_threads(n)


def empty(shape: Sequence[int], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Return an array with arbitrary content from the allocator that results come from.

    It is 64-byte aligned and, once the cache is warm, costs no page fault: a place for ``out=``.

    Raises:
        TypeError: ``dtype`` is not a boolean, integer or floating-point type of the kernels.
        ValueError: a length is negative, or there are more than 16.
        MemoryError, OverflowError: too many bytes.
    """
    return _core.empty(shape, np.dtype(dtype))


def memory_stats() -> dict[str, int]:
    """Return the allocator's counters.

    ``in_use``, ``peak_in_use``, ``cached`` and ``limit`` are bytes; ``hits`` and ``misses`` count
    allocations served from the cache and from the system.
    """
    return _core.memory_stats()


def empty_cache() -> None:
    """Give memory that is kept for reuse back to the system."""
    _core.empty_cache()
