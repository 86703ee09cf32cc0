"""Whole training steps (zero_grad, forward, backward, update), and their page faults."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from harness import Case, Options, Row, figure, flop, torch
from vectile import nn, optim, random
from vectile.models import GPT, GPTConfig
from vectile.models.char_rnn import CharRNN, CharRNNConfig

Array = np.ndarray
RNG = np.random.default_rng


class Step:
    """One training step a call; `losses` continues it, for the comparison with float64."""

    def __init__(self, model: Any, optimizer: Any, compute: Callable[[], Any]) -> None:
        self.model, self.optimizer, self.compute = model, optimizer, compute
        self.loss: Any = None

    def __call__(self) -> Step:
        self.optimizer.zero_grad()
        loss = self.compute()
        loss.backward()
        self.optimizer.step()
        self.loss = loss
        return self

    def losses(self) -> list[float]:
        """Of this step and two more: they agree only if gradients and updates do."""
        return [float(self.loss.item()), *(float(self().loss.item()) for _ in range(2))]


# ---- the models ------------------------------------------------------------------------------------


def gpt() -> GPT:
    random.manual_seed(0)
    return GPT(GPTConfig(vocab_size=256, context=64, n_layers=4, n_heads=4, d_model=128))


def mlp() -> nn.Sequential:
    random.manual_seed(0)
    layers = (nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(*layers)


def char_rnn() -> CharRNN:
    random.manual_seed(0)
    return CharRNN(CharRNNConfig(vocab_size=256, embedding=256, hidden=256, n_layers=2))


def tiny() -> nn.Sequential:
    random.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))


def cnn() -> nn.Sequential:
    random.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 14 * 14, 10),
    )


def dcgan() -> nn.Sequential:
    """Generator and discriminator in a row, as the generator's step goes through them (arXiv 1511.06434)."""
    random.manual_seed(0)
    return nn.Sequential(
        nn.ConvTranspose2d(64, 128, 4),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, 2, 1),
        nn.Tanh(),
        nn.Conv2d(1, 64, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 2, 1),
        nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2),
        nn.Conv2d(128, 1, 4),
    )


def in_torch(model: Any) -> Any:
    """The same model in torch's modules, with the same weights."""
    state = {k: torch.from_numpy(np.array(v)) for k, v in model.state_dict().items()}
    if isinstance(model, GPT):
        twin = torch_gpt(model.config)
    elif isinstance(model, CharRNN):
        twin = torch_char_rnn(model.config)
    else:
        twin = torch.nn.Sequential(*map(torch_layer, model))
    twin.load_state_dict(state)
    return twin


def torch_layer(m: Any) -> Any:
    kind = getattr(torch.nn, type(m).__name__)
    if isinstance(m, nn.Linear):
        return kind(m.in_features, m.out_features)
    if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
        return kind(m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding)
    if isinstance(m, nn.BatchNorm2d):
        return kind(m.num_features)
    if isinstance(m, nn.LeakyReLU):
        return kind(m.negative_slope)
    return kind()


def torch_gpt(config: GPTConfig) -> Any:
    d, heads = config.d_model, config.n_heads
    F = torch.nn.functional

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(d, 3 * d), torch.nn.Linear(d, d)

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = self.qkv(x).view(b, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).reshape(b, t, d))

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.attention = torch.nn.LayerNorm(d), Attention()
            self.norm2 = torch.nn.LayerNorm(d)
            self.up, self.down = torch.nn.Linear(d, 4 * d), torch.nn.Linear(4 * d, d)

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.norm1(x))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = torch.nn.Embedding(config.vocab_size, d)
            self.positions = torch.nn.Embedding(config.context, d)
            self.blocks = torch.nn.ModuleList(Block() for _ in range(config.n_layers))
            self.norm = torch.nn.LayerNorm(d)
            self.head = torch.nn.Linear(d, config.vocab_size, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, ids: Any, targets: Any) -> Any:
            x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
            for block in self.blocks:
                x = block(x)
            return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())

    return Model()


def torch_char_rnn(config: CharRNNConfig) -> Any:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(config.vocab_size, config.embedding)
            self.rnn = torch.nn.LSTM(
                config.embedding, config.hidden, config.n_layers, batch_first=True
            )
            self.head = torch.nn.Linear(config.hidden, config.vocab_size)

        def loss(self, ids: Any, targets: Any) -> Any:
            logits = self.head(self.rnn(self.embedding(ids))[0])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            return loss, None

    return Model()


# ---- their steps -----------------------------------------------------------------------------------


