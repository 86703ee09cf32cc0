"""Modules, losses and Tensor ops on a device: results and gradients are the CPU's, on the same code."""

import numpy as np
import pytest
from gpu_array import GpuArray, here, there
from on_device import needs_device
from test_device import gpu  # noqa: F401  (a fixture)

import vectile
from vectile import Tensor, device, nn
from vectile.autograd import functional as A
from vectile.nn import functional as F

pytestmark = [needs_device, pytest.mark.usefixtures("gpu")]
RNG = np.random.default_rng(0)


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def found(make, inputs, options, place):
    """What `make()` gives for `inputs`, then the gradients of the inputs and parameters.

    The loss weighs each result by random numbers.
    """
    vectile.manual_seed(0)
    module = make()
    parameters = list(module.to(place).parameters()) if isinstance(module, nn.Module) else []
    inputs = [
        Tensor(x, requires_grad=True) if device.is_array(x) and x.dtype == np.float32 else x
        for x in there(inputs, place)
    ]
    out = module(*inputs, **there(options, place))
    outs = [y for y in (out if isinstance(out, tuple) else (out,)) if y is not None]
    weigh = np.random.default_rng(1)
    loss = Tensor(there(np.zeros((), np.float32), place))
    for y in outs:
        if y.requires_grad:
            loss = loss + (y * there(weigh.standard_normal(y.shape).astype(y.dtype), place)).sum()
    loss.backward()
    grads = [t.grad for t in (*inputs, *parameters) if isinstance(t, Tensor)]
    results = [x for x in (*outs, *grads) if x is not None]
    assert {type(x.data) for x in results} == {np.ndarray if place == "cpu" else GpuArray}
    return [here(x) for x in results]


