"""A variational autoencoder learns a distribution of digits and draws new ones."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from vectile import data, models, no_grad, optim, random, viz
from vectile.autograd import mean
from vectile.nn import functional as F
from vectile.recipes import Run, recipe
from vectile.recipes.judge import Judge


@recipe("vae", "variational inference: a bound on the likelihood (ELBO), a latent map, new digits")
def train(
    run: Run,
    *,
    latent: Annotated[int, "dimensions of the code"] = 8,
) -> None:
    judge = Judge(run)
    training, held_out = data.digits()
    settings: dict[str, Any] = {"hidden": [256, 128], "latent": latent}
    model = models.VAE(**settings)
    steps = run.pick(8000, 40)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, steps // 20, steps)
    rows = data.shuffled(len(training.images), 64, run.generator)

    for _ in run.steps(steps):
        fit, divergence = model.elbo(training.images[next(rows)])
        loss = mean(divergence - fit)  # nats that it takes to tell an image, at most
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log(loss=loss, KL=mean(divergence))

    model.eval()
    random.manual_seed(run.seed)
    with no_grad():
        fit, divergence = model.elbo(np.repeat(held_out.images, 10, axis=0))
        codes = model.encode(held_out.images).numpy()
        output = F.sigmoid(model.decode(codes)).numpy()
    elbo = np.mean(fit.numpy() - divergence.numpy())
    run.score("held-out ELBO, nats per image", elbo, better="higher")
    run.score("of it KL divergence, nats", np.mean(divergence.numpy()))
    judge.score(run, model.sample(1000))

    run.figure("reconstructions", viz.reconstructions(held_out.images[:14], output[:14]))
    run.figure("samples", viz.sample_grid(model.sample(60), title="Digits nobody wrote"))
    if latent > 1:
        spread = codes - codes.mean(0)
        axes = np.linalg.svd(spread, full_matrices=False)[2][:2]
        figure = viz.embedding_map(
            spread @ axes.T,
            classes=held_out.labels,
            title="A map of the codes",
            subtitle=f"held-out digits, {latent} dimensions seen along their two principal axes",
        )
        run.figure("map", figure)
    run.checkpoint(model, settings)
