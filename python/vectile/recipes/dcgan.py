"""Convolutional GANs: DCGAN, and the conditional GAN that draws the digit it is asked for."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from vectile import data, models, no_grad, optim
from vectile.models.adversarial import discriminator_loss, generator_loss
from vectile.recipes import Run, recipe
from vectile.recipes._generative import SIZE, descend, frozen, noise, report, slope_price

Latent = Annotated[int, "numbers of noise that a digit is made from"]
Width = Annotated[int, "channels next to the image; twice as many further in"]


@recipe("dcgan", "a GAN of convolutions draws digits from noise", falls=("discriminator",))
def dcgan(run: Run, *, latent: Latent = 32, width: Width = 32) -> None:
    model = play(run, {"latent": latent, "width": width}, run.pick(3000, 24))
    with no_grad():
        samples = model(noise(run, 1000, latent))
    report(run, samples, "Digits that nobody wrote")


@recipe("cgan", "a conditional GAN draws the digit it is asked for", falls=("discriminator",))
def cgan(run: Run, *, latent: Latent = 32, width: Width = 32) -> None:
    model = play(run, {"latent": latent, "width": width, "classes": 10}, run.pick(3000, 24))
    labels = np.arange(1000) % 10
    with no_grad():
        samples = model(noise(run, 1000, latent), labels)
    report(run, samples, "A column for each digit asked for", labels)


def play(run: Run, settings: dict[str, int], steps: int) -> models.DCGenerator:
    """Both players move in turn; with `classes` in the settings, both see which digit it is meant to be."""
    training, _ = data.digits(SIZE)
    real, conditional = 2 * training.images - 1, "classes" in settings
    generator = models.DCGenerator(**settings)
    # few digits are soon known by heart: a price on slopes, which batch norm would blur, keeps the judge fair
    discriminator = models.DCDiscriminator(
        settings["width"], classes=settings.get("classes", 0), batch_norm=False
    )
    forger = optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.99))
    judge = optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.0, 0.99))
    average = optim.EMA(generator, 0.995)  # the players circle each other; their average does not
    rows = data.shuffled(len(real), 64, run.generator)

    for step in run.steps(steps):
        batch = next(rows)
        labels = (training.labels[batch],) if conditional else ()
        with no_grad():
            forged = generator(noise(run, len(batch), generator.latent), *labels)
        loss = discriminator_loss(
            discriminator(real[batch], *labels), discriminator(forged, *labels)
        )
        price = slope_price(discriminator, real[batch], step, 0.1, *labels)
        descend(loss + price, judge)
        with frozen(discriminator):
            forged = generator(noise(run, len(batch), generator.latent), *labels)
            doubt = generator_loss(discriminator(forged, *labels))
            descend(doubt, forger)
        average.update()
        run.log(discriminator=loss, generator=doubt)

    run.checkpoint(average.model, settings)
    return average.model.eval()
