"""What training on a device keeps: state, checkpoints, optimisers, clipping, averages, quantised layers."""

import copy
import pickle

import numpy as np
import pytest
from gpu_array import GpuArray, here, there
from on_device import needs_device
from test_device import gpu  # noqa: F401  (a fixture)

import vectile
from vectile import Tensor, checkpoint, nn, ops, optim, quant

pytestmark = [needs_device, pytest.mark.usefixtures("gpu")]


def network(place="cuda"):
    vectile.manual_seed(0)
    layers = nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    return nn.Sequential(*layers).to(place)


def kinds(arrays):
    return {type(x) for x in arrays}


def test_state_comes_and_goes(tmp_path):
    pytest.importorskip("safetensors")
    model = network()
    model(there(np.ones((3, 4), np.float32), "cuda")).sum().backward()
    state = model.state_dict()
    assert kinds(state.values()) == {GpuArray}
    checkpoint.save(tmp_path / "m", state, {"kept": 1})
    saved, _ = checkpoint.load(tmp_path / "m")
    for source, place in ((state, "cpu"), (saved, "cpu"), (saved, "cuda"), (state, "cuda")):
        other = network(place).float()
        other.load_state_dict(source)
        loaded = other.state_dict()
        assert kinds(loaded.values()) == {np.ndarray if place == "cpu" else GpuArray}
        for key, array in state.items():
            np.testing.assert_array_equal(here(loaded[key]), here(array))
    with pytest.raises(ValueError, match=r"0.weight shape: expected \(8, 4\), got \(2,\)"):
        model.load_state_dict({**state, "0.weight": there(np.zeros(2), "cuda")})
    np.testing.assert_array_equal(checkpoint.plain(state)["3.bias"], here(state["3.bias"]))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_modules_change_their_type_there(dtype):
    model = network().to(dtype)
    want = network("cpu").to(dtype).state_dict().values()
    for a, b in zip(model.state_dict().values(), want, strict=True):
        assert type(a) is GpuArray and a.dtype == b.dtype
        np.testing.assert_array_equal(here(a), b)
    x = np.ones((2, 4), dtype)
    assert model(there(x, "cuda")).dtype == dtype
    back = model.to("cpu")
    assert kinds(back.state_dict().values()) == {np.ndarray} and back(x).dtype == dtype


def test_copies_and_new_weights_stay_there():
    model = copy.deepcopy(network())
    assert kinds(model.state_dict().values()) == {GpuArray}
    for fill in (nn.init.zeros_, nn.init.normal_, nn.init.xavier_uniform_):
        assert type(fill(model[0].weight).data) is GpuArray
    embedding = nn.Embedding(4, 3, padding_idx=0).to("cuda")
    embedding.reset_parameters()
    assert type(embedding.weight.data) is GpuArray and not here(embedding.weight)[0].any()


