"""Arrays on a GPU go through `vectile.ops` to the device's ops and come back as their library's."""

import importlib
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from gpu_array import GpuArray, Kernels, cupy
from on_device import EMULATED, cuda, needs_device

import vectile
from vectile import Tensor, device, nn, ops


@pytest.fixture
def gpu(monkeypatch):
    """Arrays that say they are on a GPU, `cupy` that makes them, and the emulation as the device's ops."""
    if not EMULATED:
        pytest.skip("a GPU has libraries of its own")
    monkeypatch.setattr(device, "kernels", lambda: Kernels(cuda))
    library = device.Library(lambda x: GpuArray(np.from_dlpack(x)), lambda _: 0)
    monkeypatch.setitem(device._known, GpuArray, library)
    monkeypatch.setitem(sys.modules, "cupy", cupy())
    return GpuArray


@needs_device
def test_results_are_arrays_of_the_library(gpu, rng):
    x = rng.standard_normal((3, 5)).astype(np.float32)
    y = ops.softmax(gpu(x), 0)
    assert type(y) is GpuArray
    np.testing.assert_allclose(y.values, ops.softmax(x, 0), rtol=1e-6)
    out = gpu(np.empty_like(x))
    assert ops.softmax(gpu(x), out=out) is out
    np.testing.assert_allclose(out.values, ops.softmax(x), rtol=1e-6)


@needs_device
def test_errors_are_those_of_the_cpu(gpu):
    for x in (np.zeros((2, 2), np.int32), np.zeros((), np.float32)):
        with pytest.raises((TypeError, ValueError)) as host:
            ops.softmax(x)
        with pytest.raises(host.type) as found:
            ops.softmax(gpu(x))
        assert str(found.value) == str(host.value)


@needs_device
def test_tf32_is_for_the_device(gpu, rng):
    a, b = rng.standard_normal((2, 8, 8)).astype(np.float32)
    y = ops.matmul(gpu(a), gpu(b), compute="tf32").values
    bound = (2.0**-10 + 8 * 2.0**-23) * (abs(a) @ abs(b))  # two roundings to 11 bits
    exact = a.astype(np.float64) @ b
    assert (abs(y - exact) <= bound).all() and abs(y - exact).max() > 1e-5
    with pytest.raises(ValueError, match="compute value: expected None, 'fp16' or 'bf16', got"):
        ops.matmul(a, b, compute="tf32")


@needs_device
def test_a_tensor_counts_as_its_array(gpu, rng):
    """On either: what is read may be a Tensor, the gradient aside; what is written may not."""
    x = rng.standard_normal((3, 5)).astype(np.float32)
    for to, kind in ((np.array, np.ndarray), (lambda a: gpu(a.copy()), gpu)):
        t = Tensor(to(x), requires_grad=True)
        ids = Tensor(to(np.array([2, 0])))
        found = [
            ops.softmax(t),
            ops.add(t, 1.0),
            ops.linear(t, nn.Parameter(to(x))),
            ops.embedding(ids, t),
            *ops.layer_norm(t, return_stats=True),
        ]
        assert {type(y) for y in found} == {kind}
        assert found[0] is not t.data and ops.global_norm([t]) == pytest.approx(
            np.linalg.norm(x), rel=1e-6
        )
        np.testing.assert_array_equal(device.to(found[3], "cpu"), x[[2, 0]])
        with pytest.raises(TypeError, match=r"softmax: out type: expected .*, got Tensor"):
            ops.softmax(t, out=Tensor(to(x)))
        with pytest.raises(TypeError, match=r"sgd_: params type: expected .*, got Tensor"):
            ops.sgd_([t], [to(x)], lr=0.1)
        mean = Tensor(to(np.zeros(5, np.float32)))
        with pytest.raises(TypeError, match=r"running_mean type: expected .*, got Tensor"):
            ops.batch_norm(t, mean, to(np.ones(5, np.float32)), training=True)


@needs_device
def test_an_op_without_a_device_kernel_says_so(gpu):
    with pytest.raises(TypeError, match=r"max_pool: arrays device: expected the CPU, got a GPU"):
        ops.max_pool2d(gpu(np.zeros((1, 1, 4, 4), np.float32)), 2)


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


def test_a_stream_of_cupy_outlives_what_was_made_on_it(monkeypatch):
    class Stream:
        ptr = 8

    made = [Stream()]
    current = SimpleNamespace(get_current_stream=lambda gpu: made[gpu])
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(from_dlpack=None, cuda=current))
    library, alive = device.LIBRARIES["cupy"](), weakref.ref(made[0])
    assert library.stream(0) == 8
    made.clear()
    assert alive() is not None


def test_host_memory_of_other_libraries_stays_on_the_cpu():
    torch = pytest.importorskip("torch")
    assert not device.on_device(torch.zeros(2)) and not device.on_device(np.zeros(2))
    y = ops.exp(torch.zeros(2))
    assert isinstance(y, np.ndarray) and vectile.config()["isa"]


def test_places():
    assert device.place_of(np.zeros(2)) == "cpu"
    assert device.place_of(GpuArray(np.zeros(2))) == "cuda:0"
    assert [device.is_place(x) for x in ("cpu", "cuda", "cuda:1", "cuda:", "gpu", np.float32)] == [
        *[True] * 3,
        *[False] * 3,
    ]
    with pytest.raises(
        ValueError, match=r"to: device: expected 'cpu', 'cuda' or 'cuda:0', got 'gpu'"
    ):
        device.to(np.zeros(2), "gpu")


@needs_device
def test_a_tensor_moves_with_its_gradient(gpu, rng):
    x = Tensor(rng.standard_normal((3, 4)).astype(np.float32), requires_grad=True)
    y = x.to("cuda")
    assert type(y.data) is GpuArray and y.to("cuda") is y
    with pytest.raises(TypeError, match="expected the CPU, got a GPU"):
        np.asarray(y)
    z = y.softmax()[:, :2].to("cpu")
    z.backward(np.ones((3, 2), np.float32))
    want = Tensor(x.numpy(), requires_grad=True)
    want.softmax()[:, :2].backward(np.ones((3, 2), np.float32))
    np.testing.assert_allclose(z.numpy(), want.softmax().numpy()[:, :2], rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), want.grad.numpy(), atol=1e-7)
    assert "tensor([[" in repr(y)
