"""A multilayer perceptron reads handwritten digits."""

from __future__ import annotations

from typing import Annotated, Any

from vectile import data, models, no_grad, optim, viz
from vectile.nn import functional as F
from vectile.recipes import Run, recipe


@recipe("mlp", "backpropagation: a multilayer perceptron reads handwritten digits")
def train(
    run: Run,
    *,
    width: Annotated[int, "units in each of the two hidden layers"] = 256,
    dropout: Annotated[float, "probability of a hidden unit to be left out"] = 0.1,
) -> None:
    # 1,438 images to train on and 359 that the model never sees
    training, held_out = data.digits()
    steps = run.pick(3000, 40)
    settings: dict[str, Any] = {
        "in_features": 64,
        "hidden": [width, width],
        "out_features": 10,
        "dropout": dropout,
    }
    model = models.MLP(**settings)
    optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, steps // 20, steps)
    rows = data.shuffled(len(training.labels), 64, run.generator)

    for _ in run.steps(steps):
        batch = next(rows)
        images = data.warped(training.images[batch], run.generator)  # a turned 3 is a 3
        loss = F.cross_entropy(model(images), training.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log(loss=loss)

    model.eval()
    with no_grad():
        predicted = model(held_out.images).numpy().argmax(1)
    wrong = predicted != held_out.labels
    run.score("held-out accuracy", 1 - wrong.mean(), better="higher")
    run.figure("confusion", viz.confusion_matrix(held_out.labels, predicted))
    if wrong.any():
        pairs = zip(held_out.labels[wrong], predicted[wrong], strict=True)
        labels = [f"{true} as {guess}" for true, guess in pairs]
        figure = viz.sample_grid(held_out.images[wrong], labels, title="What it got wrong")
        run.figure("errors", figure)
    run.checkpoint(model, settings)
