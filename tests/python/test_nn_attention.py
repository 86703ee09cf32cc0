"""MultiheadAttention and the Transformer against PyTorch, masks and layouts included."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import nn
from vectile.autograd import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is the reference for layers")

from test_nn import TOLERANCE, array, arrays, compare, mirror  # noqa: E402

N, L, S, E, H = 2, 5, 7, 12, 3


def masks(kind, length, keys, batch=N):
    """(our and torch's keyword arguments) for one kind of mask; no query is left without a key."""
    rng = np.random.default_rng(5)
    pair = rng.random((length, keys)) < 0.4
    pair[:, 0] = False
    heads = rng.random((batch * H, length, keys)) < 0.4
    heads[..., 0] = False
    padding = rng.random((batch, keys)) < 0.4
    padding[:, 0] = False
    bias = rng.normal(size=(length, keys))
    return {
        "none": {},
        "bool": {"attn_mask": pair},
        "per_head": {"attn_mask": heads},
        "float": {"attn_mask": bias},
        "padding": {"key_padding_mask": padding},
        "float_padding": {"key_padding_mask": rng.normal(size=(batch, keys))},
        "both": {"attn_mask": pair, "key_padding_mask": padding},
    }[kind]


def as_torch(options):
    return {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(
    "kind", ["none", "bool", "per_head", "float", "padding", "float_padding", "both"]
)
@pytest.mark.parametrize("batch_first", [True, False])
def test_cross_attention_equals_torch(kind, batch_first, need_weights):
    options = masks(kind, L, S)
    shapes = [(N, L, E), (N, S, E), (N, S, E)]
    inputs = [array(*shape, seed=i) for i, shape in enumerate(shapes)]
    if not batch_first:
        inputs = [x.swapaxes(0, 1).copy() for x in inputs]
    compare(
        nn.MultiheadAttention(E, H, batch_first=batch_first),
        torch.nn.MultiheadAttention(E, H, batch_first=batch_first),
        *inputs,
        ours_call=lambda m, *a: m(*a, need_weights=need_weights, **options)[0],
        theirs_call=lambda m, *a: m(*a, need_weights=need_weights, **as_torch(options))[0],
    )


@pytest.mark.parametrize("kind", ["none", "bool", "per_head", "float", "padding", "both"])
def test_self_attention_equals_torch(kind):
    options = masks(kind, L, L)
    compare(
        nn.MultiheadAttention(E, H, batch_first=True),
        torch.nn.MultiheadAttention(E, H, batch_first=True),
        array(N, L, E),
        ours_call=lambda m, x: m(x, x, x, need_weights=False, **options)[0],
        theirs_call=lambda m, x: m(x, x, x, need_weights=False, **as_torch(options))[0],
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dims", [{"kdim": 4}, {"vdim": 5}, {"kdim": 4, "vdim": 5}])
def test_keys_and_values_of_other_widths(dims, bias):
    compare(
        nn.MultiheadAttention(E, H, bias=bias, batch_first=True, **dims),
        torch.nn.MultiheadAttention(E, H, bias=bias, batch_first=True, **dims),
        array(N, L, E),
        array(N, S, dims.get("kdim", E), seed=1),
        array(N, S, dims.get("vdim", E), seed=2),
        ours_call=lambda m, *a: m(*a, need_weights=False)[0],
        theirs_call=lambda m, *a: m(*a, need_weights=False)[0],
    )


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
def test_a_float_mask_learns(padded, need_weights):
    padding = masks("padding", L, S) if padded else {}
    shapes = [(N, L, E), (N, S, E), (N, S, E), (L, S)]
    compare(
        nn.MultiheadAttention(E, H, batch_first=True),
        torch.nn.MultiheadAttention(E, H, batch_first=True),
        *(array(*shape, seed=i) for i, shape in enumerate(shapes)),
        ours_call=lambda m, q, k, v, mask: m(
            q, k, v, attn_mask=mask, need_weights=need_weights, **padding
        )[0],
        theirs_call=lambda m, q, k, v, mask: m(
            q, k, v, attn_mask=mask, need_weights=need_weights, **as_torch(padding)
        )[0],
    )


def test_asking_for_the_weights_changes_no_bit_of_the_output():
    layer = nn.MultiheadAttention(E, H, batch_first=True)
    for requires_grad in (False, True):
        x = Tensor(array(N, 40, E).astype(np.float32), requires_grad=requires_grad)
        layer.requires_grad_(requires_grad)
        with_weights, without = (layer(x, x, x, need_weights=w)[0] for w in (True, False))
        assert np.array_equal(with_weights.numpy(), without.numpy())


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_returned_weights_equal_torchs_and_are_differentiable(average, batched):
    shape = (N, L, E) if batched else (L, E)
    options = masks("both", L, L) if batched else {}
    ours, theirs = mirror(
        nn.MultiheadAttention(E, H, batch_first=True),
        torch.nn.MultiheadAttention(E, H, batch_first=True),
    )
    x = Tensor(array(*shape), requires_grad=True)
    y = torch.tensor(array(*shape), requires_grad=True)
    weights = ours(x, x, x, average_attn_weights=average, **options)[1]
    expected = theirs(y, y, y, average_attn_weights=average, **as_torch(options))[1]
    assert weights.shape == tuple(expected.shape)
    np.testing.assert_allclose(weights.numpy(), expected.detach().numpy(), **TOLERANCE)
    (weights * weights).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), **TOLERANCE)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_is_causal_alone_is_the_triangular_mask(need_weights, padded):
    padding = masks("padding", L, L) if padded else {}
    triangle = np.triu(np.ones((L, L), bool), 1)
    ours, theirs = mirror(
        nn.MultiheadAttention(E, H, batch_first=True),
        torch.nn.MultiheadAttention(E, H, batch_first=True),
    )
    x = array(N, L, E)
    out = ours(x, x, x, need_weights=need_weights, is_causal=True, **padding)[0]
    expected = theirs(
        *[torch.tensor(x)] * 3, attn_mask=torch.tensor(triangle), **as_torch(padding)
    )[0]
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), **TOLERANCE)


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_query_without_keys_gets_zeros_and_zero_gradient(need_weights):
    layer = nn.MultiheadAttention(E, H, bias=False, batch_first=True)
    x = Tensor(array(N, L, E).astype(np.float32), requires_grad=True)
    padding = np.zeros((N, L), bool)
    padding[1] = True
    out = layer(x, x, x, key_padding_mask=padding, need_weights=need_weights)[0]
    assert not out.numpy()[1].any()
    out.sum().backward()
    assert not x.grad.numpy()[1].any() and x.grad.numpy()[0].any()


