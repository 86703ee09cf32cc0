"""What the recipes that make digits share: the steps of two players, scores and pictures of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectile import nn, optim, viz
from vectile.autograd import Tensor
from vectile.data.digits import bilinear
from vectile.models.adversarial import r1_penalty
from vectile.recipes import Run
from vectile.recipes.judge import Judge

Array = NDArray[Any]

SIZE = 16
"""Pixels along a side of what the convolutional networks make, and of what is drawn."""


def noise(run: Run, count: int, latent: int) -> Array:
    """Standard normal (count, latent)."""
    return run.generator.standard_normal((count, latent)).astype(np.float32)


def descend(loss: Tensor, optimizer: optim.Optimizer) -> None:
    """One step downhill."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@contextmanager
def frozen(opponent: nn.Module) -> Iterator[None]:
    """Gradients pass through the opponent, but it keeps none: only the other player moves."""
    opponent.requires_grad_(False)
    try:
        yield
    finally:
        opponent.requires_grad_(True)


def slope_price(
    critic: Callable[..., Tensor], real: Array, step: int, gamma: float, *labels: Array
) -> Any:
    """R1, gamma / 2 times the squared slope at real digits: dear, so seldom, but for as much more."""
    every = 4
    if step % every:
        return 0.0
    return r1_penalty(lambda images: critic(images, *labels), real) * (gamma / 2 * every)


def grey(images: Any) -> Array:
    """What a network made, from [-1, 1] to grey values in [0, 1]."""
    out: Array = np.clip((np.asarray(images) + 1) / 2, 0, 1)
    return out


def report(run: Run, images: Any, title: str, labels: Array | None = None) -> Judge:
    """Score samples in [-1, 1] and draw the first hundred; `labels` are the digits that they should be.

    With labels that repeat every ten, a column holds one digit, which stands above it.
    """
    made = grey(images)
    judge = Judge(run, made.shape[-1])
    judge.score(run, made, labels)
    subtitle = f"{run.recipe.name}, seed {run.seed}: not chosen, the first that it made"
    heads = None if labels is None else [*labels[:20], *[""] * 80]
    figure = viz.sample_grid(
        enlarged(made[:100]), heads, columns=20, title=title, subtitle=subtitle
    )
    run.figure("samples", figure)
    return judge


def enlarged(images: Array) -> Array:
    """Images of SIZE x SIZE pixels: smaller ones are interpolated, as the data is."""
    if images.shape[-1] == SIZE:
        return images
    weights = bilinear(images.shape[-1], SIZE)
    out: Array = weights @ images @ weights.T
    return out
