"""Arrays on a GPU go through `vectile.ops` to the device's ops and come back as their library's."""

import importlib

import numpy as np
import pytest
from on_device import EMULATED, cuda, needs_device

import vectile
from vectile import device, ops


class Foreign:
    """An array of a library of its own that says it is on a GPU; its memory is what the tests have."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return 2, 0


@pytest.fixture
def foreign(monkeypatch):
    """Makes arrays of the library, whose stream is 0."""
    if not EMULATED:
        pytest.skip("a GPU has libraries of its own")
    monkeypatch.setattr(device, "kernels", lambda: cuda)
    library = device.Library(lambda x: Foreign(np.from_dlpack(x)), lambda: 0)
    monkeypatch.setitem(device._known, Foreign, library)
    return Foreign


@needs_device
def test_results_are_arrays_of_the_library(foreign, rng):
    x = rng.standard_normal((3, 5)).astype(np.float32)
    y = ops.softmax(foreign(x), 0)
    assert type(y) is Foreign
    np.testing.assert_allclose(y.values, ops.softmax(x, 0), rtol=1e-6)
    out = foreign(np.empty_like(x))
    assert ops.softmax(foreign(x), out=out) is out
    np.testing.assert_allclose(out.values, ops.softmax(x), rtol=1e-6)


@needs_device
def test_errors_are_those_of_the_cpu(foreign):
    for x in (np.zeros((2, 2), np.int32), np.zeros((), np.float32)):
        with pytest.raises((TypeError, ValueError)) as host:
            ops.softmax(x)
        with pytest.raises(host.type) as found:
            ops.softmax(foreign(x))
        assert str(found.value) == str(host.value)


@needs_device
def test_an_op_without_a_device_kernel_says_so(foreign):
    with pytest.raises(TypeError, match=r"max_pool: arrays device: expected the CPU, got a GPU"):
        ops.max_pool2d(foreign(np.zeros((1, 1, 4, 4), np.float32)), 2)


def test_what_is_missing_is_said(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(RuntimeError, match="VECTILE_CUDA=ON"):
        device.kernels()
    assert not device.available()

    class Module:
        @staticmethod
        def device_count():
            return 0

    monkeypatch.setattr(importlib, "import_module", lambda name: Module)
    with pytest.raises(RuntimeError, match="expected a GPU and its driver, found none"):
        device.kernels()


def test_host_memory_of_other_libraries_stays_on_the_cpu():
    torch = pytest.importorskip("torch")
    assert not device.on_device(torch.zeros(2)) and not device.on_device(np.zeros(2))
    y = ops.exp(torch.zeros(2))
    assert isinstance(y, np.ndarray) and vectile.config()["isa"]
