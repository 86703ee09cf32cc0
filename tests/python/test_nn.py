"""nn against PyTorch: state_dict keys and shapes, initialisation, outputs and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vectile import nn, random
from vectile.autograd import Tensor, grad

torch = pytest.importorskip("torch", reason="PyTorch is the reference for layers")

# float64 on both sides: what remains is rounding in sums of at most a few hundred terms.
TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


def arrays(module):
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def mirror(ours, theirs):
    """Both in float64 with PyTorch's weights, randomised so that biases and norms matter too."""
    theirs = theirs.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise)
    ours.double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(arrays(theirs))
    return ours, theirs


def compare(ours, theirs, *inputs, ours_call=None, theirs_call=None):
    """Outputs, input gradients and parameter gradients agree."""
    mirror(ours, theirs)
    mine = [Tensor(x.copy(), requires_grad=True) if x.dtype.kind == "f" else x for x in inputs]
    yours = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    out = (ours_call or (lambda m, *a: m(*a)))(ours, *mine)
    expected = (theirs_call or (lambda m, *a: m(*a)))(theirs, *yours)
    assert out.shape == tuple(expected.shape)
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), **TOLERANCE)
    weight = array(*out.shape, seed=9)
    (out * weight).sum().backward()
    (expected * torch.tensor(weight)).sum().backward()
    for x, y in zip(mine, yours, strict=True):
        if isinstance(x, Tensor):
            np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), **TOLERANCE)
    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        np.testing.assert_allclose(
            parameter.grad.numpy(), reference[name].grad.numpy(), err_msg=name, **TOLERANCE
        )


LAYERS = {
    "linear": (lambda n: n.Linear(5, 3), (4, 5)),
    "linear_3d": (lambda n: n.Linear(5, 3), (2, 4, 5)),
    "linear_vector": (lambda n: n.Linear(5, 3), (5,)),
    "linear_no_bias": (lambda n: n.Linear(5, 3, bias=False), (4, 5)),
    "linear_one": (lambda n: n.Linear(1, 1), (1, 1)),
    "layer_norm": (lambda n: n.LayerNorm(7), (4, 7)),
    "layer_norm_2d": (lambda n: n.LayerNorm((3, 7), eps=1e-3), (4, 3, 7)),
    "layer_norm_no_bias": (lambda n: n.LayerNorm(7, bias=False), (4, 7)),
    "layer_norm_plain": (lambda n: n.LayerNorm(7, elementwise_affine=False), (4, 7)),
    "rms_norm": (lambda n: n.RMSNorm(7), (4, 7)),
    "rms_norm_2d": (lambda n: n.RMSNorm((3, 7), eps=1e-2), (4, 3, 7)),
    "relu": (lambda n: n.ReLU(), (4, 5)),
    "gelu": (lambda n: n.GELU(), (4, 5)),
    "gelu_tanh": (lambda n: n.GELU("tanh"), (4, 5)),
    "silu": (lambda n: n.SiLU(), (4, 5)),
    "tanh": (lambda n: n.Tanh(), (4, 5)),
    "sigmoid": (lambda n: n.Sigmoid(), (4, 5)),
    "softplus": (lambda n: n.Softplus(), (4, 5)),
    "softmax": (lambda n: n.Softmax(dim=1), (4, 5, 3)),
    "log_softmax": (lambda n: n.LogSoftmax(dim=-1), (4, 5, 3)),
    "identity": (lambda n: n.Identity(), (4, 5)),
    "flatten": (lambda n: n.Flatten(), (4, 5, 3)),
    "flatten_some": (lambda n: n.Flatten(0, 1), (4, 5, 3)),
    "unflatten": (lambda n: n.Unflatten(1, (2, -1)), (4, 6, 3)),
    "unflatten_last": (lambda n: n.Unflatten(-1, (3, 1)), (4, 3)),
    "unflatten_empty": (lambda n: n.Unflatten(1, (0, 3)), (4, 0)),
    "mlp": (lambda n: n.Sequential(n.Linear(5, 8), n.ReLU(), n.Linear(8, 3), n.Tanh()), (4, 5)),
    "residual_gelu": (
        lambda n: n.Sequential(n.Linear(5, 8), n.GELU("tanh"), n.Linear(8, 5)),
        (4, 5),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_torch(name):
    make, shape = LAYERS[name]
    compare(make(nn), make(torch.nn), array(*shape))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 3, 4)])
