"""Tensors and modules of a half type: forward, backward, optimiser steps, conversion, checkpoints."""

import ml_dtypes
import numpy as np
import pytest

import vectile
from vectile import checkpoint, nn, optim
from vectile.nn import functional as F

HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
U = {HALVES[0]: 2.0**-11, HALVES[1]: 2.0**-8}


@pytest.fixture(params=HALVES, ids=str)
def half(request):
    return request.param


def close(got, want, half, roundings):
    """Within `roundings` roundings to the half type, each of half a unit of the largest value."""
    got, want = np.asarray(got).astype(float), np.asarray(want)
    np.testing.assert_allclose(
        got, want, rtol=0, atol=roundings * U[half] * np.abs(want).max(initial=0)
    )


# A model, its input, and how many roundings in a row stand between input and gradient.
MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 5)), (7, 12), 16),
    "norms": (
        lambda: nn.Sequential(nn.Linear(12, 16), nn.LayerNorm(16), nn.SiLU(), nn.RMSNorm(16)),
        (7, 12),
        32,
    ),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 6)
        ),
        (3, 2, 8, 8),
        64,
    ),
    "attention": (
        lambda: nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True),
        (2, 5, 16),
        64,
    ),
    "lstm": (lambda: nn.LSTM(6, 8), (5, 3, 6), 32),
    "gru": (lambda: nn.GRU(6, 8), (5, 3, 6), 32),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_against_float64(half, rng, name):
    make, shape, roundings = MODELS[name]
    vectile.manual_seed(0)
    model = make().to(half)
    reference = make().double()
    reference.load_state_dict(model.state_dict())
    x = rng.normal(size=shape).astype(half)
    weight = rng.normal(size=100_000).astype(half)

    def run(model, dtype):
        inputs = vectile.tensor(x.astype(dtype), requires_grad=True)
        y = model(inputs)
        y = y[0] if isinstance(y, tuple) else y
        assert y.dtype == dtype
        (y * weight[: y.size].reshape(y.shape).astype(dtype)).sum().backward()
        return y, inputs.grad, [p.grad for p in model.parameters()]

    y, dx, dp = run(model, half)
    want_y, want_dx, want_dp = run(reference, np.dtype(np.float64))
    close(y, want_y, half, roundings)
    close(dx, want_dx, half, roundings)
    scale = max(np.abs(g.numpy()).max() for g in want_dp)
    for p, g, w in zip(model.parameters(), dp, want_dp, strict=True):
        assert g.dtype == half and g.shape == p.shape
        error = np.abs(g.numpy().astype(float) - w.numpy()).max()
        assert error <= roundings * U[half] * scale


def test_norm_parameters_stay_float32(half, rng):
    """As torch's mixed precision has it: half everywhere but in the norms."""
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)).to(half)
    model[1].float()
    x = vectile.tensor(rng.normal(size=(4, 6)).astype(half))
    model(x).sum().backward()
    kinds = [p.grad.dtype for p in model.parameters()]
    assert kinds == [half, half, np.float32, np.float32, half, half]
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    before = [p.numpy().copy() for p in model.parameters()]
    optimizer.step()
    for p, old in zip(model.parameters(), before, strict=True):
        assert p.dtype == old.dtype
    state = optimizer.state_dict()["state"]
    assert len(state) == 6 and all(s["exp_avg"].dtype == np.float32 for s in state.values())
    other = optim.AdamW(model.parameters(), lr=1e-2)
    other.load_state_dict(optimizer.state_dict())
    assert other.state_dict()["state"][0]["exp_avg"].dtype == np.float32


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
        lambda p: optim.Adam(p, lr=0.02),
        lambda p: optim.AdamW(p, lr=0.02),
        lambda p: optim.RMSprop(p, lr=0.005),
    ],
    ids=["sgd", "adam", "adamw", "rmsprop"],
)
def test_a_model_learns(half, rng, make):
    vectile.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3)).to(half)
    x = rng.normal(size=(64, 4)).astype(half)
    y = (x.astype(np.float32) @ rng.normal(size=(4, 3))).argmax(-1)
    optimizer, losses = make(model.parameters()), []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.dtype == half for p in model.parameters())


