"""LeNet-5, the first convolutional network that read cheques, reads handwritten digits."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from vectile import data, models, no_grad, optim, viz
from vectile.nn import functional as F
from vectile.recipes import Run, recipe


@recipe("lenet", "convolution: LeNet-5 reads digits, and the edges and strokes that it looks for")
def train(run: Run, *, rate: Annotated[float, "largest learning rate"] = 3e-3) -> None:
    training, held_out = data.digits(16)
    model = models.LeNet(16)
    steps = run.pick(3000, 40)
    optimizer = optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, steps // 20, steps)
    rows = data.shuffled(len(training.labels), 64, run.generator)

    for _ in run.steps(steps):
        batch = next(rows)
        images = data.warped(training.images[batch], run.generator, shift=1)
        loss = F.cross_entropy(model(images), training.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log(loss=loss)

    model.eval()
    with no_grad():
        predicted = model(held_out.images).numpy().argmax(1)
        first, tanh, *_ = model.features
        maps = tanh(first(held_out.images[:10])).numpy()  # (10, 6, 16, 16) in (-1, 1)
    run.score("held-out accuracy", np.mean(predicted == held_out.labels), better="higher")
    run.figure("confusion", viz.confusion_matrix(held_out.labels, predicted))
    figure = viz.reconstructions(
        held_out.images[:10],
        *(0.5 + 0.5 * maps.transpose(1, 0, 2, 3)[:, :, None]),
        names=["digit", *(f"map {i}" for i in range(1, 7))],
        title="What the first convolution sees",
        subtitle="its six maps: dark where the filter agrees, light where it disagrees",
    )
    run.figure("maps", figure)
    run.checkpoint(model, {"size": 16})
