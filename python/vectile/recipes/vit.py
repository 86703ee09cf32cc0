"""A Vision Transformer reads handwritten digits: sixteen patches of 2 x 2 pixels are its words."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from vectile import data, models, nn, no_grad, optim, viz
from vectile.nn import functional as F
from vectile.recipes import Run, recipe


@recipe("vit", "attention on images: a Vision Transformer reads digits as sequences of patches")
def train(
    run: Run,
    *,
    d_model: Annotated[int, "width of a patch's vector"] = 64,
    layers: Annotated[int, "encoder layers"] = 4,
    heads: Annotated[int, "attention heads"] = 4,
) -> None:
    training, held_out = data.digits()
    settings: dict[str, Any] = {"d_model": d_model, "n_layers": layers, "n_heads": heads}
    model = models.ViT(**settings)
    steps = run.pick(2500, 40)
    optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, steps // 20, steps)
    rows = data.shuffled(len(training.labels), 64, run.generator)

    for _ in run.steps(steps):
        batch = next(rows)
        images = data.warped(training.images[batch], run.generator)
        loss = F.cross_entropy(model(images), training.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        run.log(loss=loss)

    model.eval()
    with no_grad():
        predicted = model(held_out.images).numpy().argmax(1)
    run.score("held-out accuracy", np.mean(predicted == held_out.labels), better="higher")
    run.figure("confusion", viz.confusion_matrix(held_out.labels, predicted))

    # where the class token looks in the last layer, each head scaled to its own largest weight
    shown = held_out.images[:12]
    looks = model.attention_weights(shown)[-1, :, :, 0, 1:]
    looks = (looks / looks.max(-1, keepdims=True)).reshape(12, heads, 1, 4, 4)
    figure = viz.reconstructions(
        shown,
        *looks.swapaxes(0, 1),
        names=["digit", *(f"head {head + 1}" for head in range(heads))],
        title="Where the class token looks",
        subtitle="the last layer's attention to patches of 2 x 2 pixels; each map's largest weight is black",
    )
    run.figure("attention", figure)
    run.checkpoint(model, settings)