def test_tensors_tell_what_they_hold():
    t = Tensor(there(np.arange(6.0, dtype=np.float32).reshape(2, 3), "cuda"), requires_grad=True)
    assert t.tolist() == [[0, 1, 2], [3, 4, 5]] and t[1, 2].item() == 5 and 4 in t
    assert f"{t[0, 1]:.2f}" == "1.00" and f"{t}" == str(here(t)) and float(t.sum()) == 15
    assert type(pickle.loads(pickle.dumps(t)).data) is GpuArray
    assert kinds(row.data for row in t) == {GpuArray}
    copied = vectile.tensor(t).zero_()
    assert t.tolist()[1][2] == 5 and copied.tolist() == [[0.0] * 3] * 2
    assert t.__dlpack_device__() == (2, 0) and type(t.numpy()) is GpuArray


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (optim.SGD, {"momentum": 0.9}),
        (optim.Adam, {}),
        (optim.AdamW, {}),
        (optim.RMSprop, {"momentum": 0.5}),
    ],
)
def test_optimisers_resume(kind, options):
    """Three steps, the last of them by another optimiser with the state of the first."""
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    found = []
    for place in ("cpu", "cuda"):
        model = network(place)
        average = optim.EMA(model)
        optimizer = kind(model.parameters(), lr=0.01, **options)
        schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        inputs = there([x, np.array([0, 1, 2, 1, 0])], place)
        for step in range(3):
            if step == 2:
                state = optimizer.state_dict()
                optimizer = kind(model.parameters(), lr=0.01, **options)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs[0]), inputs[1])
            (loss + optim.penalty(model.parameters(), l1=0.01, l2=0.01)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            nn.utils.clip_grad_value_(model.parameters(), 0.3)
            optimizer.step()
            schedule.step()
            average.update()
        kept = optimizer.state_dict()["state"].values()
        arrays = [a for s in kept for a in s.values() if not isinstance(a, int)]
        assert kinds(arrays) == {np.ndarray if place == "cpu" else GpuArray}
        found.append([*model.state_dict().values(), *average.model.state_dict().values()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(here(b), a, rtol=0, atol=1e-4)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, np.inf])
def test_clipping(p, rng):
    found = []
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5), (7,), (0,))]
    for place in ("cpu", "cuda"):
        tensors = [Tensor(there(a, place), requires_grad=True) for a in arrays]
        sum((t * t).sum() for t in tensors).backward()
        norm = nn.utils.clip_grad_norm_(tensors, 0.5, p)
        found.append([np.float64(float(norm)), *(here(t.grad) for t in tensors)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, rtol=2.0**-20)
    assert isinstance(norm, Tensor) == (p == 2)
    again = nn.utils.clip_grad_norm_(tensors, 1.0, p, error_if_nonfinite=True)
    np.testing.assert_allclose(again, 0.5, rtol=1e-5)


def test_the_fused_clipping_is_noticed_by_backward(rng):
    t = Tensor(there(rng.standard_normal(4).astype(np.float32), "cuda"), requires_grad=True)
    (t * t).sum().backward()
    later = (Tensor(t.grad, requires_grad=True) ** 3).sum()
    nn.utils.clip_grad_norm_(t, 1e-3)
    with pytest.raises(RuntimeError, match="clip_grad_norm_ changed it in place"):
        later.backward()
    t.grad.data[:] = np.inf
    with pytest.raises(RuntimeError, match="norm: expected a finite value, got inf"):
        nn.utils.clip_grad_norm_(t, 1.0, error_if_nonfinite=True)


@pytest.mark.parametrize(
    "scheme", [{}, {"symmetric": False}, {"bits": 4, "group_size": 32}], ids=str
)
def test_quantised_layers(scheme, rng):
    x = rng.standard_normal((3, 40)).astype(np.float32)

    def made(place):
        vectile.manual_seed(1)
        return nn.Sequential(nn.Linear(40, 6), nn.Tanh()).to(place)

    host = quant.quantize_dynamic(made("cpu"), **scheme)
    moved = copy.deepcopy(host).to("cuda")
    there_made = quant.quantize_dynamic(made("cuda"), **scheme)
    steps = host[0].matrix.dequantize()
    bound = np.abs(steps).sum(1) * np.abs(x).max() / 127 if "bits" in scheme else 2.0**-18
    for model in (moved, there_made):
        assert np.all(np.abs(here(model(there(x, "cuda"))) - host(x).data) <= bound)
        assert repr(model) == repr(host) and model[0].scheme() == host[0].scheme()
        assert kinds(model.state_dict().values()) == {GpuArray}
        for (name, a), b in zip(
            host.state_dict().items(), model.state_dict().values(), strict=True
        ):
            np.testing.assert_array_equal(here(b), a, err_msg=name)
    back = moved.to("cpu")
    np.testing.assert_array_equal(back(x).data, host(x).data)
    there_made.load_state_dict(host.state_dict())
    host.load_state_dict(there_made.state_dict())
    np.testing.assert_array_equal(back(x).data, host(x).data)
    assert quant.size_report(there_made) == quant.size_report(host)
    if "bits" not in scheme:
        quant.calibrate(host, [x])
        quant.calibrate(there_made, there([x], "cuda"))
        np.testing.assert_allclose(
            here(there_made(there(x, "cuda"))), host(x).data, rtol=0, atol=2.0**-18
        )


def test_what_quantised_weights_lack_there():
    layer = quant.QuantizedLinear.of(nn.Linear(8, 4), dtype="float8_e4m3fn")
    with pytest.raises(TypeError, match="expected 8 or 4 bits as integers, got float8"):
        layer.to("cuda")
    weight = there(np.ones((4, 8), np.float32), "cuda")
    with pytest.raises(TypeError, match="quantize_fp8: x device: expected the CPU, got a GPU"):
        ops.quantize_weight(weight, dtype="float8_e4m3fn")
    with pytest.raises(TypeError, match="weight bits: expected 8, got 4"):
        ops.quantized_linear(weight, ops.quantize_weight(weight, 4))
    with pytest.raises(ValueError, match="compute value: expected None beside a quantised"):
        ops.linear(weight, ops.quantize_weight(weight), compute="fp16")


def test_scales_may_be_numbers(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    a, b = rng.integers(-9, 9, (2, 4, 4)).astype(np.int8)
    calls = (
        (ops.quantize_linear, (x, 0.1)),
        (ops.quantize_linear, (x, np.float32(0.1), np.int8(3))),
        (ops.dequantize_linear, (a, 0.5)),
        (ops.matmul_integer, (a, b, 2, 3)),
        (ops.qlinear_matmul, (a, 0.1, np.int8(1), b, 0.2, np.int8(0), 0.5, np.uint8(7))),
        (ops.dynamic_quantize_linear, (x,)),
    )
    for op, arguments in calls:
        want = op(*arguments)
        got = op(*(there(y, "cuda") for y in arguments))
        pairs = zip(want, got, strict=True) if isinstance(want, tuple) else [(want, got)]
        for u, v in pairs:
            assert type(v) is GpuArray and v.dtype == u.dtype
            np.testing.assert_allclose(here(v), u, rtol=2.0**-22)
