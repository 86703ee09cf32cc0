"""CycleGAN: digits become outlines and outlines digits, learnt from two heaps in which nothing is paired."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from vectile import data, models, no_grad, optim, viz
from vectile.models.cyclegan import ImagePool
from vectile.recipes import Run, recipe
from vectile.recipes._generative import SIZE, Array, descend, frozen, grey


@recipe(
    "cyclegan",
    "digits to outlines and back, learnt without a single pair",
    falls=("cycle",),
)
def train(
    run: Run,
    *,
    width: Annotated[int, "channels at full size; twice as many at half"] = 16,
    cycle: Annotated[float, "weight of coming back to where one started"] = 10.0,
    identity: Annotated[float, "weight of leaving alone what is of the kind already"] = 5.0,
) -> None:
    training, held_out = data.digits(SIZE)
    images = run.generator.permutation(training.images)
    half = len(images) // 2
    digits, outlines = 2 * images[:half] - 1, 2 * outlined(images[half:]) - 1  # of other digits
    model = models.CycleGAN(width)
    steps = run.pick(2000, 16)
    translators = [*model.to_a.parameters(), *model.to_b.parameters()]
    judges = [*model.judge_a.parameters(), *model.judge_b.parameters()]
    forger = optim.Adam(translators, lr=1e-3, betas=(0.5, 0.99))
    judge = optim.Adam(judges, lr=1e-3, betas=(0.5, 0.99))
    schedules = [
        optim.lr_scheduler.WarmupCosineLR(rule, steps // 20, steps) for rule in (forger, judge)
    ]
    a_rows, b_rows = (data.shuffled(len(x), 16, run.generator) for x in (digits, outlines))
    a_pool, b_pool = ImagePool(50, run.generator), ImagePool(50, run.generator)

    for _ in run.steps(steps):
        a, b = digits[next(a_rows)], outlines[next(b_rows)]
        with frozen(model.judge_a), frozen(model.judge_b):
            losses = model.translator_losses(a, b)
            descend(losses.total(cycle, identity), forger)
        old = a_pool.exchange(losses.fake_a.numpy()), b_pool.exchange(losses.fake_b.numpy())
        loss = model.judge_loss(a, b, *old)
        descend(loss, judge)
        for schedule in schedules:
            schedule.step()
        run.log(cycle=losses.cycle, translators=losses.adversarial, judges=loss)

    a, b = held_out.images, outlined(held_out.images)
    with no_grad():
        to_b, to_a = model.to_b(2 * a - 1), model.to_a(2 * b - 1)
        back_a, back_b = (grey(x) for x in (model.to_a(to_b), model.to_b(to_a)))
        to_b, to_a = grey(to_b), grey(to_a)
    # training saw no pair, but the held-out ones are there to compare with
    for name, found, true in (
        ("digit to outline and back", back_a, a),
        ("outline to digit and back", back_b, b),
        ("digit to outline", to_b, b),
        ("outline to digit", to_a, a),
    ):
        run.score(f"{name}: mean absolute error", np.abs(found - true).mean(), better="lower")
    run.score("a digit taken for its outline: mean absolute error", np.abs(a - b).mean())
    few = slice(0, 14)
    names = ("digit", "outline", "and back", "truth")
    title, subtitle = (
        "Digits to outlines",
        "held-out digits; training never saw a digit beside its outline",
    )
    shown = viz.reconstructions(
        a[few], to_b[few], back_a[few], b[few], names=names, title=title, subtitle=subtitle
    )
    run.figure("outlines", shown)
    names = ("outline", "digit", "and back", "truth")
    shown = viz.reconstructions(
        b[few],
        to_a[few],
        back_b[few],
        a[few],
        names=names,
        title="Outlines to digits",
        subtitle=subtitle,
    )
    run.figure("digits", shown)
    run.checkpoint(model, {"width": width})


def outlined(images: Array) -> Array:
    """The length of the grey values' slope, at most 1: images (n, 1, h, w) in [0, 1] to their outlines."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    right = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    slope: Array = np.minimum(np.hypot(down, right), 1)
    return slope
