"""Wasserstein GANs: a critic measures a distance, held smooth by clipped weights or by a gradient penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from vectile import Tensor, data, models, no_grad, optim
from vectile.models.adversarial import clip_weights_, critic_loss, gradient_penalty
from vectile.recipes import Run, recipe
from vectile.recipes._generative import SIZE, Array, descend, frozen, noise, report

Latent = Annotated[int, "numbers of noise that a digit is made from"]
Width = Annotated[int, "channels next to the image; twice as many further in"]


@recipe("wgan", "a Wasserstein GAN whose critic's weights are clipped", falls=("critic",))
def clipped(
    run: Run,
    *,
    latent: Latent = 32,
    width: Width = 32,
    clip: Annotated[float, "largest weight of the critic"] = 0.05,
) -> None:
    critic = models.DCDiscriminator(width, batch_norm=False)
    rule = optim.RMSprop(critic.parameters(), lr=3e-4)

    def improve(real: Array, fake: Tensor) -> Tensor:
        loss = critic_loss(critic(real), critic(fake))
        descend(loss, rule)
        clip_weights_(critic.parameters(), clip)
        return loss

    generator = models.DCGenerator(latent, width)
    play(run, generator, critic, improve, optim.RMSprop(generator.parameters(), lr=3e-4), turns=3)
    run.checkpoint(generator, {"latent": latent, "width": width})


@recipe(
    "wgan-gp",
    "a Wasserstein GAN whose critic pays for steep slopes: second derivatives at work",
    falls=("critic",),
)
def penalised(
    run: Run,
    *,
    latent: Latent = 32,
    width: Width = 32,
    penalty: Annotated[float, "price of a slope other than 1"] = 10.0,
) -> None:
    critic = models.DCDiscriminator(width, batch_norm=False)
    rule = optim.Adam(critic.parameters(), lr=5e-4, betas=(0.0, 0.9))

    def improve(real: Array, fake: Tensor) -> Tensor:
        loss = critic_loss(critic(real), critic(fake))
        descend(loss + penalty * gradient_penalty(critic, real, fake), rule)
        return loss

    generator = models.DCGenerator(latent, width)
    adam = optim.Adam(generator.parameters(), lr=5e-4, betas=(0.0, 0.9))
    play(run, generator, critic, improve, adam, turns=2)
    run.checkpoint(generator, {"latent": latent, "width": width})


def play(
    run: Run,
    generator: models.DCGenerator,
    critic: models.DCDiscriminator,
    improve: Callable[[Array, Tensor], Tensor],
    forger: optim.Optimizer,
    turns: int,
) -> None:
    """The critic moves `turns` times for each move of the generator, whose average then makes the samples."""
    training, _ = data.digits(SIZE)
    real = 2 * training.images - 1
    average = optim.EMA(generator, 0.995)
    rows = data.shuffled(len(real), 64, run.generator)

    for _ in run.steps(run.pick(1800, 16)):
        for _ in range(turns):
            images = real[next(rows)]
            with no_grad():
                forged = generator(noise(run, len(images), generator.latent))
            loss = improve(images, forged)
        with frozen(critic):
            score = -critic(generator(noise(run, len(images), generator.latent))).mean()
            descend(score, forger)
        average.update()
        run.log(critic=loss, generator=score)

    average.model.eval()
    with no_grad():
        samples = average.model(noise(run, 1000, generator.latent))
    report(run, samples, "Digits that nobody wrote")
    generator.load_state_dict(average.model.state_dict())