def test_embedding_equals_torch(shape):
    ids = np.random.default_rng(0).integers(0, 6, size=shape)
    compare(nn.Embedding(6, 4), torch.nn.Embedding(6, 4), ids)


def test_embedding_padding_row_starts_at_zero_and_gets_no_gradient():
    layer = nn.Embedding(6, 4, padding_idx=-1)
    assert not layer.weight.numpy()[5].any()
    layer(np.array([0, 5, 5])).sum().backward()
    assert layer.weight.grad.numpy()[0].tolist() == [1.0] * 4
    assert not layer.weight.grad.numpy()[5].any()
    table = Tensor(array(6, 4), requires_grad=True)
    nn.functional.embedding(np.array([0, 5, 5]), table, -1).sum().backward()
    assert table.grad.numpy().any(1).tolist() == [True] + [False] * 5
    with pytest.raises(ValueError, match=r"padding_idx: expected in \[-6, 6\), got 6"):
        nn.functional.embedding(np.array([0]), table, 6)


CLASS_WEIGHT = np.array([0.5, 2.0, 0.0])
LOSSES = {
    "mse": ("mse_loss", {}, "same"),
    "l1": ("l1_loss", {}, "same"),
    "bce": ("binary_cross_entropy_with_logits", {}, "probability"),
    "bce_weighted": (
        "binary_cross_entropy_with_logits",
        {"weight": array(3, seed=3) ** 2, "pos_weight": np.array([0.5, 2.0, 3.0])},
        "probability",
    ),
    "kl": ("kl_div", {}, "distribution"),
    "kl_log": ("kl_div", {"log_target": True}, "log"),
    "ce": ("cross_entropy", {}, "classes"),
    "ce_smooth": ("cross_entropy", {"label_smoothing": 0.1, "ignore_index": 1}, "classes"),
    "ce_weighted": ("cross_entropy", {"weight": CLASS_WEIGHT, "ignore_index": 1}, "classes"),
    "ce_weighted_smooth": (
        "cross_entropy",
        {"weight": CLASS_WEIGHT, "ignore_index": 0, "label_smoothing": 0.3},
        "classes",
    ),
    "nll": ("nll_loss", {"ignore_index": 0}, "classes"),
    "nll_weighted": ("nll_loss", {"weight": CLASS_WEIGHT, "ignore_index": 2}, "classes"),
}


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # torch's, about kl_div's mean
@pytest.mark.parametrize(
    "name, reduction",
    [(name, r) for name in LOSSES for r in ("mean", "sum", "none")]
    + [("kl", "batchmean"), ("kl_log", "batchmean")],
)
def test_loss_equals_torch(name, reduction):
    function, options, kind = LOSSES[name]
    rng = np.random.default_rng(0)
    x = array(6, 3)
    target = {
        "same": array(6, 3, seed=1),
        "probability": rng.uniform(size=(6, 3)),
        "distribution": rng.dirichlet([1.0] * 3, size=6),
        "log": np.log(rng.dirichlet([1.0] * 3, size=6)),
        "classes": rng.integers(0, 3, size=6),
    }[kind]
    if kind == "distribution":
        target[0] = [0.0, 0.5, 0.5]
    mine, yours = Tensor(x.copy(), requires_grad=True), torch.tensor(x, requires_grad=True)
    tensors = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    ours = getattr(nn.functional, function)(mine, target, reduction=reduction, **options)
    theirs = getattr(torch.nn.functional, function)(
        yours, torch.tensor(target), reduction=reduction, **tensors
    )
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), **TOLERANCE)
    ours.sum().backward()
    theirs.sum().backward()
    np.testing.assert_allclose(mine.grad.numpy(), yours.grad.numpy(), **TOLERANCE)


