"""A user's program: everything it calls is typed, so that `mypy --strict` accepts it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import vectile
from vectile import Tensor, nn, ops, optim

Floats = NDArray[np.float32]


class Classifier(nn.Module):
    """One hidden layer."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, 32)
        self.norm = nn.LayerNorm(32)
        self.out = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.norm(self.hidden(x)).relu()
        y: Tensor = self.out(h)
        return y


def attend(query: Floats, key: Floats, value: Floats) -> tuple[NDArray[np.float32], float]:
    """Kernels on arrays."""
    packed = ops.pack(query[0])
    out = ops.scaled_dot_product_attention(query, key, value, is_causal=True)
    weights = ops.softmax(ops.matmul(query, key.swapaxes(-1, -2)), axis=-1)
    return ops.linear(out, packed).astype(np.float32), float(ops.sum(weights))


def main() -> list[float]:
    """Train a few steps; returns the losses."""
    vectile.manual_seed(0)
    vectile.set_num_threads(vectile.get_num_threads())
    rng = np.random.default_rng(0)
    x: Floats = rng.standard_normal((64, 8), np.float32)
    targets = (x[:, 0] > 0).astype(np.int64)
    model = Classifier(8, 2)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(vectile.tensor(x)), targets)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
    q, k, v = (rng.standard_normal((2, 4, 8), np.float32) for _ in range(3))
    mixed, total = attend(q, k, v)
    assert mixed.shape == (2, 4, 4) and abs(total - 8) < 1e-4
    with vectile.no_grad():
        slope = vectile.tensor([1.0, 2.0]) * 2.0
    assert isinstance(slope, Tensor) and slope.numpy().dtype.kind == "f"
    return losses


if __name__ == "__main__":
    print(main())