def model_loss(model: Any, x: Any, targets: Any, functional: Any) -> Callable[[], Any]:
    if hasattr(model, "blocks"):
        return lambda: model(x, targets)
    if hasattr(model, "rnn"):
        return lambda: model.loss(x, targets)[0]
    loss = (
        functional.cross_entropy if np.asarray(targets).dtype.kind == "i" else functional.mse_loss
    )
    return lambda: loss(model(x), targets)


def ours(make: Callable[[], Any], x: Array, targets: Array) -> Step:
    model = make()
    parameters = list(model.parameters())
    if make is gpt:
        optimizer: Any = optim.AdamW(parameters, lr=1e-3)
    else:
        optimizer = optim.SGD(parameters, lr=0.1)
    return Step(model, optimizer, model_loss(model, x, targets, nn.functional))


def theirs(make: Callable[[], Any], x: Array, targets: Array, double: bool = False) -> Step:
    """torch, eager, with its fused AdamW."""
    twin = in_torch(make())
    twin = twin.double() if double else twin
    a, b = (torch.from_numpy(v) for v in (x, targets))
    if double:
        a, b = (v.double() if v.is_floating_point() else v for v in (a, b))
    if make is gpt:
        optimizer: Any = torch.optim.AdamW(twin.parameters(), lr=1e-3, fused=True)
    else:
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    return Step(twin, optimizer, model_loss(twin, a, b, torch.nn.functional))


def exact(make: Callable[[], Any], x: Array, targets: Array) -> list[float]:
    """The losses of torch in float64; without torch, of vectile in float64."""
    if torch is not None:
        return theirs(make, x, targets, double=True)().losses()
    step = ours(make, x, targets)
    for parameter in step.model.parameters():
        parameter.data = parameter.data.astype(np.float64)
    return step().losses()


def windows(rng: np.random.Generator) -> tuple[Array, Array]:
    ids = rng.integers(0, 256, (12, 65))
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def pages(rng: np.random.Generator) -> tuple[Array, Array]:
    ids = rng.integers(0, 256, (32, 65))
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def images(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.random((32, 784), np.float32), rng.integers(0, 10, 32)


def pictures(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.random((64, 1, 28, 28), np.float32), rng.integers(0, 10, 64)


def noise(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_normal((64, 64, 1, 1), np.float32), np.ones((64, 1, 1, 1), np.float32)


def points(rng: np.random.Generator) -> tuple[Array, Array]:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    return x, np.array([[0], [1], [1], [0]], np.float32)


def work(model: Any, rows: int) -> float:
    """2 per weight and row forward, twice that backward; attention and an embedding left out."""
    products = (n for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n)
    return 6 * rows * sum(model.state_dict()[n].size for n in products)


def layer_work(model: nn.Sequential, x: Any) -> float:
    """The same of layers whose weights meet every pixel."""
    total = 0.0
    for layer in model:
        y = layer(x)
        if getattr(layer, "weight", None) is not None and layer.weight.ndim > 1:
            met = x if isinstance(layer, nn.ConvTranspose2d) else y
            total += 6 * met.size * layer.weight.size / layer.weight.shape[0]
        x = y
    return total


STEPS: dict[str, tuple[Callable[[], Any], Any, int]] = {
    "GPT d128 L4 H4 T64 B12, AdamW": (gpt, windows, 12 * 64),
    "character LSTM 2x256 B32 T64, SGD": (char_rnn, pages, 32 * 64),
    "MLP 784-128-128-10 B32, SGD": (mlp, images, 32),
    "MLP 2-8-1 B4, SGD": (tiny, points, 4),
    "CNN, two 3x3 convolutions, 28x28 B64, SGD": (cnn, pictures, 0),
    "DCGAN 16x16 B64, generator's step, SGD": (dcgan, noise, 0),
}


def cases(quick: bool) -> Iterator[Case]:
    for name, (make, inputs, rows) in STEPS.items():
        yield Case(
            name,
            inputs,
            lambda step: step(),
            lambda x, t, make=make: exact(make, x, t),
            {"torch": lambda step: step()},
            tolerance=1e-4,
            work=flop(work(make(), rows) if rows else layer_work(make(), inputs(RNG(0))[0])),
            prepare={
                "vectile": lambda x, t, make=make: ours(make, x, t),
                "torch": lambda x, t, make=make: theirs(make, x, t),
            },
            summary=lambda step: step.losses(),
        )


def faults(step: Step, warm: int = 5, steps: int = 20) -> float:
    """Page faults per step, after a few steps that may allocate."""
    for _ in range(warm):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps


def figures(options: Options) -> Iterator[Row]:
    for name, (make, inputs, _) in STEPS.items():
        batch = inputs(np.random.default_rng(0))
        peer = ("torch", faults(theirs(make, *batch))) if torch is not None else ()
        yield figure("step", f"page faults a step, {name}", "", faults(ours(make, *batch)), *peer)
