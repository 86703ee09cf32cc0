"""Device ops in the tests: on a GPU where there is one, else emulated on the host, else skipped."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest


def _module() -> Any:
    for name in ("_cuda", "_cuda_emulated"):
        try:
            module = importlib.import_module(f"vectile.{name}")
        except ImportError:
            continue
        if module.device_count():
            return module
    return None


cuda = _module()
EMULATED = cuda is not None and cuda.device_name() == "emulated"
NO_DEVICE = "no GPU, and no emulation of one (VECTILE_CUDA=EMULATED)"
needs_device = pytest.mark.skipif(cuda is None, reason=NO_DEVICE)
needs_emulation = pytest.mark.skipif(
    not EMULATED, reason="the emulation alone takes NumPy's memory" if cuda else NO_DEVICE
)


@contextlib.contextmanager
def _limited(limit: str, to: int) -> Iterator[None]:
    before = getattr(cuda, limit)(to)
    try:
        yield
    finally:
        getattr(cuda, limit)(before)


def older_device() -> contextlib.AbstractContextManager[None]:
    """Without the kernels for devices after sm_80."""
    return _limited("limit_architecture", 80)


def small_device() -> contextlib.AbstractContextManager[None]:
    """With as few multiprocessors as the emulation has: small arrays then take the kernels for large ones."""
    return _limited("limit_multiprocessors", 2)


def dev(x: Any) -> Any:
    """A NumPy array, or a tuple or list of them, on the device.

    The emulation takes NumPy's own memory, strides included.
    """
    if isinstance(x, (tuple, list)):
        return type(x)(map(dev, x))
    if not isinstance(x, np.ndarray):
        return x
    if EMULATED and x.dtype.isbuiltin == 1 and x.dtype.kind in "biuf":
        return x
    return cuda.from_host(np.ascontiguousarray(x).tobytes(), list(x.shape), x.dtype.name)


def host(y: Any) -> Any:
    if isinstance(y, tuple):
        return tuple(map(host, y))
    if y is None:
        return None
    data, shape, dtype = cuda.to_host(y)
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)


def run(name: str, *arguments: Any, **options: Any) -> Any:
    """Call a device op on NumPy arrays; what it returns as NumPy arrays."""
    options = {key: dev(value) for key, value in options.items()}
    return host(getattr(cuda, name)(*map(dev, arguments), **options))
