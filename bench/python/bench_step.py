"""Whole training steps (zero_grad, forward, backward, update), and their page faults."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

import step_models as models
from harness import Case, Options, Row, figure, flop, torch
from vectile import nn, optim

Array = np.ndarray
Move = tuple[Any, Callable[[], Any]]  # an optimiser and the loss that it lowers


class Step:
    """One training step a call; `losses` continues it, for the comparison with float64."""

    def __init__(self, moves: list[Move]) -> None:
        self.moves = moves
        self.found: list[Any] = []

    def __call__(self) -> Step:
        self.found = [self.descend(*move) for move in self.moves]
        return self

    def descend(self, optimizer: Any, compute: Callable[[], Any]) -> Any:
        optimizer.zero_grad()
        loss = compute()
        loss.backward()
        optimizer.step()
        return loss

    def losses(self) -> list[float]:
        """Of this step and two more: they agree only if gradients and updates do."""
        found = [*self.found, *self().found, *self().found]
        return [float(loss.item()) for loss in found]


# ---- what is lowered: written once, for Tensors of either library ---------------------------------------


def classify(model: Any, x: Any, labels: Any, functional: Any) -> list[Callable[[], Any]]:
    return [lambda: functional.cross_entropy(model(x), labels)]


def regress(model: Any, x: Any, values: Any, functional: Any) -> list[Callable[[], Any]]:
    return [lambda: functional.mse_loss(model(x), values)]


def predict(model: Any, ids: Any, following: Any, functional: Any) -> list[Callable[[], Any]]:
    return [lambda: model(ids, following)]


def read(model: Any, ids: Any, following: Any, functional: Any) -> list[Callable[[], Any]]:
    return [lambda: model.loss(ids, following)[0]]


def play(model: Any, z: Any, real: Any, functional: Any) -> list[Callable[[], Any]]:
    """The discriminator's move, then the generator's through it (arXiv 1406.2661, algorithm 1).

    Both see the same forgeries, and the discriminator is frozen while the generator moves.
    """
    generator, discriminator, softplus = model.generator, model.discriminator, functional.softplus
    forged: list[Any] = []

    def judge() -> Any:
        discriminator.requires_grad_(True)
        forged[:] = [generator(z)]
        true, false = discriminator(real), discriminator(forged[0].detach())
        return softplus(-true).mean() + softplus(false).mean()

    def forge() -> Any:
        discriminator.requires_grad_(False)
        return softplus(-discriminator(forged.pop())).mean()

    return [judge, forge]


# ---- the steps -------------------------------------------------------------------------------------


def windows(rng: np.random.Generator, batch: int, length: int = 64) -> tuple[Array, Array]:
    ids = rng.integers(0, 256, (batch, length + 1))
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def pictures(rng: np.random.Generator, *shape: int) -> tuple[Array, Array]:
    return rng.random(shape, np.float32), rng.integers(0, 10, shape[0])


def points(rng: np.random.Generator) -> tuple[Array, Array]:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    return x, np.array([[0], [1], [1], [0]], np.float32)


def noise(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_normal((64, 64), np.float32), 2 * rng.random((64, 1, 16, 16), "f4") - 1


@dataclass(frozen=True)
class Training:
    """A model, what it lowers on which batch, and how."""

    make: Callable[[], Any]
    lower: Callable[..., list[Callable[[], Any]]]
    inputs: Callable[[np.random.Generator], tuple[Array, Array]]
    optimizer: str
    settings: dict[str, Any]
    parts: tuple[str, ...] = ("",)  # the modules that each loss moves
    tolerance: float = 1e-4
    long: bool = False  # too long for a quick run

    def _step(self, model: Any, x: Any, y: Any, library: Any, functional: Any, **more: Any) -> Step:
        parts = [model.get_submodule(name) for name in self.parts]
        kind = getattr(library, self.optimizer)
        optimizers = [kind(part.parameters(), **self.settings, **more) for part in parts]
        losses = self.lower(model, x, y, functional)
        return Step(list(zip(optimizers, losses, strict=True)))

    def ours(self, x: Array, y: Array, double: bool = False) -> Step:
        model = self.make()
        return self._step(model.double() if double else model, x, y, optim, nn.functional)

    def theirs(self, x: Array, y: Array, double: bool = False) -> Step:
        """torch, eager, with its fused optimisers."""
        twin = models.in_torch(self.make())
        inputs = map(torch.from_numpy, (x, y))
        functional = torch.nn.functional
        twin = twin.double() if double else twin
        return self._step(twin, *inputs, torch.optim, functional, fused=True)

    def exact(self, x: Array, y: Array) -> list[float]:
        """The losses of torch in float64; without torch, of vectile in float64."""
        return (self.ours if torch is None else self.theirs)(x, y, double=True)().losses()

    def flops(self) -> float:
        step = self.ours(*self.inputs(np.random.default_rng(0)))
        with counted() as total:
            step()
        return sum(total)


@contextmanager
def counted() -> Iterator[list[float]]:
    """Gathers the flops of layers called inside, and of their gradients.

    2 for each weight and row or pixel that it meets, and as many again for each operand that requires a
    gradient; attention's own products, embeddings and all that is elementwise are left out.
    """
    total: list[float] = []
    call = nn.Module.__call__

    def counting(self: Any, x: Any, *rest: Any, **named: Any) -> Any:
        out = call(self, x, *rest, **named)
        if isinstance(self, (nn.Linear, nn.LSTM, nn.Conv2d, nn.ConvTranspose2d)):
            weights = [p for p in self.parameters() if p.ndim > 1]
            result = out[0] if isinstance(out, tuple) else out
            met = x if isinstance(self, nn.ConvTranspose2d) else result
            rows = met.size / met.shape[1 if met.ndim == 4 else -1]
            passes = 1 + weights[0].requires_grad + getattr(x, "requires_grad", False)
            total.append(2 * passes * rows * sum(w.size for w in weights))
        return out

    with mock.patch.object(nn.Module, "__call__", counting):
        yield total


# Where rounding carries one pixel over the kink of a ReLU, that pixel's gradient jumps: by a thousandth of a
# channel's, which sums B H W or about 1000 pixels. Only the deep networks have pixels enough to meet it.
KINK = 1e-3

GPT = "GPT d128 L4 H4 T64 B12, AdamW"
STEPS: dict[str, Training] = {
    GPT: Training(models.gpt, predict, lambda rng: windows(rng, 12), "AdamW", {"lr": 1e-3}),
    "GPT d384 L6 H6 T256 B4, AdamW": Training(
        lambda: models.gpt(256, 6, 6, 384),
        predict,
        lambda rng: windows(rng, 4, 256),
        "AdamW",
        {"lr": 1e-3},
        long=True,
    ),
    "character LSTM 2x256 B32 T64, SGD": Training(
        models.char_rnn, read, lambda rng: windows(rng, 32), "SGD", {"lr": 0.1}
    ),
    "MLP 784-128-128-10 B32, SGD": Training(
        models.mlp, classify, lambda rng: pictures(rng, 32, 784), "SGD", {"lr": 0.1}
    ),
    "MLP 2-8-1 B4, SGD": Training(models.tiny, regress, points, "SGD", {"lr": 0.1}),
    "CNN, 2 x (conv 3x3, max pool), 28x28 B64, SGD": Training(
        models.cnn, classify, lambda rng: pictures(rng, 64, 1, 28, 28), "SGD", {"lr": 0.1}
    ),
    "DCGAN 16x16 B64, both players, Adam": Training(
        models.dcgan,
        play,
        noise,
        "Adam",
        {"lr": 2e-4, "betas": (0.5, 0.999)},
        ("discriminator", "generator"),
        KINK,
    ),
    "ResNet-18 32x32 B8, SGD with momentum": Training(
        models.resnet,
        classify,
        lambda rng: pictures(rng, 8, 3, 32, 32),
        "SGD",
        {"lr": 1e-3, "momentum": 0.9},
        tolerance=KINK,
    ),
}


def chosen(quick: bool) -> Iterator[tuple[str, Training]]:
    return ((name, t) for name, t in STEPS.items() if not (quick and t.long))


def cases(quick: bool) -> Iterator[Case]:
    for name, training in chosen(quick):
        yield Case(
            name,
            training.inputs,
            lambda step: step(),
            training.exact,
            {"torch": lambda step: step()},
            tolerance=training.tolerance,
            work=flop(training.flops()),
            prepare={"vectile": training.ours, "torch": training.theirs},
            summary=lambda step: step.losses(),
        )


def faults(step: Step, warm: int, steps: int) -> float:
    """Page faults per step, after a few steps that may allocate."""
    for _ in range(warm):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps


def figures(options: Options) -> Iterator[Row]:
    counts = (3, 5) if options.quick else (5, 20)
    for name, training in chosen(options.quick):
        batch = training.inputs(np.random.default_rng(0))
        peer = ("torch", faults(training.theirs(*batch), *counts)) if torch is not None else ()
        ours = faults(training.ours(*batch), *counts)
        yield figure("step", f"page faults a step, {name}", "", ours, *peer)
