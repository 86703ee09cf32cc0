"""A small residual network reads handwritten digits."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from vectile import data, models, no_grad, optim, viz
from vectile.nn import functional as F
from vectile.recipes import Run, recipe


@recipe("resnet", "depth: residual blocks and batch normalisation, a small ResNet reads digits")
def train(run: Run, *, rate: Annotated[float, "largest learning rate"] = 0.1) -> None:
    training, held_out = data.digits()
    model = models.small_resnet()
    steps = run.pick(1200, 30)
    # gains and biases are left out of the decay, which is for the filters
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 5e-4},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, steps // 10, steps)
    rows = data.shuffled(len(training.labels), 64, run.generator)

    for _ in run.steps(steps):
        batch = next(rows)
        images = data.warped(training.images[batch], run.generator)
        loss = F.cross_entropy(model(images), training.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log(loss=loss)

    model.eval()  # batch norm now uses the statistics that it gathered while training
    with no_grad():
        logits = model(held_out.images).numpy()
    predicted = logits.argmax(1)
    run.score("held-out accuracy", np.mean(predicted == held_out.labels), better="higher")
    run.figure("confusion", viz.confusion_matrix(held_out.labels, predicted))
    # the digits that it was least sure of: the smallest lead of the best class over the second
    second, best = np.sort(logits, axis=1)[:, -2:].T
    unsure = np.argsort(best - second)[:24]
    pairs = zip(held_out.labels[unsure], predicted[unsure], strict=True)
    labels = [f"{true}" if true == guess else f"{true} as {guess}" for true, guess in pairs]
    title = "What it was least sure of"
    run.figure("unsure", viz.sample_grid(held_out.images[unsure], labels, title=title))
    run.checkpoint(model, network="small_resnet")
