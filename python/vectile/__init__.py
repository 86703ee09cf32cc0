"""vectile: SIMD kernels for deep learning on NumPy arrays, and the layers that train on them."""

import sys
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

try:
    from vectile import _core  # noqa: F401
except ImportError as error:  # as a command, VECTILE_ISA's one line is all that there is to say
    if "VECTILE_ISA" in str(error) and PurePath(sys.argv[0]).stem in ("vectile", "-m"):
        raise SystemExit(f"vectile: error: {error}") from None
    raise

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
    from vectile import models, nn, optim, quant, train

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
    "models",
    "nn",
    "ops",
    "optim",
    "quant",
    "set_num_threads",
    "show_config",
    "train",
]
__all__ += autograd.__all__


def __getattr__(name: str) -> Any:
    """Import what is built on the kernels when it is first asked for: they alone start faster."""
    if name in ("models", "nn", "optim", "quant", "train"):
        return import_module(f"vectile.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
