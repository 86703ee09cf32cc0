"""vectile: SIMD kernels for deep learning on NumPy arrays, and the layers that train on them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vectile import autograd, machine, ops
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

if TYPE_CHECKING:
    from vectile import nn, optim

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


def __getattr__(name: str) -> Any:
    """Import the layers when they are first asked for: kernels alone start faster."""
    if name in ("nn", "optim"):
        return import_module(f"vectile.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
