"""GANs: shapes and seeds, the losses' formulas, and penalties that can be differentiated once more."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import models, nn, optim, random
from vectile.autograd import Tensor, no_grad, tensor
from vectile.models import adversarial
from vectile.models.cyclegan import ImagePool, cycle_loss, least_squares

PAIRS = {
    "mlp": (lambda: models.MLPGenerator(5, 12), lambda: models.MLPDiscriminator(12), 8, 0),
    "dcgan": (lambda: models.DCGenerator(5, 4), lambda: models.DCDiscriminator(4), 16, 0),
    "conditional": (
        lambda: models.DCGenerator(5, 4, classes=3),
        lambda: models.DCDiscriminator(4, classes=3),
        16,
        3,
    ),
    "critic": (
        lambda: models.DCGenerator(5, 4),
        lambda: models.DCDiscriminator(4, batch_norm=False),
        16,
        0,
    ),
}


def scalar(value):
    return np.asarray(value, np.float64).item()


@pytest.mark.parametrize("name", PAIRS)
def test_shapes_range_and_seed(name, rng):
    make, judge, size, classes = PAIRS[name]
    z = rng.standard_normal((6, 5)).astype(np.float32)
    labels = (np.arange(6) % classes,) if classes else ()
    made = []
    for seed in (1, 1, 2):
        random.manual_seed(seed)
        made.append(make()(z, *labels).numpy())
    assert made[0].shape == (6, 1, size, size) and np.abs(made[0]).max() <= 1
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])
    scores = judge()(made[0], *labels)
    assert scores.shape == (6,)
    scores.sum().backward()


def test_a_label_changes_the_picture_and_its_score(rng):
    random.manual_seed(0)
    generator, judge = (part().eval() for part in PAIRS["conditional"][:2])
    z = np.repeat(rng.standard_normal((1, 5)).astype(np.float32), 2, 0)
    images = generator(z, [0, 2]).numpy()
    assert not np.allclose(images[0], images[1])
    scores = judge(images[[0, 0]], [0, 2]).numpy()
    assert scores[0] != scores[1]


@pytest.mark.parametrize(("labels", "error"), [(None, ValueError), ([3, 0], IndexError)])
def test_bad_labels_are_refused(labels, error):
    with pytest.raises(error, match="labels"):
        PAIRS["conditional"][0]()(np.zeros((2, 5), np.float32), labels)


def test_losses_are_the_papers(rng):
    real, fake = rng.standard_normal((2, 7))
    d_real, d_fake = (1 / (1 + np.exp(-x)) for x in (real, fake))
    found = adversarial.discriminator_loss(tensor(real), tensor(fake)).item()
    assert np.isclose(found, -np.log(d_real).mean() - np.log(1 - d_fake).mean())
    found = adversarial.generator_loss(tensor(fake)).item()
    assert np.isclose(found, -np.log(d_fake).mean())
    found = adversarial.critic_loss(tensor(real), tensor(fake)).item()
    assert np.isclose(found, fake.mean() - real.mean())


def test_clipped_weights_stay_within_the_bound(rng):
    critic = models.DCDiscriminator(4, batch_norm=False)
    adversarial.clip_weights_(critic.parameters(), 0.01)
    largest = max(float(np.abs(p.data).max()) for p in critic.parameters())
    assert np.float32(largest) == np.float32(0.01)
    with pytest.raises(ValueError, match="bound: expected > 0"):
        adversarial.clip_weights_(critic.parameters(), 0.0)


def tiny_critic():
    """Two convolutions with a smooth nonlinearity in between, in float64."""
    random.manual_seed(3)
    critic = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 2)
    ).double()
    return critic, lambda x: critic(x).reshape((-1,))


def slopes(f, x, step=1e-5):
    """d f(x).sum() / dx by central differences."""
    out = np.empty_like(x)
    for i in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[i] += sign * step
            with no_grad():
                ends.append(scalar(f(Tensor(moved)).sum().item()))
        out[i] = (ends[0] - ends[1]) / (2 * step)
    return out


def test_the_gradient_penalty_is_the_papers(rng):
    _, f = tiny_critic()
    real, fake = rng.standard_normal((2, 3, 1, 4, 4))
    mix = np.array([0.0, 0.3, 1.0])
    points = mix[:, None, None, None] * real + (1 - mix[:, None, None, None]) * fake
    norms = np.sqrt((slopes(f, points) ** 2).sum((1, 2, 3)))
    found = adversarial.gradient_penalty(f, real, fake, mix)
    assert np.isclose(found.item(), ((norms - 1) ** 2).mean(), rtol=1e-7)
    found = adversarial.r1_penalty(f, real)
    assert np.isclose(found.item(), (slopes(f, real) ** 2).sum((1, 2, 3)).mean(), rtol=1e-7)


@pytest.mark.parametrize("name", ["gradient_penalty", "r1_penalty"])
def test_a_penalty_has_the_right_derivative_for_every_weight(name, rng):
    critic, f = tiny_critic()
    real, fake = rng.standard_normal((2, 3, 1, 4, 4))

    def penalty():
        if name == "r1_penalty":
            return adversarial.r1_penalty(f, real)
        return adversarial.gradient_penalty(f, real, Tensor(fake), [0.2, 0.5, 0.9])

    penalty().backward()
    for key, weight in critic.named_parameters():
        found = np.zeros(weight.shape) if weight.grad is None else weight.grad.numpy()
        expected, start = np.empty(weight.shape), weight.data.copy()
        for i in np.ndindex(weight.shape):
            ends = []
            for step in (1e-5, -1e-5):
                weight.data = start.copy()
                weight.data[i] += step
                ends.append(penalty().item())
            expected[i] = (ends[0] - ends[1]) / 2e-5
        weight.data = start
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-8), key


def test_gradient_penalty_draws_its_points_from_the_seed_and_checks_shapes(rng):
    _, f = tiny_critic()
    real, fake = rng.standard_normal((2, 3, 1, 4, 4))
    found = []
    for seed in (1, 1, 2):
        random.manual_seed(seed)
        found.append(adversarial.gradient_penalty(f, real, fake).item())
    assert found[0] == found[1] != found[2]
    with pytest.raises(
        ValueError, match=r"fake shape: expected \(3, 1, 4, 4\), got \(2, 1, 4, 4\)"
    ):
        adversarial.gradient_penalty(f, real, fake[:2])


def test_cycle_loss_is_zero_for_the_identity_and_l1_otherwise(rng):
    a, b = rng.standard_normal((2, 4, 1, 8, 8)).astype(np.float32)
    model = models.CycleGAN(width=4, blocks=1)
    model.to_a = model.to_b = nn.Identity()
    losses = model.translator_losses(Tensor(a), Tensor(b))
    assert losses.cycle.item() == losses.identity.item() == 0
    assert losses.adversarial.item() > 0
    assert np.isclose(cycle_loss(a, Tensor(b)).item(), np.abs(a - b).mean(), rtol=1e-6)


def test_the_cycle_goes_there_and_back(rng):
    a, b = rng.standard_normal((2, 4, 1, 8, 8)).astype(np.float32)

    class Plus(nn.Module):
        def __init__(self, step):
            super().__init__()
            self.step = step

        def forward(self, x):
            return Tensor(np.asarray(x)) + self.step

    model = models.CycleGAN(width=4, blocks=1)
    model.to_b, model.to_a = Plus(0.5), Plus(-0.25)
    losses = model.translator_losses(a, b)
    assert np.isclose(losses.cycle.item(), 2 * 0.25, rtol=1e-5)
    assert np.isclose(losses.identity.item(), 0.25 + 0.5, rtol=1e-5)
    assert np.allclose(losses.fake_b.numpy(), a + 0.5) and np.allclose(
        losses.fake_a.numpy(), b - 0.25
    )


def test_cyclegan_shapes_totals_and_judges(rng):
    random.manual_seed(0)
    a, b = rng.uniform(-1, 1, (2, 3, 1, 16, 16)).astype(np.float32)
    model = models.CycleGAN(width=4, blocks=2)
    losses = model.translator_losses(a, b)
    assert losses.fake_a.shape == losses.fake_b.shape == a.shape
    total = losses.total(cycle=10.0, identity=2.0).item()
    parts = losses.adversarial.item() + 10 * losses.cycle.item() + 2 * losses.identity.item()
    assert np.isclose(total, parts, rtol=1e-6)
    losses.total().backward()
    assert all(p.grad is not None for p in model.to_a.parameters())
    assert model.judge_a(a).shape == (3, 1, 4, 4)
    found = model.judge_loss(a, b, losses.fake_a.numpy(), losses.fake_b.numpy()).item()
    expected = sum(
        ((judge(real).numpy() - 1) ** 2).mean() + (judge(fake).numpy() ** 2).mean()
        for judge, real, fake in (
            (model.judge_a, a, losses.fake_a),
            (model.judge_b, b, losses.fake_b),
        )
    )
    assert np.isclose(found, expected / 2, rtol=1e-5)
    assert np.isclose(least_squares(tensor([1.0, 3.0]), 1.0).item(), 2.0)


def test_the_pool_returns_old_pictures_and_forgets_none_of_its_size():
    pool = ImagePool(4, np.random.default_rng(0))
    assert np.array_equal(pool.exchange(np.arange(4)), np.arange(4))  # until it is full
    seen = [pool.exchange(np.arange(start, start + 4)) for start in range(4, 80, 4)]
    old = np.mean(
        [value < start for start, part in zip(range(4, 80, 4), seen, strict=True) for value in part]
    )
    assert 0.3 < old < 0.7
    assert len(pool.images) == 4 and max(pool.images) > 60  # it keeps up


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_ema_is_the_running_average(decay, rng):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = optim.EMA(model, decay)
    expected = {key: value.copy() for key, value in model.state_dict().items()}
    for n in range(1, 30):
        for parameter in model.parameters():
            parameter.data = rng.standard_normal(parameter.shape).astype(np.float32)
        model(rng.standard_normal((4, 2)).astype(np.float32))
        average.update()
        d = min(decay, (1 + n) / (10 + n))
        for key, value in model.state_dict().items():
            weight = "running" not in key and "tracked" not in key
            expected[key] = d * expected[key] + (1 - d) * value if weight else value.copy()
    for key, value in average.model.state_dict().items():
        assert np.allclose(value, expected[key], rtol=1e-5, atol=1e-6), key
    assert not any(p.requires_grad for p in average.model.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_ema_refuses_a_decay_that_never_forgets():
    with pytest.raises(ValueError, match="decay: expected in"):
        optim.EMA(nn.Linear(2, 2), 1.0)