def test_attention_dropout_drops_in_training_only():
    layer = nn.MultiheadAttention(E, H, dropout=0.5, batch_first=True)
    x = array(N, L, E).astype(np.float32)
    noisy = layer(x, x, x, need_weights=False)[0].numpy()
    layer.eval()
    calm = layer(x, x, x, need_weights=False)[0].numpy()
    assert not np.allclose(noisy, calm)
    assert np.array_equal(calm, layer(x, x, x, need_weights=False)[0].numpy())


ENCODERS = {
    "post": {},
    "pre": {"norm_first": True},
    "gelu": {"activation": "gelu", "norm_first": True},
    "no_bias": {"bias": False},
    "eps": {"layer_norm_eps": 1e-2},
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_equals_torch(kind, batch_first):
    options = {"dropout": 0.0, "batch_first": batch_first, **ENCODERS[kind]}
    mask = masks("bool", L, L)["attn_mask"]

    def make(n, **extra):
        layer = n.TransformerEncoderLayer(E, H, 20, **options)
        return n.TransformerEncoder(layer, 2, n.LayerNorm(E), **extra)

    compare(
        make(nn),
        make(torch.nn, enable_nested_tensor=False),
        array(*((N, L, E) if batch_first else (L, N, E))),
        ours_call=lambda m, x: m(x, mask),
        theirs_call=lambda m, x: m(x, torch.tensor(mask)),
    )


@pytest.mark.parametrize("kind", ENCODERS)
def test_decoder_equals_torch(kind):
    options = {"dropout": 0.0, "batch_first": True, **ENCODERS[kind]}
    padding = masks("padding", L, S)["key_padding_mask"]

    def make(n):
        return n.TransformerDecoder(n.TransformerDecoderLayer(E, H, 20, **options), 2)

    causal = torch.nn.Transformer.generate_square_subsequent_mask(L, dtype=torch.float64)
    compare(
        make(nn),
        make(torch.nn),
        array(N, L, E),
        array(N, S, E, seed=1),
        ours_call=lambda m, x, y: m(x, y, memory_key_padding_mask=padding, tgt_is_causal=True),
        theirs_call=lambda m, x, y: m(
            x, y, tgt_mask=causal, memory_key_padding_mask=torch.tensor(padding)
        ),
    )


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}])
def test_transformer_equals_torch(options):
    options = {"dropout": 0.0, "batch_first": True, **options}
    causal = torch.nn.Transformer.generate_square_subsequent_mask(L, dtype=torch.float64)
    compare(
        nn.Transformer(E, H, 2, 1, 20, **options),
        torch.nn.Transformer(E, H, 2, 1, 20, **options),
        array(N, S, E),
        array(N, L, E, seed=1),
        ours_call=lambda m, x, y: m(x, y, tgt_is_causal=True),
        theirs_call=lambda m, x, y: m(x, y, tgt_mask=causal),
    )


