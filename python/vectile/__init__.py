"""vectile: SIMD kernels for deep learning on NumPy arrays, and the layers that train on them."""

from vectile import machine, ops
from vectile.runtime import (
    config,
    empty_cache,
    get_num_threads,
    memory_stats,
    set_num_threads,
    show_config,
)

__version__: str = str(config()["version"])

__all__ = [
    "__version__",
    "config",
    "empty_cache",
    "get_num_threads",
    "machine",
    "memory_stats",
    "ops",
    "set_num_threads",
    "show_config",
]
