"""A style-based generator: what a digit looks like is decided layer by layer, and layers can take turns."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from vectile import Tensor, data, models, no_grad, optim, viz
from vectile.models.adversarial import discriminator_loss, generator_loss
from vectile.recipes import Run, recipe
from vectile.recipes._generative import (
    SIZE,
    Array,
    descend,
    frozen,
    grey,
    noise,
    report,
    slope_price,
)


@recipe(
    "stylegan",
    "a generator steered by styles: coarse ones make the digit, fine ones the stroke",
    falls=("discriminator",),
)
def train(
    run: Run,
    *,
    latent: Annotated[int, "numbers of noise, and of a style"] = 32,
    gamma: Annotated[float, "price of the discriminator's slope at real digits"] = 0.1,
    mixing: Annotated[float, "how often a digit in training gets two styles"] = 0.5,
) -> None:
    training, _ = data.digits(SIZE)
    real = 2 * training.images - 1
    generator = models.StyleGenerator(latent)
    discriminator = models.DCDiscriminator(32, batch_norm=False)
    mapping = list(generator.mapping.parameters())
    others = [p for name, p in generator.named_parameters() if not name.startswith("mapping")]
    groups: list[dict[str, Any]] = [{"params": mapping, "lr": 1e-4}, {"params": others}]
    forger = optim.Adam(groups, lr=1e-3, betas=(0.0, 0.99))
    judge = optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.0, 0.99))
    average = optim.EMA(generator, 0.995)
    rows = data.shuffled(len(real), 32, run.generator)

    def forge(count: int) -> Tensor:
        other, crossover = None, None
        if run.generator.random() < mixing:
            other = noise(run, count, latent)
            crossover = int(run.generator.integers(1, len(generator.layers)))
        made: Tensor = generator(noise(run, count, latent), other, crossover)
        return made

    for step in run.steps(run.pick(2500, 24)):
        images = real[next(rows)]
        with no_grad():
            forged = forge(len(images))
        loss = discriminator_loss(discriminator(images), discriminator(forged))
        descend(loss + slope_price(discriminator, images, step, gamma), judge)
        with frozen(discriminator):
            doubt = generator_loss(discriminator(forge(len(images))))
            descend(doubt, forger)
        average.update()
        run.log(discriminator=loss, generator=doubt)

    with no_grad():
        samples = average.model(noise(run, 1000, latent))
    report(run, samples, "Digits that nobody wrote")
    run.figure("mixing", mixed_styles(average.model, noise(run, 16, latent)))
    run.checkpoint(average.model, {"latent": latent})


def mixed_styles(
    generator: models.StyleGenerator, z: Array, rows: int = 5, columns: int = 11
) -> Any:
    """Digits whose coarse layers follow the left column and whose fine ones follow the top row."""
    coarse, fine = z[:rows], z[rows : rows + columns]
    with no_grad():
        pairs = generator(coarse.repeat(columns, 0), np.tile(fine, (rows, 1)), crossover=3)
        left, top = generator(coarse).numpy(), generator(fine).numpy()
    made = pairs.numpy().reshape(rows, columns, *left.shape[1:])
    blank = np.full_like(left[:1], -1)
    table = [blank, top, *(part for i in range(rows) for part in (left[i : i + 1], made[i]))]
    return viz.sample_grid(
        grey(np.concatenate(table)),
        columns=columns + 1,
        title="Mixed styles",
        subtitle="coarse layers follow the left column, fine layers the top row",
    )