@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "NLLLoss"])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_class_axis_is_torchs(loss, shape):
    target_shape = shape[:1] + shape[2:] if len(shape) > 1 else ()
    target = np.random.default_rng(0).integers(0, 3, size=target_shape)
    for weight in (None, CLASS_WEIGHT + 1):
        ours = getattr(nn, loss)(weight)
        theirs = getattr(torch.nn, loss)(weight if weight is None else torch.tensor(weight))
        assert list(ours.state_dict()) == list(theirs.state_dict())
        np.testing.assert_allclose(
            ours(array(*shape), target).numpy(),
            theirs(torch.tensor(array(*shape)), torch.tensor(target)).numpy(),
            **TOLERANCE,
        )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_class_weights_with_nothing_to_count(reduction):
    target, weight = np.full(4, -100), np.ones(3)
    for loss in (nn.CrossEntropyLoss(weight, reduction=reduction), nn.NLLLoss(reduction=reduction)):
        got = loss(array(4, 3), target).item()
        assert np.isnan(got) if reduction == "mean" else got == 0.0


def test_float64_weights_join_a_float32_loss():
    x, y = array(4, 3).astype(np.float32), np.array([0, 1, 2, 2])
    assert nn.CrossEntropyLoss(CLASS_WEIGHT)(x, y).dtype == np.float32
    bce = nn.BCEWithLogitsLoss(CLASS_WEIGHT, pos_weight=CLASS_WEIGHT)
    assert bce(x, (x > 0).astype(np.float32)).dtype == np.float32


def test_bce_with_logits_stays_finite():
    x = Tensor(np.array([-1e4, 1e4, 0.0]), requires_grad=True)
    loss = nn.functional.binary_cross_entropy_with_logits(
        x, np.array([0.0, 1.0, 1.0]), reduction="none"
    )
    np.testing.assert_allclose(loss.numpy(), [0.0, 0.0, math.log(2)], rtol=1e-12)
    loss.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda n: n.Linear(300, 200),
        lambda n: n.Embedding(300, 200),
        lambda n: (
            n.MultiheadAttention(64, 4).in_proj_weight if n is nn else n.MultiheadAttention(64, 4)
        ),
        lambda n: n.Transformer(64, 4, 1, 1, 128),
    ],
    ids=["linear", "embedding", "attention", "transformer"],
)
def test_initialisation_has_torchs_distribution(make):
    random.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = make(nn), make(torch.nn)
    if not isinstance(ours, nn.Module):
        ours, theirs = {"": ours}, {"": theirs.in_proj_weight}
    else:
        ours, theirs = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert list(ours) == list(theirs)
    for name, parameter in ours.items():
        a, b = parameter.numpy(), theirs[name].detach().numpy()
        error = 6.0 / math.sqrt(a.size)  # six standard errors of a standardised mean or deviation
        assert abs(a.std() - b.std()) <= error * b.std() * 1.5 + 1e-12, name
        assert abs(a.mean() - b.mean()) <= 1.5 * error * max(b.std(), 1e-12), name
        if b.size > 1000:  # the same bounds: uniform against normal
            assert abs(np.abs(a).max() - np.abs(b).max()) <= 0.35 * np.abs(b).max(), name


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("xavier_uniform_", {"gain": 2.0}),
        ("xavier_normal_", {}),
        ("kaiming_uniform_", {"a": 0.2, "mode": "fan_out"}),
        ("kaiming_normal_", {"nonlinearity": "relu"}),
        ("uniform_", {"a": -2.0, "b": 3.0}),
        ("normal_", {"mean": 1.0, "std": 0.3}),
    ],
)
def test_initialisers_match_torchs_moments(name, arguments):
    random.manual_seed(0)
    ours = getattr(nn.init, name)(Tensor(np.zeros((80, 60, 3))), **arguments).numpy()
    torch.manual_seed(0)
    theirs = torch.zeros(80, 60, 3, dtype=torch.float64)
    getattr(torch.nn.init, name)(theirs, **arguments)
    n = ours.size
    assert abs(ours.std() - theirs.numpy().std()) <= 6 * ours.std() / math.sqrt(n)
    assert abs(ours.mean() - theirs.numpy().mean()) <= 9 * ours.std() / math.sqrt(n)


