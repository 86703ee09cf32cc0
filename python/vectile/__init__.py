"""vectile: SIMD kernels for deep learning on NumPy arrays, and the layers that train on them."""

from vectile import autograd, machine, nn, ops, optim
from vectile.autograd import *  # noqa: F403
from vectile.random import manual_seed
from vectile.runtime import (
    config,
    empty,
    empty_cache,
    get_num_threads,
    memory_stats,
    set_num_threads,
    show_config,
)

__version__: str = str(config()["version"])

__all__ = [
    "__version__",
    "autograd",
    "config",
    "empty",
    "empty_cache",
    "get_num_threads",
    "machine",
    "manual_seed",
    "memory_stats",
    "nn",
    "ops",
    "optim",
    "set_num_threads",
    "show_config",
]
__all__ += autograd.__all__