def test_conversion_by_name():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    start = model.state_dict()
    for convert, dtype in [
        (model.half, HALVES[0]),
        (model.float, np.float32),
        (model.bfloat16, HALVES[1]),
        (lambda: model.to("float16"), HALVES[0]),
        (lambda: model.to(ml_dtypes.bfloat16), HALVES[1]),
        (model.double, np.float64),
    ]:
        assert convert() is model
        kinds = {k: v.dtype for k, v in model.state_dict().items()}
        assert kinds.pop("1.num_batches_tracked") == start["1.num_batches_tracked"].dtype
        assert set(kinds.values()) == {np.dtype(dtype)}
    t = vectile.tensor([1.0, 2.0], requires_grad=True)
    assert (t.half().dtype, t.bfloat16().dtype) == tuple(HALVES)
    t.bfloat16().float().sum().backward()
    assert t.grad.dtype == np.float32
    np.testing.assert_array_equal(t.grad, [1, 1])
    with pytest.raises(TypeError, match=r"Module.to: dtype: expected float16, .*, got float8_e5m2"):
        model.to(ml_dtypes.float8_e5m2)
    assert nn.Linear(2, 2, dtype="bfloat16").weight.dtype == HALVES[1]


def test_two_float_dtypes_do_not_mix(half):
    x, y = vectile.tensor([1.0], dtype=half), vectile.tensor([1.0])
    with pytest.raises(TypeError, match="operand dtypes: expected the same"):
        x + y
    assert (x * 2.5).dtype == half and (1 - x).dtype == half


def test_operators_keep_the_dtype(half, rng):
    x = vectile.tensor(
        np.abs(rng.normal(size=(3, 4))).astype(half) + half.type(0.5), requires_grad=True
    )
    results = [
        x + 1, 1 / x, x**2, x**0.5, x**-1, -x, x.sum(), x.mean(0), x.max(1), x.softmax(), x[1:], x.T,
        x.reshape(12), F.relu(x), F.softplus(x), vectile.where(x.numpy() > 1, x, 0.0), x.clip(0.6, 1.0),
    ]  # fmt: skip
    total = None
    for r in results:
        assert r.dtype == half
        total = r.sum() if total is None else total + r.sum()
    total.backward()
    assert x.grad.dtype == half and np.isfinite(x.grad.numpy().astype(float)).all()


def test_a_second_derivative(half):
    x = vectile.tensor(np.array([0.5, 1.5], half), requires_grad=True)
    (g,) = vectile.grad((x * x * x).sum(), [x], create_graph=True)
    (h,) = vectile.grad(g.sum(), [x])
    assert h.dtype == half
    np.testing.assert_allclose(h.numpy().astype(float), [3, 9], rtol=4 * U[half])


def test_checkpoints_keep_the_dtype(half, tmp_path):
    pytest.importorskip("safetensors")
    model = nn.Linear(3, 4).to(half)
    checkpoint.save(tmp_path / "m.safetensors", model.state_dict(), {"dim": 3})
    tensors, settings = checkpoint.load(tmp_path / "m.safetensors")
    assert settings == {"dim": 3}
    other = nn.Linear(3, 4, dtype=half)
    other.load_state_dict(tensors)
    for key, value in model.state_dict().items():
        assert tensors[key].dtype == half
        np.testing.assert_array_equal(
            other.state_dict()[key].view(np.uint16), value.view(np.uint16)
        )
    nn.Linear(3, 4).load_state_dict(tensors)  # widens


def test_import_does_not_import_ml_dtypes():
    import subprocess
    import sys

    code = "import vectile, sys; from vectile import nn; print('ml_dtypes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
