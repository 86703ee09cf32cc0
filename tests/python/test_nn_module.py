"""Module: registration, the tree, state, modes and messages; no reference library needed."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from vectile import manual_seed, nn, optim
from vectile.autograd import Tensor
from vectile.nn.utils import clip_grad_norm_, clip_grad_value_


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(np.ones(3, np.float32))
        self.register_buffer("count", np.zeros(2, np.float32))
        self.register_buffer("scratch", np.zeros(2, np.float32), persistent=False)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3, bias=False))
        self.rest = nn.ModuleList([nn.Linear(3, 3)])
        self.named = nn.ModuleDict({"a": nn.Identity(), "b": nn.Linear(3, 2)})

    def forward(self, x):
        return self.named["b"](self.rest[0](self.body(x * self.scale)))


KEYS = [
    "scale",
    "count",
    "body.0.weight",
    "body.0.bias",
    "body.2.weight",
    "rest.0.weight",
    "rest.0.bias",
    "named.b.weight",
    "named.b.bias",
]


def test_names_and_order():
    net = Net()
    assert list(net.state_dict()) == KEYS
    assert [name for name, _ in net.named_parameters()] == [k for k in KEYS if k != "count"]
    assert [name for name, _ in net.named_buffers()] == ["count", "scratch"]
    assert [name for name, _ in net.named_children()] == ["body", "rest", "named"]
    assert [name for name, _ in net.named_modules()][:4] == ["", "body", "body.0", "body.1"]
    assert net.get_submodule("body.2") is net.body[2]
    assert net.get_submodule("") is net
    with pytest.raises(AttributeError, match=r"no submodule 'body\.9'"):
        net.get_submodule("body.9")


def test_reassigning_and_deleting_keeps_the_registry():
    net = Net()
    net.scale = None
    assert "scale" not in net.state_dict() and net.scale is None
    net.scale = nn.Parameter(np.zeros(3, np.float32))
    assert "scale" in net.state_dict()
    net.rest = nn.Identity()
    assert "rest.0.weight" not in net.state_dict()
    for name, value, kind in (
        ("scale", np.zeros(3, np.float32), "a Parameter"),
        ("scale", Tensor(np.zeros(3, np.float32)), "a Parameter"),
        ("body", np.tanh, "a Module"),
    ):
        kept = getattr(net, name)
        with pytest.raises(TypeError, match=rf"Net\.{name}: expected {kind} or None, got"):
            setattr(net, name, value)
        assert getattr(net, name) is kept and any(key.startswith(name) for key in net.state_dict())
    del net.named
    assert not hasattr(net, "named") and "named.b.bias" not in net.state_dict()
    net.count = np.ones(2, np.float32)
    assert net.state_dict()["count"].tolist() == [1.0, 1.0]
    with pytest.raises(AttributeError, match="super"):
        type("Bad", (nn.Module,), {"__init__": lambda self: setattr(self, "x", 1)})()


def test_shared_parameters_count_once_and_are_saved_under_both_names():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 1
    assert list(net.state_dict()) == ["0.weight", "1.weight"]
    other = copy.deepcopy(net)
    assert other[0].weight is other[1].weight and other[0].weight is not net[0].weight


def test_state_round_trip_copies():
    first, second = Net(), Net()
    first.count[:] = 7
    assert second.load_state_dict(first.state_dict()) == ([], [])
    for key, value in second.state_dict().items():
        assert np.array_equal(value, first.state_dict()[key])
        assert not np.shares_memory(value, first.state_dict()[key])
    third = pickle.loads(pickle.dumps(first.body))
    assert np.array_equal(third[0].weight.numpy(), first.body[0].weight.numpy())


def test_loading_errors_name_the_key_and_change_nothing():
    net = Net()
    before = {k: v.copy() for k, v in net.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()}
    missing = {k: v for k, v in state.items() if k != "rest.0.bias"} | {"extra": np.ones(1)}
    with pytest.raises(KeyError, match=r"missing keys: rest\.0\.bias; unexpected keys: extra"):
        net.load_state_dict(missing)
    for wrong in (np.zeros((2, 3), complex), np.full((2, 3), "a")):
        dtype = r"Net\.load_state_dict: named\.b\.weight dtype: expected float32, got "
        with pytest.raises(TypeError, match=dtype + str(wrong.dtype)):
            net.load_state_dict({**state, "named.b.weight": wrong})
    state["named.b.weight"] = np.zeros((3, 2))
    message = r"Net\.load_state_dict: named\.b\.weight shape: expected \(2, 3\), got \(3, 2\)"
    with pytest.raises(ValueError, match=message):
        net.load_state_dict(state)
    assert all(np.array_equal(v, before[k]) for k, v in net.state_dict().items())
    report = net.load_state_dict(missing, strict=False)
    assert report.missing_keys == ["rest.0.bias"] and report.unexpected_keys == ["extra"]
    assert np.array_equal(net.scale.numpy(), before["scale"] + 1)
    assert np.array_equal(net.rest[0].bias.numpy(), before["rest.0.bias"])


def test_modes_gradients_dtype_and_apply():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert all(m.training for m in net.train().modules())
    net(np.ones((2, 3), np.float32)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.double()
    assert {v.dtype for v in net.state_dict().values()} == {np.dtype(np.float64)}
    assert net(np.ones((2, 3))).dtype == np.float64
    assert net.float().scale.dtype == np.float32
    with pytest.raises(
        TypeError, match="expected float16, bfloat16, float32 or float64, got int64"
    ):
        net.to(np.int64)
    seen = []
    net.apply(lambda module: seen.append(type(module).__name__))
    assert seen[0] == "Linear" and seen[-1] == "Net"
    net.requires_grad_(False)
    assert not net(np.ones((2, 3), np.float32)).requires_grad


def test_errors_name_the_path_of_the_module():
    net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    with pytest.raises(ValueError, match=r"\(in 1\.1\)$"):
        net(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError) as caught:
        nn.Linear(3, 4)(np.ones((2, 5), np.float32))
    assert "(in" not in str(caught.value)


def test_containers():
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)
    sequence = nn.Sequential({"first": a, "act": b}).append(c)
    assert list(sequence) == [a, b, c] and sequence[-1] is c and list(sequence[:2]) == [a, b]
    items = nn.ModuleList([a]).append(b).extend([c])
    assert len(items) == 3 and items[-1] is c and list(items[1:]) == [b, c]
    items[1] = a
    assert items[1] is a
    with pytest.raises(IndexError, match=r"expected one in \[-3, 3\), got 3"):
        items[3]
    table = nn.ModuleDict({"x": a})
    table["y"] = b
    assert list(table) == ["x", "y"] and "y" in table and len(table) == 2
    del table["x"]
    assert list(table.items()) == [("y", b)]
    for name in ("keys", "training", "_buffers"):
        with pytest.raises(ValueError, match=f"expected a new one, got '{name}', which ModuleDict"):
            table[name] = a
        with pytest.raises(ValueError, match="which ModuleDict has"):
            nn.ModuleDict({name: a})
    table["y"] = b
    with pytest.raises(ValueError, match="'forward', which Sequential has"):
        nn.Sequential({"forward": a})
    with pytest.raises(TypeError, match="expected a Module or None, got int"):
        items.append(3)
    with pytest.raises(ValueError, match="expected a word without dots"):
        table["a.b"] = a


def test_repr_shows_the_tree():
    text = repr(nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Dropout(0.1))))
    assert text.splitlines() == [
        "Sequential(",
        "  (0): Linear(in_features=3, out_features=4, bias=True)",
        "  (1): Sequential(",
        "    (0): Dropout(p=0.1)",
        "  )",
        ")",
    ]


def test_gradient_clipping():
    parameters = [nn.Parameter(np.zeros(3)), nn.Parameter(np.zeros(4)), nn.Parameter(np.zeros(2))]
    for parameter, value in zip(parameters, (3.0, -4.0), strict=False):
        parameter.grad = Tensor(np.full(parameter.shape, value))
    norm = float(np.sqrt(3 * 9 + 4 * 16))
    assert clip_grad_norm_(parameters, 100.0) == pytest.approx(norm, rel=1e-15)
    assert parameters[0].grad.numpy()[0] == 3.0
    assert clip_grad_norm_(parameters, 1.0) == pytest.approx(norm, rel=1e-15)
    joint = np.sqrt(sum((p.grad.numpy() ** 2).sum() for p in parameters[:2]))
    assert joint == pytest.approx(norm / (norm + 1e-6), rel=1e-14)
    flat = np.concatenate([p.grad.numpy() for p in parameters[:2]])
    for p in (1, 2.5, np.inf):
        kept = [q.grad for q in parameters]
        for q in parameters[:2]:
            q.grad = q.grad.copy()
        expected = np.linalg.norm(flat, p)
        assert clip_grad_norm_(parameters, 0.5, p) == pytest.approx(expected, rel=1e-14)
        clipped = np.concatenate([q.grad.numpy() for q in parameters[:2]])
        assert np.linalg.norm(clipped, p) == pytest.approx(min(0.5, expected), rel=1e-5)
        for q, grad in zip(parameters, kept, strict=True):
            q.grad = grad
    with pytest.raises(ValueError, match="norm_type: expected > 0, got 0"):
        clip_grad_norm_(parameters, 1.0, 0)
    clip_grad_value_(parameters, 0.1)
    assert max(np.abs(p.grad.numpy()).max() for p in parameters[:2]) == 0.1
    parameters[0].grad = Tensor(np.full(3, np.nan))
    with pytest.raises(RuntimeError, match="expected a finite value, got nan"):
        clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    assert clip_grad_norm_([nn.Parameter(np.zeros(1))], 1.0) == 0.0


def test_clipping_one_gradient_leaves_another_that_came_from_the_same_array():
    first, second = nn.Parameter(np.ones((3, 4))), nn.Parameter(np.ones((3, 4)))
    (first + second).sum().backward()
    clip_grad_norm_([first], 0.1)
    assert np.linalg.norm(first.grad.numpy()) == pytest.approx(0.1, rel=1e-6)
    assert (second.grad.numpy() == 1.0).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.Dropout(1.5), r"p: expected a probability in \[0, 1\], got 1.5"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), r"padding_idx: expected in \[-3, 3\), got 3"),
        (lambda: nn.GELU("fast"), 'approximate: expected "none" or "tanh"'),
        (
            lambda: nn.MSELoss(reduction="avg"),
            "reduction: expected one of none, mean, sum, got 'avg'",
        ),
        (lambda: nn.Linear(-1, 2), "sizes >= 0"),
        (
            lambda: nn.functional.mse_loss(np.ones(3), np.ones((3, 1))),
            r"target shape: expected \(3,\)",
        ),
        (
            lambda: nn.functional.cross_entropy(np.ones((4, 3)), np.zeros((3,), int)),
            r"target shape: expected \(4,\), got \(3,\)",
        ),
        (lambda: nn.LayerNorm(4)(np.ones((2, 3))), r"\(4,\), got \(3,\)"),
        (
            lambda: nn.Flatten(2, 1)(np.ones((2, 3, 4))),
            "start_dim: expected at most end_dim 1, got 2",
        ),
    ],
)
def test_wrong_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_types_and_indices_are_named():
    with pytest.raises(TypeError, match="target dtype: expected integers, got float64"):
        nn.functional.cross_entropy(np.ones((4, 3)), np.zeros(4))
    for loss in (nn.functional.nll_loss, nn.functional.cross_entropy):
        for bad in (3, -1):
            with pytest.raises(IndexError, match=rf"at \(3,\): .*expected .* got {bad}$"):
                loss(np.ones((4, 3)), np.array([0, 1, -100, bad]), np.ones(3))
        with pytest.raises(ValueError, match=r"weight shape: expected \(3,\), got \(4,\)"):
            loss(np.ones((4, 3)), np.zeros(4, int), np.ones(4))
    with pytest.raises(IndexError):
        nn.Embedding(3, 2)(np.array([3]))
    with pytest.raises(
        TypeError, match="expected float16, bfloat16, float32 or float64, got int32"
    ):
        nn.Linear(2, 2, dtype=np.int32)


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (nn.Linear(3, 4), [(2, 5)]),
        (nn.Conv2d(2, 3, 3), [(1, 4, 9, 9)]),
        (nn.Conv2d(2, 3, 3, padding=2, padding_mode="reflect"), [(1, 2, 2, 9)]),
        (nn.LayerNorm(4), [(2, 3)]),
        (nn.BatchNorm1d(4), [(2, 3)]),
        (nn.LSTM(3, 4), [(2, 2, 5)]),
        (nn.GRUCell(3, 4), [(2, 5)]),
        (nn.MaxPool2d(5), [(1, 1, 3, 3)]),
        (nn.MultiheadAttention(8, 2), [(3, 2, 8), (3, 2, 6), (3, 2, 6)]),
        (nn.PReLU(4), [(2, 3)]),
        (nn.HuberLoss(), [(2, 3), (3, 2)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_family_names_its_path(layer, shapes):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([nn.Identity(), layer])

        def forward(self, *inputs):
            return self.parts[1](*inputs)

    net = nn.ModuleDict({"body": Block()})
    net.forward = lambda *inputs: net["body"](*inputs)
    with pytest.raises(ValueError, match=r"expected .*, got .* \(in body\.parts\.1\)$"):
        net(*(np.zeros(shape, np.float32) for shape in shapes))


def test_a_packed_linear_follows_its_weight():
    manual_seed(0)
    plain = nn.Linear(5, 3)
    packed = nn.Linear(5, 3).pack()
    packed.load_state_dict({k: v.copy() for k, v in plain.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)

    def agree(a=plain, b=packed):
        np.testing.assert_allclose(a(x).numpy(), b(x).numpy(), rtol=0, atol=1e-6)

    agree()
    for layer in (plain, packed):  # an optimiser's step writes to the weight
        step = optim.SGD(layer.parameters(), lr=0.5)
        for _ in range(2):
            step.zero_grad()
            (layer(x) ** 2).sum().backward()
            step.step()
    agree()
    twin = copy.deepcopy(packed)
    packed.weight.data = packed.weight.data * 2
    agree(plain, twin)
    plain.weight.data = plain.weight.data * 2
    agree()
    packed.weight = nn.Parameter(np.zeros((3, 5), np.float32))  # another parameter in its place
    np.testing.assert_array_equal(packed(x).numpy(), np.tile(packed.bias.numpy(), (4, 1)))


def test_a_packed_weight_is_packed_once_per_change():
    w = nn.Parameter(np.ones((3, 2), np.float32))
    p = nn.functional.pack(w)
    first = p.matrix()
    assert p.matrix() is first
    w.data = w.data + 1
    assert p.matrix() is not first
    with pytest.raises(ValueError, match="pack: weight ndim: expected 2, got 1"):
        nn.functional.pack(nn.Parameter(np.ones(3, np.float32)))