def check(make, *inputs, **options):
    """CPU and device agree within ten ops that each round sums of some 16 terms."""
    want, got = (found(make, inputs, options, place) for place in ("cpu", "cuda"))
    for a, b in zip(want, got, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        bound = 10 * 16 * 2.0**-24 * np.abs(np.nan_to_num(a)).max(initial=1)
        np.testing.assert_allclose(b, a, rtol=0, atol=bound)


def layer(kind, *arguments, **options):
    return lambda: kind(*arguments, **options)


X, ROWS, PLANES, TOKENS = f(4, 6), f(2, 4, 5), f(2, 4, 3, 3), f(2, 5, 8)
IDS, TARGETS = np.array([[1, 2], [6, 1]]), np.array([0, 5, 2, 3])
WEIGHTS = np.abs(f(6)) + 0.1

ACTIVATIONS = (
    "ReLU ReLU6 LeakyReLU PReLU ELU CELU SELU GELU SiLU Mish Hardswish Tanh Hardtanh Tanhshrink "
    "Softshrink Hardshrink Sigmoid Hardsigmoid LogSigmoid Softplus Softsign GLU Softmax LogSoftmax "
    "Softmin Identity Flatten Dropout"
)
LAYERS = {
    "PReLU of channels": (layer(nn.PReLU, 6), X),
    "GELU tanh": (layer(nn.GELU, "tanh"), X),
    "Threshold": (layer(nn.Threshold, 0.1, 2.0), X),
    "Softmax2d": (nn.Softmax2d, PLANES),
    "Unflatten": (layer(nn.Unflatten, 1, (2, -1)), X),
    "Dropout1d": (nn.Dropout1d, ROWS),
    "Dropout2d": (nn.Dropout2d, PLANES),
    "Linear": (layer(nn.Linear, 6, 5), X),
    "Linear packed": (lambda: nn.Linear(6, 5).pack(), X),
    "Linear silu, residual": (layer(nn.Linear, 6, 5), X, "silu", f(4, 5)),
    "Linear tanh": (layer(nn.Linear, 6, 5, bias=False), X, "tanh"),
    "Embedding": (layer(nn.Embedding, 7, 3), IDS),
    "Embedding with padding": (layer(nn.Embedding, 7, 3, padding_idx=1), IDS),
    "LayerNorm": (layer(nn.LayerNorm, 6), X),
    "LayerNorm of axes": (layer(nn.LayerNorm, (4, 5)), ROWS),
    "LayerNorm, residual": (layer(nn.LayerNorm, 6, bias=False), X, f(4, 6)),
    "RMSNorm": (layer(nn.RMSNorm, (4, 5)), ROWS),
    "RMSNorm, residual": (layer(nn.RMSNorm, 6), X, f(4, 6)),
    "BatchNorm1d": (layer(nn.BatchNorm1d, 6), X),
    "BatchNorm1d, average": (layer(nn.BatchNorm1d, 4, momentum=None), ROWS),
    "BatchNorm2d, evaluating": (lambda: nn.BatchNorm2d(4).eval(), PLANES),
    "InstanceNorm1d": (layer(nn.InstanceNorm1d, 4, track_running_stats=True), ROWS),
    "InstanceNorm2d": (layer(nn.InstanceNorm2d, 4, affine=True), PLANES),
    "GroupNorm": (layer(nn.GroupNorm, 2, 4), ROWS),
    "ConstantPad1d": (layer(nn.ConstantPad1d, 1, 3.0), ROWS),
    "ReflectionPad2d": (layer(nn.ReflectionPad2d, 1), PLANES),
    "CircularPad1d": (layer(nn.CircularPad1d, (2, 1)), ROWS),
    "sinusoids": (layer(nn.SinusoidalPositionalEncoding, 8, 16), TOKENS),
    "learned positions": (layer(nn.LearnedPositionalEmbedding, 8, 16), TOKENS),
    "rotary": (layer(nn.RotaryEmbedding, 4), f(2, 2, 5, 8)),
    "pixel_shuffle": (lambda: lambda x: F.pixel_shuffle(x, 2), PLANES),
    "bias_activation_dropout": (
        lambda: lambda x, b: F.bias_activation_dropout(x, b, "gelu", 0.2),
        X,
        f(6),
    ),
    "normalize": (lambda: F.normalize, X),
    "cosine_similarity": (lambda: F.cosine_similarity, X, f(4, 6)),
}
LAYERS |= {name: (getattr(nn, name), X) for name in ACTIVATIONS.split()}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    check(*LAYERS[name])


ONE = np.abs(f(4, 6)) / 4  # probabilities
LOSSES = {
    "CrossEntropyLoss": (nn.CrossEntropyLoss, X, TARGETS),
    "label smoothing": (
        layer(nn.CrossEntropyLoss, label_smoothing=0.1, ignore_index=2),
        X,
        TARGETS,
    ),
    "weights": (layer(nn.CrossEntropyLoss, WEIGHTS, label_smoothing=0.1), X, TARGETS),
    "weights, ignored": (layer(nn.CrossEntropyLoss, WEIGHTS, ignore_index=2), X, TARGETS),
    "places": (nn.CrossEntropyLoss, f(2, 6, 3), np.array([[0, 1, 2], [3, 4, 5]])),
    "NLLLoss": (nn.NLLLoss, X, TARGETS),
    "NLLLoss, weights": (layer(nn.NLLLoss, WEIGHTS, reduction="none"), X, TARGETS),
    "BCELoss": (layer(nn.BCELoss, ONE), ONE, ONE),
    "BCEWithLogitsLoss": (layer(nn.BCEWithLogitsLoss, ONE, pos_weight=WEIGHTS), X, ONE),
    "KLDivLoss": (layer(nn.KLDivLoss, reduction="batchmean"), X, ONE),
    "KLDivLoss of logs": (layer(nn.KLDivLoss, log_target=True), X, f(4, 6)),
    "SmoothL1Loss": (layer(nn.SmoothL1Loss, beta=0.5), X, f(4, 6)),
    "MSELoss": (nn.MSELoss, X, f(4, 6)),
    "L1Loss": (layer(nn.L1Loss, reduction="none"), X, f(4, 6)),
    "HuberLoss": (nn.HuberLoss, X, f(4, 6)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    check(*LOSSES[name])


def test_a_target_out_of_range_makes_a_loss_nan():
    for loss in (nn.NLLLoss(), nn.CrossEntropyLoss(WEIGHTS), nn.CrossEntropyLoss()):
        x = there(X, "cuda")
        assert np.isnan(loss.to("cuda")(x, there(np.array([0, 6, 2, 3]), "cuda")).item())
    nothing = nn.NLLLoss(ignore_index=1)(x, there(np.ones(4, int), "cuda"))
    beyond = F.binary_cross_entropy(there(np.array([0.5, 1.5]), "cuda"), there(np.ones(2), "cuda"))
    assert np.isnan(nothing.item()) and np.isnan(beyond.item())
    ids = there(np.array([1, 3]), "cuda")
    assert F.one_hot(ids).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
    assert F.one_hot(ids, 3).tolist() == [[0, 1, 0], [0, 0, 0]]


class SelfAttention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x, **options):
        return self.attention(x, x, x, **options)


PADDING = np.arange(5) >= np.array([[3], [5]])
TRIANGLE = np.triu(np.ones((5, 5), bool), 1)


@pytest.mark.parametrize(
    ("made", "options"),
    [
        ({}, {}),
        ({}, {"need_weights": False, "is_causal": True}),
        ({}, {"need_weights": False, "attn_mask": TRIANGLE}),
        ({}, {"need_weights": False, "key_padding_mask": PADDING}),
        ({}, {"is_causal": True, "average_attn_weights": False}),
        ({"num_kv_heads": 1, "window": (2, 0), "softcap": 5.0}, {}),
        ({"num_kv_heads": 1, "window": (2, 0), "softcap": 5.0}, {"need_weights": False}),
    ],
    ids=str,
)
def test_attention(made, options):
    check(layer(SelfAttention, **made), TOKENS, **options)
    module = SelfAttention(**made).eval()
    with vectile.no_grad():
        want = module(TOKENS, **options)
        given = there([TOKENS, options], "cuda")
        got = module.to("cuda")(given[0], **given[1])
    for a, b in zip(want, got, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(here(b), here(a), atol=1e-5)


def test_transformer():
    make = layer(nn.Transformer, 8, 2, 1, 1, 16, 0.0, "gelu", batch_first=True)
    check(make, TOKENS, f(2, 4, 8), tgt_mask=nn.Transformer.generate_square_subsequent_mask(4))
    check(layer(nn.TransformerEncoderLayer, 8, 2, 16, 0.0, norm_first=True), TOKENS)


def changed(a, b):
    c = a * 1
    c[1:2] = b[0]
    c[:, [0, 3]] = 0.0
    return c


def twice(a, b):
    (slope,) = vectile.grad((a.tanh() * b).sum(), [a], create_graph=True)
    return (slope * slope).sum()


TENSOR = {
    "numbers": lambda a, b: 1 + a * 2 - b / 3 + np.float32(2),
    "a list": lambda a, b: a + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "power": lambda a, b: (a * a + 1) ** b,
    "maximum": A.maximum,
    "where": lambda a, b: A.where(a > b, a, 0.0),
    "where a list": lambda a, b: A.where([True, False] * 3, a, b),
    "clip": lambda a, b: a.clip(-1, 1),
    "half": lambda a, b: a.half().float(),
    "double": lambda a, b: (a.double() * 2).float(),
    "max": lambda a, b: a.max(1),
    "std": lambda a, b: a.std(0),
    "cumsum": lambda a, b: a.cumsum(1),
    "logsumexp": lambda a, b: A.logsumexp(a, 1),
    "matmul": lambda a, b: a.T @ b,
    "slices": lambda a, b: a[1:3, ::2],
    "rows": lambda a, b: a[[0, -1, 2, -1]],
    "elements": lambda a, b: a[[0, -1, 0], [1, 1, 1]],
    "an array of NumPy's": lambda a, b: a[np.array([3, 0])],
    "a mask": lambda a, b: a[a > 0],
    "take": lambda a, b: a.take([0, 1, 1], 1),
    "gather": lambda a, b: A.gather(a, np.zeros((4, 2), int), 1),
    "concatenate": lambda a, b: A.concatenate([a, b], 1),
    "pad": lambda a, b: A.pad(a, 1),
    "split": lambda a, b: tuple(a.split(2, 1)),
    "in place": changed,
    "second derivative": twice,
}


@pytest.mark.parametrize("name", TENSOR)
def test_tensor_ops(name):
    check(lambda: TENSOR[name], X, f(4, 6))


WITHOUT = {
    "conv": (layer(nn.Conv2d, 4, 2, 3), PLANES),
    "conv_input_grad": (layer(nn.ConvTranspose2d, 4, 2, 3), PLANES),
    "max_pool": (layer(nn.MaxPool2d, 2), PLANES),
    "avg_pool": (layer(nn.AvgPool2d, 2), PLANES),
    "adaptive_avg_pool": (layer(nn.AdaptiveAvgPool2d, 2), PLANES),
    "interpolate": (layer(nn.Upsample, 4), PLANES),
    "recurrent": (layer(nn.LSTM, 5, 3), ROWS),
}


@pytest.mark.parametrize("op", WITHOUT)
def test_without_a_kernel_the_op_is_named(op):
    make, x = WITHOUT[op]
    message = f"{op}: arrays device: expected the CPU, got a GPU: no device kernel"
    with pytest.raises(TypeError, match=message):
        make().to("cuda")(there(x, "cuda"))


def test_numpy_arrays_beside_a_gpu_are_an_error():
    module = nn.Linear(6, 5).to("cuda")
    with pytest.raises(TypeError, match=r"linear: .*device: expected"):
        module(X)
    with pytest.raises(TypeError, match=r"multiply: .*device: expected"):
        Tensor(there(X, "cuda")) * X
