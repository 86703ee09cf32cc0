"""Quantised modules: error bounds, state, files."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from vectile import checkpoint, nn, ops, optim, random
from vectile.autograd import Tensor, no_grad
from vectile.models import GPT, GPTConfig
from vectile.quant import (
    QuantizedLinear,
    calibrate,
    quantize_dynamic,
    quantized_layers,
    restore,
    save_quantized,
    size_report,
)
from vectile.train import evaluate, load_model

SMALL = GPTConfig(vocab_size=64, context=16, n_layers=2, n_heads=2, d_model=32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_keeps_the_stated_bound(bias, dtype):
    random.manual_seed(0)
    layer = nn.Linear(40, 7, bias=bias, dtype=dtype)
    quantized = QuantizedLinear.of(layer)
    x = np.random.default_rng(0).normal(size=(3, 5, 40)).astype(dtype)
    weight = quantized.matrix.dequantize().astype(np.float64)
    exact = x.astype(np.float64) @ weight.T + (layer.bias.data if bias else 0.0)
    step = (np.maximum(x, 0).max(-1) - np.minimum(x, 0).min(-1)) / 255
    bound = step[..., None] / 2 * np.abs(weight).sum(1) * (1 + 1e-5) + 1e-5
    assert (np.abs(quantized(x).numpy() - exact) <= bound).all()
    scale = np.abs(layer.weight.data).max(1, keepdims=True) / 127
    assert (np.abs(weight - layer.weight.data) <= scale * 0.5001).all()


def test_every_linear_is_replaced_and_the_tied_embedding_stays():
    model = quantize_dynamic(GPT(SMALL))
    assert not model.training and not any(isinstance(m, nn.Linear) for m in model.modules())
    assert len(quantized_layers(model)) == 2 * 4 + 1
    assert model.tokens.weight.dtype == np.float32
    assert model.head.matrix.shape == (64, 32)
    logits = model(np.zeros((1, 3), int))
    assert not logits.requires_grad
    assert "int8" in repr(model.head)


def test_skip_and_unknown_paths():
    model = quantize_dynamic(GPT(SMALL), skip=["head"])
    assert isinstance(model.head, nn.Linear) and len(quantized_layers(model)) == 8
    with pytest.raises(ValueError, match=r"skip: expected paths of Linear layers, got \['tail'\]"):
        quantize_dynamic(GPT(SMALL), skip=["tail"])
    with pytest.raises(ValueError, match=r"expected paths of Linear layers, got \['norm'\]"):
        restore(GPT(SMALL), ["norm"])
    with pytest.raises(ValueError, match=r"got \['nowhere'\]"):
        restore(GPT(SMALL), ["nowhere"])


def test_a_layer_in_two_places_stays_one_layer():
    random.manual_seed(0)
    shared = nn.Linear(6, 6)
    model = nn.ModuleDict(
        {"a": shared, "b": nn.Sequential(nn.ReLU(), shared), "c": nn.Linear(6, 6)}
    )
    skipping = quantize_dynamic(copy.deepcopy(model), skip=["b.1"])
    assert skipping["a"] is skipping["b"][1] and isinstance(skipping["a"], nn.Linear)
    assert isinstance(skipping["c"], QuantizedLinear)
    fresh = copy.deepcopy(model)
    quantize_dynamic(model)
    assert not any(isinstance(m, nn.Linear) for m in model.modules())
    assert model["a"] is model["b"][1] and model["a"] is not model["c"]
    again = restore(fresh, quantized_layers(model))
    assert again["a"] is again["b"][1] and list(quantized_layers(again)) == ["a", "c"]
    again.load_state_dict(model.state_dict())
    x = np.ones((2, 6), np.float32)
    assert np.array_equal(again["b"](x).numpy(), model["b"](x).numpy())


@pytest.mark.parametrize(
    "activation, module",
    [
        ("relu", nn.ReLU()),
        ("gelu", nn.GELU()),
        ("gelu_tanh", nn.GELU("tanh")),
        ("silu", nn.SiLU()),
        ("tanh", nn.Tanh()),
        ("sigmoid", nn.Sigmoid()),
    ],
)
@pytest.mark.parametrize("quantized", [True, False])
def test_the_activation_after_a_linear_layer_is_fused(activation, module, quantized, monkeypatch):
    random.manual_seed(0)
    layer = nn.Linear(20, 9)
    layer = QuantizedLinear.of(layer) if quantized else layer
    x = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    calls = []
    linear = ops.linear
    monkeypatch.setattr(
        ops,
        "linear",
        lambda *a, activation, **k: (
            calls.append(activation) or linear(*a, activation=activation, **k)
        ),
    )
    with no_grad():
        fused, apart = nn.Sequential(layer, module)(x).numpy(), module(layer(x)).numpy()
    assert calls == [activation, None]
    # both round once more than the exact value, at most a few ulp of it
    np.testing.assert_allclose(fused, apart, rtol=8 * np.finfo(np.float32).eps, atol=1e-7)


def test_the_loss_that_training_reached_stays_close():
    random.manual_seed(0)
    model = GPT(SMALL)
    rng = np.random.default_rng(0)
    ids = (5 * np.arange(17) + rng.integers(0, 64, (8, 1))) % 64
    ids = np.where(rng.random(ids.shape) < 0.3, rng.integers(0, 64, ids.shape), ids)
    batches = [(ids[:, :-1], ids[:, 1:])]
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(*batches[0]).backward()
        optimizer.step()
    before = evaluate(model, batches)
    assert before < 0.1  # log 64 = 4.16 at first: the weights matter now
    coarse = copy.deepcopy(model)
    after = evaluate(quantize_dynamic(model), batches)
    assert abs(after / before - 1) < 0.01
    for layer in coarse.modules():  # 4 bits would be seen
        if isinstance(layer, nn.Linear):
            step = np.abs(layer.weight.data).max(1, keepdims=True) / 7
            layer.weight = nn.Parameter(np.rint(layer.weight.data / step) * step)
    assert abs(evaluate(coarse, batches) / before - 1) > 0.01


def test_state_and_file_round_trip(tmp_path):
    random.manual_seed(0)
    model = quantize_dynamic(GPT(SMALL))
    state = model.state_dict()
    assert state["blocks.0.up.weight"].dtype == np.int8
    assert state["blocks.0.up.scale"].shape == (128,)
    save_quantized(tmp_path / "q", model, {"kind": "gpt", "model": vars(SMALL)})
    loaded = load_model(tmp_path / "q")
    assert quantized_layers(loaded) == quantized_layers(model)
    for key, value in loaded.state_dict().items():
        assert np.array_equal(value, state[key]), key
    ids = np.arange(5)[None]
    assert np.array_equal(loaded(ids).numpy(), model(ids).numpy())
    assert np.array_equal(
        loaded.generate(ids, 6, seed=1), model.generate(ids, 6, seed=1, use_cache=False)
    )
    wrong = {**state, "head.weight": np.zeros((64, 31), np.int8)}
    with pytest.raises(
        ValueError, match=r"head\.weight shape: expected \(64, 32\), got \(64, 31\)"
    ):
        model.load_state_dict(wrong)
    assert checkpoint.load(tmp_path / "q")[1]["quantized"] == quantized_layers(model)


@pytest.mark.parametrize("symmetric", [True, False])
def test_four_bits_keep_the_stated_bound_and_a_state_of_half_bytes(symmetric):
    random.manual_seed(0)
    layer = nn.Linear(41, 7)  # odd: the last byte of a row holds one value
    quantized = QuantizedLinear.of(layer, bits=4, group_size=32, symmetric=symmetric)
    assert "int4, group_size=32" in repr(quantized)
    state = quantized.state_dict()
    assert state["weight"].shape == (7, 21) and state["weight"].dtype == np.uint8
    assert state["scale"].shape == (7, 2) and ("zero_point" in state) == (not symmetric)
    weight = quantized.matrix.dequantize()
    scale = np.repeat(state["scale"], 32, axis=1)[:, :41]
    assert (np.abs(weight - layer.weight.data) <= scale * 0.50001).all()
    x = np.random.default_rng(0).normal(size=(3, 41)).astype(np.float32)
    exact = x.astype(np.float64) @ weight.T.astype(np.float64) + layer.bias.data
    parts = [slice(0, 32), slice(32, 41)]
    bound = sum(np.abs(x[:, p]).max(1)[:, None] / 254 * np.abs(weight[:, p]).sum(1) for p in parts)
    assert (np.abs(quantized(x).numpy() - exact) <= bound * (1 + 1e-5) + 1e-5).all()
    other = QuantizedLinear.of(nn.Linear(41, 7), bits=4, group_size=32, symmetric=symmetric)
    other.load_state_dict(state)
    assert np.array_equal(other(x).numpy(), quantized(x).numpy())
    assert np.array_equal(other.matrix.values, quantized.matrix.values)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_weights_keep_activations_as_they_are(dtype):
    random.manual_seed(0)
    layer = nn.Linear(41, 7)
    quantized = QuantizedLinear.of(layer, dtype=dtype)
    assert dtype in repr(quantized) and quantized.scheme() == {"dtype": dtype}
    state = quantized.state_dict()
    assert state["weight"].dtype == np.uint8 and state["weight"].shape == (7, 41)
    x = np.random.default_rng(0).normal(size=(3, 41)).astype(np.float32)
    weight = quantized.matrix.dequantize()
    np.testing.assert_allclose(
        quantized(x).numpy(), x @ weight.T + layer.bias.data, rtol=1e-5, atol=1e-5
    )
    other = QuantizedLinear.of(nn.Linear(41, 7), dtype=dtype)
    other.load_state_dict(state)
    assert np.array_equal(other(x).numpy(), quantized(x).numpy())


def test_a_file_says_how_every_layer_was_quantised(tmp_path):
    random.manual_seed(0)
    model = GPT(SMALL)
    up = [f"blocks.{i}.up" for i in range(2)]
    quantize_dynamic(model, ["head", *up], bits=4, group_size=32, symmetric=False)
    quantize_dynamic(model, ["head"], dtype="float8_e5m2")
    quantize_dynamic(model)
    save_quantized(tmp_path / "q", model, {"kind": "gpt", "model": vars(SMALL)})
    loaded = load_model(tmp_path / "q")
    assert loaded.head.matrix.dequantize().dtype == np.float32
    assert isinstance(loaded.head.matrix, ops.QuantizedMatrix)
    assert isinstance(loaded.blocks[0].up.matrix, ops.Float8Matrix)
    assert isinstance(loaded.blocks[1].down.matrix, ops.Int4Matrix)
    ids = np.arange(5)[None]
    assert np.array_equal(loaded(ids).numpy(), model(ids).numpy())
    report = size_report(model)
    assert report.quantized_layers == 9


def test_size_report_counts_shared_arrays_once():
    model = GPT(SMALL)
    count = sum(p.size for p in model.parameters())
    assert size_report(model) == (4 * count, 0, 0)
    linear = sum(m.weight.size for m in model.modules() if isinstance(m, nn.Linear))
    rows = sum(m.out_features for m in model.modules() if isinstance(m, nn.Linear))
    head = model.head.weight.size  # no longer shared with the embedding
    report = size_report(quantize_dynamic(model))
    assert report.total == 4 * (count - linear + head) + linear + 4 * rows
    assert report.quantized_layers == 9 and report.quantized < report.total


def test_a_gradient_through_it_is_refused():
    layer = QuantizedLinear.of(nn.Linear(4, 3))
    with pytest.raises(RuntimeError, match="no gradient"):
        layer(Tensor(np.ones((2, 4), np.float32), requires_grad=True))
    with pytest.raises(ValueError, match="linear"):
        layer(np.ones((2, 5), np.float32))
    assert isinstance(layer.matrix, ops.QuantizedMatrix)


@pytest.mark.parametrize("scheme", [(False, True), (False, False), (True, False)], ids=str)
def test_schemes_of_the_weights_are_saved_and_restored(tmp_path, scheme):
    random.manual_seed(3)
    options = dict(zip(("symmetric", "per_channel"), scheme, strict=True))
    model = quantize_dynamic(GPT(SMALL), skip=["head"], **options)
    layers = quantized_layers(model)
    assert len(layers) == 8 and all(scheme == options for scheme in layers.values())
    ids = np.arange(12).reshape(1, 12) % 64
    save_quantized(tmp_path / "m.safetensors", model, {})
    tensors, settings = checkpoint.load(tmp_path / "m.safetensors")
    random.manual_seed(4)
    other = restore(GPT(SMALL), settings["quantized"])
    other.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items()})
    np.testing.assert_array_equal(other(ids).numpy(), model(ids).numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_calibrated_layers_use_one_step(rng, dtype):
    layer = QuantizedLinear.of(nn.Linear(40, 7, dtype=dtype))
    seen = [rng.normal(size=(3, 40)).astype(dtype) for _ in range(3)]
    calibrate(layer, seen)
    low, high = min(x.min() for x in seen), max(x.max() for x in seen)
    step = (float(high) - float(low)) / 255
    np.testing.assert_allclose(layer.x_scale, step, rtol=1e-6)
    assert layer.x_zero_point == round(-float(low) / step) and layer.x_scale.dtype == dtype
    assert {"x_scale", "x_zero_point"} <= layer.state_dict().keys()
    x = np.concatenate(seen)
    weight = layer.matrix.dequantize().astype(np.float64)
    exact = x.astype(np.float64) @ weight.T + layer.bias
    # Half a step for rounding x, another where the rounded zero point cuts an end of the range.
    assert (np.abs(layer(x).numpy() - exact) <= step * np.abs(weight).sum(1) * (1 + 1e-5)).all()
    beyond = layer(np.full((1, 40), 1e6, dtype)).numpy()
    top = step * (255 - int(layer.x_zero_point)) * weight.sum(1) + layer.bias
    np.testing.assert_allclose(beyond[0], top, rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="no gradient"):
        layer(Tensor(x, requires_grad=True))
    assert not layer(Tensor(x)).requires_grad


def test_calibrated_models_are_saved_and_restored(tmp_path):
    random.manual_seed(5)
    model = quantize_dynamic(GPT(SMALL), skip=["head"])
    ids = np.arange(32).reshape(2, 16)
    before = model(ids).numpy()
    assert calibrate(model, [ids, (ids[::-1],)]) is model
    after = model(ids).numpy()
    assert not np.array_equal(after, before)
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()
    assert all(scheme["static"] for scheme in quantized_layers(model).values())
    save_quantized(tmp_path / "m", model, {"kind": "gpt", "model": vars(SMALL)})
    loaded = load_model(tmp_path / "m")
    assert quantized_layers(loaded) == quantized_layers(model)
    np.testing.assert_array_equal(loaded(ids).numpy(), after)


def test_what_calibrate_refuses():
    layer = QuantizedLinear.of(nn.Linear(4, 3))
    x = np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match="calibrate: batches: expected at least one, got none"):
        calibrate(layer, [])
    with pytest.raises(ValueError, match="calibrate: batches: expected finite inputs"):
        calibrate(layer, [x, x * np.float32(np.nan), x])
    with pytest.raises(ValueError, match="calibrate: model: expected int8 layers, got none"):
        calibrate(nn.Linear(4, 3), [x])
    with pytest.raises(ValueError, match="linear"):
        calibrate(layer, [x[:, :3]])
    assert layer.x_scale is None and layer._seen is None
    calibrate(layer, [x * 0])
    assert layer.x_scale is None