def test_square_subsequent_mask():
    ours = nn.Transformer.generate_square_subsequent_mask(4)
    theirs = torch.nn.Transformer.generate_square_subsequent_mask(4)
    assert np.array_equal(ours, theirs.numpy())


def test_float32_state_loads_and_gives_the_same_result():
    ours = nn.TransformerEncoderLayer(E, H, 20, 0.0)
    theirs = torch.nn.TransformerEncoderLayer(E, H, 20, 0.0)
    ours.load_state_dict(arrays(theirs))
    x = array(L, N, E).astype(np.float32)
    expected = theirs(torch.tensor(x)).detach().numpy()
    # two norms and four products of at most 20 terms: a few tens of roundings of values near 1
    np.testing.assert_allclose(ours(x).numpy(), expected, atol=64 * np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    "shapes, options, message",
    [
        (((N, L, 4), (N, S, E), (N, S, E)), {}, "query features: expected 12, got 4"),
        (((N, L, E), (N, S, 4), (N, S, E)), {}, "key features: expected 12, got 4"),
        (((N, L, E), (3, S, E), (3, S, E)), {}, "key batch: expected 2, got 3"),
        (((N, L, E), (N, S, E), (N, 3, E)), {}, "value length: expected 7, got 3"),
        (((N, L, E), (S, E), (S, E)), {}, "key rank: expected 3, as query, got 2"),
        (
            ((N, L, E), (N, S, E), (N, S, E)),
            {"attn_mask": np.zeros((S, L), bool)},
            r"attn_mask shape: expected \(5, 7\) or \(6, 5, 7\), got \(7, 5\)",
        ),
        (
            ((N, L, E), (N, S, E), (N, S, E)),
            {"key_padding_mask": np.zeros((N, L), bool)},
            r"key_padding_mask shape: expected \(2, 7\), got \(2, 5\)",
        ),
    ],
)
def test_wrong_shapes_are_named(shapes, options, message):
    layer = nn.MultiheadAttention(E, H, batch_first=True).double()
    with pytest.raises(ValueError, match="MultiheadAttention: " + message):
        layer(*(array(*shape) for shape in shapes), **options)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="embed_dim: expected a positive multiple of num_heads 5"):
        nn.MultiheadAttention(12, 5)
    with pytest.raises(TypeError, match="attn_mask dtype: expected bool or float, got int64"):
        nn.MultiheadAttention(E, H)(*[array(L, E)] * 3, attn_mask=np.zeros((L, L), int))
    with pytest.raises(ValueError, match="activation: expected a callable or one of"):
        nn.TransformerEncoderLayer(E, H, activation="sine")
