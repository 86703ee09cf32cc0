"""An autoencoder squeezes digits through two numbers and unfolds them again."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from vectile import data, models, no_grad, optim, viz
from vectile.nn import functional as F
from vectile.recipes import Run, recipe


@recipe(
    "autoencoder", "compression: digits through a few numbers and back, and the map that results"
)
def train(
    run: Run, *, latent: Annotated[int, "numbers that an image is squeezed into"] = 2
) -> None:
    training, held_out = data.digits()
    settings: dict[str, Any] = {"hidden": [256, 128], "latent": latent}
    model = models.Autoencoder(**settings)
    steps = run.pick(6000, 40)
    optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, steps // 20, steps)
    rows = data.shuffled(len(training.images), 64, run.generator)

    for _ in run.steps(steps):
        images = training.images[next(rows)]
        loss = F.binary_cross_entropy_with_logits(model(images), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log(loss=loss)

    with no_grad():
        codes = model.encode(held_out.images).numpy()
        output = F.sigmoid(model(held_out.images)).numpy()
    error = np.mean((output - held_out.images) ** 2)
    mean = np.mean((training.images.mean(0) - held_out.images) ** 2)
    run.score("held-out squared error", error, better="lower")
    run.score("variance explained", 1 - error / mean, better="higher")
    # principal components: the best that a linear encoder and decoder can do with as many numbers
    flat = training.images.reshape(-1, 64)
    axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:latent]
    centred = held_out.images.reshape(-1, 64) - flat.mean(0)
    linear = np.mean((centred - centred @ axes.T @ axes) ** 2)
    run.score("variance explained by principal components", 1 - linear / mean, better="higher")

    shown = viz.reconstructions(
        held_out.images[:14], output[:14], subtitle=f"held-out digits through {latent} numbers"
    )
    run.figure("reconstructions", shown)
    if latent > 1:
        subtitle = "codes of the held-out digits, which were never sorted by a label"
        figure = viz.embedding_map(
            codes[:, :2], classes=held_out.labels, title="The map it made", subtitle=subtitle
        )
        run.figure("map", figure)
    run.checkpoint(model, settings)
