"""Convolution modules beside torch's with the same weights, and what only they check."""

import numpy as np
import pytest

import vectile as vt
from vectile import nn, random

# class, arguments, settings, the input's spatial size
MODULES = [
    ("Conv2d", (4, 6, 3), {}, (9, 7)),
    ("Conv2d", (4, 6, 3), {"stride": 2, "padding": 1}, (9, 8)),
    ("Conv2d", (4, 6, (3, 2)), {"padding": "same", "dilation": 2, "groups": 2}, (9, 7)),
    ("Conv2d", (4, 6, 2), {"padding": "valid", "stride": 3, "bias": False}, (9, 7)),
    ("Conv2d", (4, 8, 3), {"groups": 4, "padding": 1}, (5, 17)),
    ("Conv2d", (4, 4, 1), {"stride": (2, 3)}, (9, 7)),
    ("Conv2d", (4, 6, 3), {"padding": (2, 1), "padding_mode": "reflect"}, (9, 7)),
    ("Conv2d", (4, 6, 4), {"padding": "same", "padding_mode": "replicate"}, (4, 5)),
    ("Conv1d", (4, 6, 5), {"padding": 2, "padding_mode": "circular"}, (9,)),
    ("Conv1d", (4, 6, 5), {"padding": 4, "dilation": 2, "groups": 2}, (9,)),
    ("Conv1d", (4, 6, 1), {"stride": 4}, (9,)),
    ("ConvTranspose2d", (4, 6, 4), {"stride": 2, "padding": 1}, (5, 4)),
    (
        "ConvTranspose2d",
        (4, 6, 3),
        {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2, "dilation": 2},
        (4, 3),
    ),
    ("ConvTranspose2d", (4, 6, 3), {"output_padding": 2, "dilation": 3}, (4, 3)),
    ("ConvTranspose2d", (4, 6, 2), {"stride": (3, 4), "bias": False}, (4, 3)),
    ("ConvTranspose1d", (4, 2, 2), {"stride": 4, "output_padding": 1}, (6,)),
]


@pytest.mark.parametrize("batch", [0, 1, 3, None])
@pytest.mark.parametrize("case", MODULES, ids=str)
def test_like_torch(case, batch):
    torch = pytest.importorskip("torch", reason="compares with torch")
    name, args, settings, size = case
    random.manual_seed(0)
    ours = getattr(nn, name)(*args, **settings, dtype=np.float64)
    theirs = getattr(torch.nn, name)(*args, **settings, dtype=torch.float64)
    assert repr(ours).split("dilation")[0] == repr(theirs).split("dilation")[0]
    state = {k: torch.from_numpy(np.array(v)) for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    rng = np.random.default_rng(1)
    shape = (args[0], *size) if batch is None else (batch, args[0], *size)
    if batch is None and settings.get("padding_mode", "zeros") != "zeros":
        pytest.importorskip("torch")  # torch pads a batch only
        shape = (1, *shape)
    x = rng.standard_normal(shape)
    a, b = vt.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    assert y.shape == tuple(z.shape)
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=0, atol=1e-12)
    g = rng.standard_normal(y.shape)
    y.backward(g)
    z.backward(torch.from_numpy(g))
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=0, atol=1e-11)
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=0, atol=1e-11, err_msg=key)


def test_initialisation_is_torchs():
    random.manual_seed(0)
    conv, transpose = nn.Conv2d(8, 64, 3, groups=2), nn.ConvTranspose2d(8, 64, 3, groups=2)
    for module, fan_in in ((conv, 4 * 9), (transpose, 32 * 9)):
        bound = fan_in**-0.5
        for p in (module.weight, module.bias):
            values = p.numpy()
            assert values.dtype == np.float32 and np.abs(values).max() <= bound
        # the standard deviation of a uniform sample of n is within 5 / sqrt(n) of bound / sqrt(3)
        spread = module.weight.numpy().std() / (bound / 3**0.5)
        assert abs(spread - 1) < 5 / module.weight.size**0.5


def test_output_size_chooses_among_the_sizes_that_a_stride_leaves_open():
    up, down = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1), nn.Conv2d(2, 3, 3, 2, 1)
    for size in ((9, 10), (10, 9)):
        y = down(np.zeros((1, 2, *size), np.float32))
        assert up(y, output_size=size).shape == (1, 2, *size)
    with pytest.raises(ValueError, match="ConvTranspose2d: output_size: expected 9 to 10, got 11"):
        up(y, output_size=(11, 9))


def test_activation_is_the_one_after():
    random.manual_seed(0)
    conv, x = nn.Conv2d(3, 4, 3), np.random.default_rng(0).random((2, 3, 6, 6), np.float32)
    np.testing.assert_array_equal(
        conv(x, activation="relu").numpy(), nn.functional.relu(conv(x)).numpy()
    )


def test_gradient_penalty():
    """The gradient of a norm of a gradient, through two convolutions, against differences."""
    random.manual_seed(0)
    f64 = np.float64
    down, up = nn.Conv2d(2, 3, 3, 2, 1, dtype=f64), nn.ConvTranspose2d(3, 1, 4, 2, 1, dtype=f64)
    x = vt.tensor(np.random.default_rng(0).standard_normal((2, 2, 6, 6)), requires_grad=True)

    def penalty():
        out = up(nn.functional.tanh(down(x))).sum()
        (g,) = vt.grad(out, x, create_graph=True)
        return ((g * g).sum() - 1) ** 2

    penalty().backward()
    for p in (down.weight, down.bias, up.weight):
        got = p.grad.numpy().ravel()
        for i in range(0, p.size, 5):
            values = p.data.copy()
            results = []
            for step in (1e-6, -1e-6):
                moved = values.copy()
                moved.flat[i] += step
                p.data = moved
                results.append(penalty().item())
            p.data = values
            # differences: eps |penalty| / h and h^2 / 6 of the third derivative
            expected = (results[0] - results[1]) / 2e-6
            assert abs(got[i] - expected) <= 1e-7 * max(1.0, abs(expected))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "Conv2d: in_channels: expected a mult"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), ValueError, "Conv2d: out_channels: expected a mul"),
        (
            lambda: nn.Conv2d(3, 4, (3, 3, 3)),
            ValueError,
            "Conv2d: kernel_size length: expected 1 or 2",
        ),
        (lambda: nn.Conv2d(3, 4, 3, 2, "same"), ValueError, "stride value: expected 1 with pad"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="wrap"), ValueError, "padding_mode: expected"),
        (
            lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"),
            ValueError,
            "ConvTranspose2d: padding_mode: expected 'zeros', got 'reflect'",
        ),
        (
            lambda: nn.Conv1d(3, 4, 9, padding=4, padding_mode="reflect")(
                np.zeros((1, 3, 4), "f4")
            ),
            ValueError,
            "Conv1d: padding: expected at most 3 of 'reflect' on an axis of 4, got 4",
        ),
        (
            lambda: nn.Conv2d(3, 4, 3)(np.zeros((1, 3, 2, 2), "f4")),
            ValueError,
            "conv2d: x size: expected at least 3 with padding",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
