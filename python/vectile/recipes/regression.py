"""Linear regression by a formula and by descent, then logistic regression, which has no formula."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from vectile import data, nn, no_grad, optim, viz
from vectile.nn import functional as F
from vectile.recipes import Run, recipe


@recipe(
    "regression",
    "gradient descent: linear regression against its closed form, then logistic regression",
    falls=("squared error", "cross-entropy"),
)
def train(run: Run, *, rate: Annotated[float, "learning rate of the descent"] = 0.02) -> None:
    # Linear regression. The least squares solution is one line of linear algebra …
    training, held_out = data.diabetes()
    ones = np.ones((len(training.measured), 1))
    exact = np.linalg.lstsq(np.hstack([training.measured, ones]), training.progress, rcond=None)[0]
    residual = held_out.measured @ exact[:-1] + exact[-1] - held_out.progress
    best = np.mean((training.measured @ exact[:-1] + exact[-1] - training.progress) ** 2)

    # … and descent comes to the same line, without knowing it.
    linear = nn.Linear(10, 1)
    rows = data.shuffled(len(training.measured), 32, run.generator)
    steps = run.pick(4000, 40)
    optimizer = optim.SGD(linear.parameters(), lr=rate, momentum=0.9)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    excess: list[float] = []
    for step in run.steps(steps, label="linear"):
        batch = next(rows)
        loss = F.mse_loss(linear(training.measured[batch]), training.progress[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log(**{"squared error": loss})
        if step % 10 == 0:
            with no_grad():
                now = F.mse_loss(linear(training.measured), training.progress).item()
            excess.append(now - best)

    with no_grad():
        guess = linear(held_out.measured).numpy()
    variance = held_out.progress.var()
    run.score("held-out R², closed form", 1 - np.mean(residual**2) / variance, better="higher")
    run.score(
        "held-out R², descent", 1 - np.mean((guess - held_out.progress) ** 2) / variance, "higher"
    )
    difference = np.abs(linear.weight.numpy().ravel() - exact[:-1].ravel()).max()
    run.score("largest difference of a weight", difference, better="lower")
    figure = viz.loss_curves(
        {"excess": (range(1, 10 * len(excess), 10), excess)},
        log=True,
        title="Descent comes down to the closed form",
        subtitle="mean squared error on the training patients above that of the least squares line",
        ylabel="excess squared error",
    )
    run.figure("descent", figure)

    # Logistic regression: the same model under a softmax, one row of weights a digit.
    digits, unseen = data.digits()
    logistic = nn.Linear(64, 10)
    rows = data.shuffled(len(digits.labels), 64, run.generator)
    optimizer = optim.SGD(logistic.parameters(), lr=5 * rate, momentum=0.9, weight_decay=1e-3)
    for _ in run.steps(1500, label="logistic"):
        batch = next(rows)
        logits = logistic(digits.images[batch].reshape(-1, 64))
        loss = F.cross_entropy(logits, digits.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(**{"cross-entropy": loss})

    with no_grad():
        predicted = logistic(unseen.images.reshape(-1, 64)).numpy().argmax(1)
    run.score("held-out accuracy, digits", np.mean(predicted == unseen.labels), better="higher")
    weights = logistic.weight.numpy().reshape(10, 1, 8, 8)
    figure = viz.sample_grid(
        weights,
        range(10),
        columns=5,
        limits=(-float(np.abs(weights).max()), float(np.abs(weights).max())),
        title="What each digit looks for",
        subtitle="ink on a dark pixel speaks for the digit, on a light one against it",
    )
    run.figure("weights", figure)
    run.checkpoint(linear, {"in_features": 10, "out_features": 1}, "linear")
    run.checkpoint(logistic, {"in_features": 64, "out_features": 10}, "logistic")
