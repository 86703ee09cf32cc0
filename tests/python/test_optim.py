"""Optimisers and schedules against PyTorch, step by step, and their saved state."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest

from vectile import nn, optim
from vectile.autograd import Tensor
from vectile.optim import lr_scheduler

OPTIMISERS = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd_decay": ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    "sgd_momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "sgd_nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": ("Adam", {"lr": 0.05, "weight_decay": 0.1}),
    "adam_betas": ("Adam", {"lr": 0.05, "betas": (0.7, 0.9), "eps": 1e-4}),
    "adamw": ("AdamW", {"lr": 0.05, "weight_decay": 0.3}),
    "rmsprop": ("RMSprop", {"lr": 0.05, "weight_decay": 0.1, "alpha": 0.8}),
    "rmsprop_momentum": ("RMSprop", {"lr": 0.05, "momentum": 0.7}),
}
SHAPES = [(3, 4), (4,), (1,), (0,), (17, 5)]


def start():
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in SHAPES]


def gradients(step):
    rng = np.random.default_rng(100 + step)
    return [rng.normal(size=shape) for shape in SHAPES]


def ours(name, values):
    kind, options = OPTIMISERS[name]
    params = [nn.Parameter(value.copy()) for value in values]
    return params, getattr(optim, kind)(params, **options)


def advance(params, optimiser, step):
    for parameter, gradient in zip(params, gradients(step), strict=True):
        parameter.grad = Tensor(gradient)
    optimiser.step()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_six_steps_equal_torch_even_when_a_gradient_is_missing(name):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference for the formulas")
    params, optimiser = ours(name, start())
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in start()]
    kind, options = OPTIMISERS[name]
    reference = getattr(torch.optim, kind)(theirs, **options)
    for step in range(6):
        for i, gradient in enumerate(gradients(step)):
            missing = i == 1 and step in (0, 3)
            params[i].grad = None if missing else Tensor(gradient)
            theirs[i].grad = None if missing else torch.tensor(gradient)
        optimiser.step()
        reference.step()
        for parameter, expected in zip(params, theirs, strict=True):
            # float64; Adam divides by sqrt(v), which costs a few roundings a step
            np.testing.assert_allclose(
                parameter.numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-13
            )


@pytest.mark.parametrize("name", OPTIMISERS)
def test_restored_state_continues_bit_for_bit(name):
    params, optimiser = ours(name, start())
    for step in range(3):
        advance(params, optimiser, step)
    saved = copy.deepcopy(optimiser.state_dict())
    again, restored = ours(name, [p.numpy() for p in params])
    restored.param_groups[0]["lr"] = 99.0
    restored.load_state_dict(saved)
    assert restored.param_groups[0]["lr"] == OPTIMISERS[name][1]["lr"]
    for step in range(3, 6):
        advance(params, optimiser, step)
        advance(again, restored, step)
    for a, b in zip(params, again, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("name", OPTIMISERS)
def test_torch_state_loads(name):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference for the layout")
    kind, options = OPTIMISERS[name]
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in start()]
    reference = getattr(torch.optim, kind)(theirs, **options)

    def torch_step(step):
        for parameter, gradient in zip(theirs, gradients(step), strict=True):
            parameter.grad = torch.tensor(gradient)
        reference.step()

    torch_step(0)
    torch_step(1)
    params, optimiser = ours(name, [p.detach().numpy() for p in theirs])
    optimiser.load_state_dict(reference.state_dict())
    advance(params, optimiser, 2)
    torch_step(2)
    for parameter, expected in zip(params, theirs, strict=True):
        np.testing.assert_allclose(
            parameter.numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-13
        )


def test_groups_have_their_own_options():
    a, b = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    optimiser = optim.SGD([{"params": [a], "lr": 1.0}, {"params": b}], lr=0.5)
    for parameter in (a, b):
        parameter.grad = Tensor(np.ones(2))
    optimiser.step()
    assert a.numpy().tolist() == [0.0, 0.0] and b.numpy().tolist() == [0.5, 0.5]
    optimiser.zero_grad()
    assert a.grad is None and b.grad is None
    assert optimiser.step(lambda: 3.0) == 3.0


@pytest.mark.parametrize(
    "make, error, message",
    [
        (
            lambda p: optim.SGD([], 0.1),
            ValueError,
            "params: expected an iterable of parameters, got nothing",
        ),
        (lambda p: optim.SGD(p, 0.1), ValueError, "got one Tensor"),
        (lambda p: optim.SGD([p, p], 0.1), ValueError, "a parameter appears twice"),
        (lambda p: optim.SGD([np.ones(2)], 0.1), TypeError, "expected Tensors, got ndarray"),
        (lambda p: optim.SGD([p], -1.0), ValueError, "lr: expected a number >= 0, got -1.0"),
        (lambda p: optim.SGD([p], 1.0, nesterov=True), ValueError, "momentum > 0"),
        (
            lambda p: optim.Adam([p], betas=(0.9, 1.0)),
            ValueError,
            r"betas: expected in \[0, 1\), got 1.0",
        ),
        (lambda p: optim.AdamW([{"params": [p], "beta": 1}]), ValueError, r"got \['beta'\]"),
        (lambda p: optim.RMSprop([p], alpha=float("nan")), ValueError, "alpha"),
        (lambda p: optim.penalty([p], l1=-1), ValueError, "l1 and l2"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make(nn.Parameter(np.ones(2)))


def test_loading_foreign_state_is_refused():
    a = optim.Adam([nn.Parameter(np.ones(2))])
    b = optim.Adam([nn.Parameter(np.ones(2)), nn.Parameter(np.ones(3))])
    with pytest.raises(ValueError, match=r"parameters per group: expected \[1\], got \[2\]"):
        a.load_state_dict(b.state_dict())
    c = optim.Adam([nn.Parameter(np.ones(3))])
    c.param_groups[0]["params"][0].grad = Tensor(np.ones(3))
    c.step()
    with pytest.raises(
        ValueError, match=r"exp_avg of parameter 0 shape: expected \(2,\), got \(3,\)"
    ):
        a.load_state_dict(c.state_dict())


def test_a_step_makes_an_older_graph_refuse():
    p = nn.Parameter(np.ones(2))
    optimiser = optim.SGD([p], 0.1)
    loss = (p * p).sum()
    p.grad = Tensor(np.ones(2))
    optimiser.step()
    with pytest.raises(RuntimeError, match=r"SGD\.step"):
        loss.backward()


def test_penalty_and_its_gradient():
    p, q = nn.Parameter(np.array([1.0, -2.0])), nn.Parameter(np.array([[3.0]]))
    value = optim.penalty([p, q], l1=0.5, l2=0.25)
    assert value.item() == 0.5 * 6 + 0.25 * 14
    value.backward()
    assert p.grad.numpy().tolist() == [0.5 + 0.5, -0.5 - 1.0]
    assert q.grad.numpy().tolist() == [[0.5 + 1.5]]


SCHEDULES = {
    "constant": ("ConstantLR", {"factor": 0.3, "total_iters": 4}),
    "step": ("StepLR", {"step_size": 3, "gamma": 0.5}),
    "cosine": ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_torch(name):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference for the schedules")
    kind, options = SCHEDULES[name]
    mine = optim.SGD(
        [{"params": [nn.Parameter(np.ones(1))]}, {"params": [nn.Parameter(np.ones(1))], "lr": 0.3}],
        lr=0.1,
    )
    theirs = torch.optim.SGD(
        [
            {"params": [torch.nn.Parameter(torch.ones(1))]},
            {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.3},
        ],
        lr=0.1,
    )
    a = getattr(lr_scheduler, kind)(mine, **options)
    b = getattr(torch.optim.lr_scheduler, kind)(theirs, **options)
    for _ in range(12):
        np.testing.assert_allclose(a.get_last_lr(), b.get_last_lr(), rtol=1e-12)
        mine.step()
        theirs.step()
        a.step()
        b.step()


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 1, "factor": 0.5},
        {"mode": "max", "patience": 0, "threshold": 0.1},
        {"threshold_mode": "abs", "threshold": 0.2, "patience": 1, "cooldown": 2, "min_lr": 0.02},
        {"mode": "max", "threshold_mode": "abs", "threshold": 0.05, "patience": 1},
    ],
)
def test_plateau_equals_torch(options):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference for the schedules")
    mine = optim.SGD([nn.Parameter(np.ones(1))], lr=0.1)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    a = lr_scheduler.ReduceLROnPlateau(mine, **options)
    b = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    for metric in [
        1.0,
        0.9,
        0.9,
        0.95,
        0.9,
        0.5,
        0.6,
        0.61,
        0.59,
        0.6,
        0.7,
        0.1,
        0.2,
        0.2,
        0.2,
        0.3,
    ]:
        a.step(metric)
        b.step(metric)
        assert mine.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    again = lr_scheduler.ReduceLROnPlateau(mine, **options)
    again.load_state_dict(a.state_dict())
    assert again.state_dict() == a.state_dict()


def test_warm_up_then_cosine():
    optimiser = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
    schedule = lr_scheduler.WarmupCosineLR(optimiser, warmup=4, total=12, final_ratio=0.1)
    rates = []
    for _ in range(14):
        rates.append(optimiser.param_groups[0]["lr"])
        schedule.step()
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-12)
    assert rates[8] == pytest.approx(0.55) and rates[12] == rates[13] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))
    schedule.load_state_dict({"last_epoch": 2, "base_lrs": [2.0]})
    assert optimiser.param_groups[0]["lr"] == pytest.approx(1.2)
    warm = lr_scheduler.LinearWarmupLR(optim.SGD([nn.Parameter(np.ones(1))], lr=1.0), 1)
    assert warm.get_last_lr() == [0.5]
    with pytest.raises(ValueError, match="warmup: expected in"):
        lr_scheduler.WarmupCosineLR(optimiser, warmup=5, total=5)


def test_warm_up_then_inverse_square_root():
    d, warmup = 128, 5  # arXiv 1706.03762, eq. 3
    optimiser = optim.SGD([nn.Parameter(np.ones(1))], lr=(d * warmup) ** -0.5)
    schedule = lr_scheduler.InverseSqrtLR(optimiser, warmup)
    for step in range(1, 40):
        expected = d**-0.5 * min(step**-0.5, step * warmup**-1.5)
        np.testing.assert_allclose(schedule.get_last_lr(), expected, rtol=1e-12)
        schedule.step()
    with pytest.raises(ValueError, match="warmup: expected a number > 0, got 0"):
        lr_scheduler.InverseSqrtLR(optimiser, 0)


def test_step_size_must_be_positive():
    optimiser = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
    with pytest.raises(ValueError, match="step_size: expected a number > 0, got 0"):
        lr_scheduler.StepLR(optimiser, 0)


def test_state_that_lacks_a_buffer_is_refused():
    optimiser = optim.Adam([nn.Parameter(np.ones(2))], lr=0.1)
    optimiser.param_groups[0]["params"][0].grad = Tensor(np.ones(2))
    optimiser.step()
    state = optimiser.state_dict()
    del state["state"][0]["exp_avg_sq"]
    message = "state of parameter 0: expected exp_avg, exp_avg_sq, got no exp_avg_sq"
    with pytest.raises(ValueError, match=message):
        optimiser.load_state_dict(state)
    momentum = optim.SGD([nn.Parameter(np.ones(2))], lr=0.1)
    groups = momentum.state_dict()["param_groups"]
    wrong = {"state": {0: {"step": 3}}, "param_groups": [{**groups[0], "momentum": 0.9}]}
    with pytest.raises(ValueError, match="got no momentum_buffer"):
        momentum.load_state_dict(wrong)


def test_a_step_that_fails_does_not_count():
    parameter = nn.Parameter(np.ones(2))
    optimiser = optim.Adam([parameter], lr=0.1)
    parameter.grad = Tensor(np.ones(2, np.float32))
    with pytest.raises(TypeError):
        optimiser.step()
    assert optimiser.state_dict()["state"] == {}


def test_a_schedule_takes_up_a_group_that_is_added_later():
    optimiser = optim.SGD([nn.Parameter(np.ones(1))], lr=1.0)
    schedule = lr_scheduler.StepLR(optimiser, 1, 0.5)
    schedule.step()
    optimiser.add_param_group({"params": [nn.Parameter(np.ones(1))], "lr": 8.0})
    schedule.step()
    assert schedule.get_last_lr() == [0.25, 2.0]
    assert schedule.state_dict() == {"last_epoch": 2, "base_lrs": [1.0, 8.0]}
    with pytest.raises(ValueError, match="warmup: expected a number >= 0, got -1"):
        lr_scheduler.LinearWarmupLR(optimiser, -1)
