"""Arrays of CuPy and torch on a GPU: their results, streams and devices. Nothing of it is emulated."""

import numpy as np
import pytest
from on_device import EMULATED, cuda

from vectile import Tensor, device, nn, ops, optim

pytestmark = pytest.mark.skipif(cuda is None or EMULATED, reason="no GPU")


def made(name, x):
    library = pytest.importorskip(name)
    if name == "cupy":
        return library.asarray(x)
    if not library.cuda.is_available():
        pytest.skip("torch without CUDA")
    return library.from_numpy(x).cuda()


def fetched(y):
    return y.get() if hasattr(y, "get") else y.cpu().numpy()


LIBRARIES = pytest.mark.parametrize("name", ("cupy", "torch"))


@LIBRARIES
def test_results_are_arrays_of_the_library(name, rng):
    x = rng.standard_normal((3, 5)).astype(np.float32)
    there = made(name, x)
    y = ops.softmax(there)
    assert type(y) is type(there) and device.place_of(y) == device.place_of(there)
    np.testing.assert_allclose(fetched(y), ops.softmax(x), rtol=1e-6)
    out = there * 0
    assert ops.softmax(there, out=out) is out
    np.testing.assert_array_equal(fetched(out), fetched(y))
    np.testing.assert_array_equal(fetched(ops.exp(there.T)), fetched(ops.exp(there)).T)
    assert ops.softmax(there[:0]).shape == (0, 5)


@LIBRARIES
def test_calls_are_in_the_order_of_the_current_stream(name, rng):
    library, x = pytest.importorskip(name), rng.standard_normal((2000, 2000)).astype(np.float32)
    there = made(name, x)
    library.cuda.Device().synchronize() if name == "cupy" else library.cuda.synchronize()
    if name == "cupy":
        stream = library.cuda.Stream(non_blocking=True)
        entered = stream
    else:
        stream = library.cuda.Stream()
        entered = library.cuda.stream(stream)
    with entered:
        y = there
        for _ in range(20):  # each on what the one before it left
            y = ops.add(y + 1, 1.0)
        found = fetched(y)
    np.testing.assert_allclose(found, x + 40, atol=1e-4)


def test_a_step_on_cupy(rng):
    pytest.importorskip("cupy")
    found = []
    for place in ("cpu", "cuda"):
        model = nn.Linear(5, 3).to(place)
        for p in model.parameters():
            p.data[...] = 0.5
        optimizer = optim.AdamW(model.parameters(), lr=0.1)
        x = Tensor(np.arange(10, dtype=np.float32).reshape(2, 5)).to(place)
        for _ in range(3):
            optimizer.zero_grad()
            (model(x) * model(x)).mean().backward()
            optimizer.step()
        found.append([device.to(p.data, "cpu") for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
