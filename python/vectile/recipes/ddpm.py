"""Diffusion: a network learns to see the noise in a digit, and noise becomes a digit step by step."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from vectile import data, models, optim, viz
from vectile.models.diffusion import linear_schedule, sample
from vectile.recipes import Run, recipe
from vectile.recipes._generative import Array, descend, enlarged, grey, report


@recipe("ddpm", "diffusion: noise becomes digits, in many steps (DDPM) or few (DDIM)")
def train(
    run: Run,
    *,
    width: Annotated[int, "channels of the U-Net at full size"] = 32,
    times: Annotated[int, "doses of noise"] = 200,
    fast: Annotated[int, "steps of DDIM"] = 20,
) -> None:
    training, _ = data.digits()
    real = 2 * training.images - 1
    process = models.Diffusion(linear_schedule(run.pick(times, 10)))
    width = run.pick(width, 8)
    model = models.UNet(width=width)
    steps = run.pick(1500, 24)
    optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, steps // 20, steps)
    average = optim.EMA(model, 0.995)
    rows = data.shuffled(len(real), 64, run.generator)

    for _ in run.steps(steps):
        loss = process.loss(model, real[next(rows)], run.generator)
        descend(loss, optimizer)
        schedule.step()
        average.update()
        run.log(loss=loss)

    average.model.eval()
    shape = (run.pick(400, 200), *real.shape[1:])
    start = run.generator.standard_normal(shape).astype(np.float32)
    chain = [x for _, x in process.ddpm(average.model, start, run.generator)]
    judge = report(run, chain[-1], "Digits that nobody wrote")
    shown = {f"DDPM {process.steps}": chain[-1]}
    fast = min(fast, process.steps)
    for count in (fast, max(1, fast // 2), max(1, fast // 4)):
        made = sample(process.ddim(average.model, start, count))
        distance = judge.distance(grey(made))
        run.score(f"Fréchet distance, DDIM in {count} steps", distance, better="lower")
        shown[f"DDIM {count}"] = made
    few = [enlarged(grey(images[:14])) for images in shown.values()]
    title, subtitle = (
        "Fewer steps",
        "rows by number of steps; every column begins with the same noise",
    )
    figure = viz.reconstructions(*few, names=tuple(shown), title=title, subtitle=subtitle)
    run.figure("steps", figure)
    run.figure("denoising", denoising(start, chain))
    run.checkpoint(average.model, {"width": width}, beside={"betas": process.betas})


def denoising(start: Array, chain: list[Array], rows: int = 6, columns: int = 12) -> Any:
    """A row for each digit: noise on the left, a digit on the right."""
    history = [start, *chain]
    places = np.linspace(0, len(chain), columns).round().astype(int)
    images = np.stack([history[i][:rows] for i in places], axis=1)  # (rows, columns, 1, h, w)
    return viz.sample_grid(
        enlarged(grey(images.reshape(-1, *start.shape[1:]))),
        columns=columns,
        title="From noise to digits",
        subtitle=f"evenly spaced among the {len(chain)} steps of DDPM",
    )
