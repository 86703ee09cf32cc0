"""The original GAN: one network forges digits, the other tells them from real ones."""

from __future__ import annotations

from typing import Annotated

from vectile import data, models, no_grad, optim
from vectile.models.adversarial import discriminator_loss, generator_loss
from vectile.recipes import Run, recipe
from vectile.recipes._generative import descend, frozen, noise, report


@recipe(
    "gan",
    "two players: one forges digits from noise, the other tells them from real ones",
    falls=("discriminator",),
)
def train(
    run: Run,
    *,
    latent: Annotated[int, "numbers of noise that a digit is made from"] = 32,
    hidden: Annotated[int, "units in each hidden layer"] = 256,
) -> None:
    training, _ = data.digits()
    real = 2 * training.images - 1
    generator = models.MLPGenerator(latent, hidden)
    discriminator = models.MLPDiscriminator(hidden)
    forger = optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.99))
    judge = optim.Adam(discriminator.parameters(), lr=5e-4, betas=(0.5, 0.99))
    average = optim.EMA(generator, 0.995)  # the players circle each other; their average does not
    rows = data.shuffled(len(real), 64, run.generator)

    for _ in run.steps(run.pick(8000, 40)):
        images = real[next(rows)]
        with no_grad():
            forged = generator(noise(run, len(images), latent))
        loss = discriminator_loss(discriminator(images), discriminator(forged))
        descend(loss, judge)
        with frozen(discriminator):
            forged = generator(noise(run, len(images), latent))
            doubt = generator_loss(discriminator(forged))
            descend(doubt, forger)
        average.update()
        run.log(discriminator=loss, generator=doubt)

    with no_grad():
        samples = average.model(noise(run, 1000, latent))
    report(run, samples, "Digits that nobody wrote")
    run.checkpoint(average.model, {"latent": latent, "hidden": hidden})