def test_dropout_is_seeded_and_off_in_eval():
    layer, x = nn.Dropout(0.3), np.ones((50, 40), np.float32)
    random.manual_seed(3)
    first = layer(x).numpy()
    second = layer(x).numpy()
    random.manual_seed(3)
    assert np.array_equal(first, layer(x).numpy())
    assert not np.array_equal(first, second)
    assert set(np.unique(first)) == {np.float32(0.0), np.float32(1.0) / np.float32(0.7)}
    kept = (first > 0).mean()
    assert abs(kept - 0.7) <= 5 * math.sqrt(0.3 * 0.7 / x.size)
    assert layer.eval()(x) is x


@pytest.mark.parametrize(
    ("layer", "shape", "channels"),
    [
        (nn.Dropout1d, (200, 30, 3), 2),
        (nn.Dropout1d, (6000, 3), 1),
        (nn.Dropout2d, (200, 30, 3, 2), 2),
        (nn.Dropout2d, (200, 30, 3), 2),
    ],
)
def test_dropout_of_channels(layer, shape, channels):
    random.manual_seed(3)
    x = Tensor(np.ones(shape, np.float32), requires_grad=True)
    y = layer(0.3)(x)
    rows = y.numpy().reshape(math.prod(shape[:channels]), -1)
    assert (rows == rows[:, :1]).all()
    assert set(np.unique(rows)) == {np.float32(0.0), np.float32(1.0) / np.float32(0.7)}
    assert abs((rows[:, 0] > 0).mean() - 0.7) <= 5 * math.sqrt(0.3 * 0.7 / len(rows))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    assert layer(0.3).eval()(x) is x and not layer(1.0)(x).numpy().any()
    with pytest.raises(ValueError, match=f"{layer.__name__.lower()}: x rank: expected"):
        layer()(x[0, 0])
    with pytest.raises(ValueError, match=f"{layer.__name__}: p: expected a probability"):
        layer(1.5)


def test_unflatten_refuses_what_does_not_fit():
    for sizes in ((4, 2), (2, -1, -1), (4, -1), (-3, -2), ()):
        with pytest.raises(ValueError, match="unflatten: sizes: expected lengths that make 6, got"):
            nn.functional.unflatten(array(2, 6), 1, sizes)
    with pytest.raises(IndexError, match=r"unflatten: dim: expected in \[-2, 2\), got 2"):
        nn.functional.unflatten(array(2, 6), 2, (2, 3))
    assert repr(nn.Unflatten(1, (2, 3))) == repr(torch.nn.Unflatten(1, (2, 3)))


def test_second_derivative_goes_through_layers():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = Tensor(array(5, 3), requires_grad=True)
    (slope,) = grad(model(x).sum(), [x], create_graph=True)
    (slope * slope).sum().backward()
    reference = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)
    ).double()
    reference.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    y = torch.tensor(array(5, 3), requires_grad=True)
    (theirs,) = torch.autograd.grad(reference(y).sum(), [y], create_graph=True)
    (theirs * theirs).sum().backward()
    expected = reference[0].weight.grad.numpy()
    np.testing.assert_allclose(model[0].weight.grad.numpy(), expected, **TOLERANCE)


@pytest.mark.parametrize("batch_first", [True, False])
def test_positions(batch_first):
    x = array(2, 5, 6).astype(np.float32)
    fed = x if batch_first else x.swapaxes(0, 1)
    layer = nn.SinusoidalPositionalEncoding(6, 20, batch_first=batch_first)
    assert layer.state_dict() == {}
    out = layer(fed, offset=3).numpy()
    out = out if batch_first else out.swapaxes(0, 1)
    t = np.arange(3, 8)[:, None]
    expected = np.zeros((5, 6))
    expected[:, 0::2] = np.sin(t / 10000 ** (np.arange(0, 6, 2) / 6))
    expected[:, 1::2] = np.cos(t / 10000 ** (np.arange(0, 6, 2) / 6))
    np.testing.assert_allclose(out - x, np.broadcast_to(expected, x.shape), atol=1e-6)
    learned = nn.LearnedPositionalEmbedding(6, 20, batch_first=batch_first)
    out = learned(fed, offset=3).numpy()
    out = out if batch_first else out.swapaxes(0, 1)
    np.testing.assert_allclose(out, x + learned.weight.numpy()[3:8], rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"positions: x length: expected at most 3 from offset 17, got 5"
    ):
        learned(fed, offset=17)
    assert layer.double()(fed.astype(np.float64)).dtype == np.float64
