"""Fixtures shared by every test: the tier in use, the thread count, a seeded generator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from on_device import older_device, small_device

import vectile
from vectile import _core

DEFAULT_ISA: str = vectile.config()["isa"]
THREADS = (1, 2, 5)


# The tests of the few families that a tier has of its own: elsewhere it would repeat its base.
INT8 = {"test_gemm_s4", "test_gemm_s8", "test_linear_quantized", "test_machine", "test_precision"}
BITS_16 = {"test_gemm_16", "test_gemm_bf16", "test_gemm_f16"}
OF_TIER = {
    "avx_vnni": INT8,
    "avx512_vnni": INT8,
    "avx512_bf16": BITS_16,
    "avx512_fp16": BITS_16,
    "amx": INT8 | BITS_16 | {"test_gemm_half", "test_half"},  # which it serves unasked
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "isa" in metafunc.fixturenames:
        module = metafunc.module.__name__
        tiers = vectile.config()["supported_isas"]
        swept = [t for t in tiers if t not in OF_TIER or module in OF_TIER[t]]
        metafunc.parametrize("isa", swept, indirect=True)


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on every tier of this CPU."""
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(DEFAULT_ISA)


@pytest.fixture
def always() -> Iterator[None]:
    """Multiply in 16-bit arithmetic wherever the tier has it, whatever is faster."""
    _core.set_always_16(True)
    yield
    _core.set_always_16(None)


@pytest.fixture(params=[np.float32, np.float64], ids=["f32", "f64"])
def dtype(request: pytest.FixtureRequest) -> type:
    """Run the test once per floating-point dtype."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with a fixed seed."""
    return np.random.default_rng(1234)


@pytest.fixture
def same_for_any_thread_count():
    """Call f() with 1, 2 and 5 threads and require bitwise equal arrays; return the first result."""
    before = vectile.get_num_threads()

    def check(f):
        results = []
        for n in THREADS:
            vectile.set_num_threads(n)
            r = f()
            results.append(r if isinstance(r, tuple) else (r,))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        return results[0] if len(results[0]) > 1 else results[0][0]

    yield check
    vectile.set_num_threads(before)


@pytest.fixture
def before_hopper() -> Iterator[None]:
    """Have device ops use the kernels that serve every device."""
    with older_device():
        yield


@pytest.fixture
def few_multiprocessors() -> Iterator[None]:
    """Have device ops take tiles, and go over them, as if the device were small."""
    with small_device():
        yield
