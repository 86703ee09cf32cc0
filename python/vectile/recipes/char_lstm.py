"""A character LSTM against a GPT: the same text, the same processor time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vectile import data, models, no_grad, optim, viz
from vectile.models.char_rnn import streams
from vectile.nn.utils import clip_grad_norm_
from vectile.optim.lr_scheduler import cosine_factor
from vectile.recipes import Run, recipe

Ids = NDArray[np.int64]
SLICES = 300
PROMPT = "    def read(self, "


class Racer:
    """A network with its optimiser, its way to take one step, and the seconds it has used."""

    def __init__(self, model: Any, rate: float, step: Callable[[], Any]) -> None:
        self.model, self.rate, self._step = model, rate, step
        self.optimizer = optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99))
        self.spent, self.steps = 0.0, 0

    def train(self, until: float, budget: float) -> float:
        """Steps until `until` of the `budget` seconds are used, one at least; their mean loss."""
        losses: list[float] = []
        while not losses or self.spent < until:
            start = time.process_time()
            warm = min(1.0, (self.steps + 1) / 50)
            rate = self.rate * warm * cosine_factor(self.spent / budget, 0.05)
            self.optimizer.param_groups[0]["lr"] = rate
            self.optimizer.zero_grad()
            loss = self._step()
            loss.backward()
            clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            losses.append(loss.item())
            self.steps += 1
            self.spent += time.process_time() - start
        return float(np.mean(losses))


@recipe(
    "char-lstm",
    "recurrence against attention: a character LSTM and a GPT, equal time on Python's library",
    needs=(),
    falls=("lstm", "gpt"),
)
def train(
    run: Run,
    *,
    seconds: Annotated[float, "processor time that each of the two networks may use"] = 170.0,
    hidden: Annotated[int, "units of each of the LSTM's two layers"] = 256,
    cell: Annotated[Literal["lstm", "gru"], "the recurrent network's kind"] = "lstm",
) -> None:
    text, held_out = data.split(data.stdlib_corpus(run.pick(16 << 20, 1 << 17)))
    config = models.CharRNNConfig(hidden=run.pick(hidden, 64), cell=cell)
    context = run.pick(128, 32)
    shape = models.GPTConfig(context=context, d_model=run.pick(128, 32))
    rnn, gpt = models.CharRNN(config), models.GPT(shape)
    seconds = run.pick(seconds, 4.0)
    tests = streams(held_out, run.pick(64, 8))[:, : run.pick(1024, 128) + 1].astype(np.int64)

    rows, state, place = streams(text, 32), None, 0

    def rnn_step() -> Any:
        """64 characters further down every stream; the state is carried along."""
        nonlocal state, place
        if place + 65 > rows.shape[1]:
            state, place = None, 0
        piece = rows[:, place : place + 65].astype(np.int64)
        place += 64
        loss, state = rnn.loss(piece[:, :-1], piece[:, 1:], state)
        return loss

    def gpt_step() -> Any:
        """Windows of the context's length from anywhere in the text."""
        starts = run.generator.integers(0, len(text) - context, 12)
        block = data.windows(text, starts, context + 1)
        return gpt(block[:, :-1], block[:, 1:])

    racers = {"lstm": Racer(rnn, 4e-3, rnn_step), "gpt": Racer(gpt, 3e-3, gpt_step)}
    tested: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in racers}
    slices = run.pick(SLICES, 40)
    for slice_ in run.steps(slices):
        share = (slice_ + 1) / slices
        losses = {name: r.train(share * seconds, seconds) for name, r in racers.items()}
        run.log(**losses)
        if (slice_ + 1) % (slices // 10) == 0:
            for name, score in (("lstm", rnn_nats(rnn, tests)), ("gpt", gpt_nats(gpt, tests))):
                tested[name][0].append(racers[name].spent)
                tested[name][1].append(score)

    names = {"lstm": f"character {cell.upper()}", "gpt": f"GPT, context {context}"}
    for name, racer in racers.items():
        if tested[name][1]:
            run.score(f"{names[name]}: held-out nats/byte", tested[name][1][-1], better="lower")
        run.score(f"{names[name]}: training steps", racer.steps)
    run.checkpoint(rnn, vars(config))
    run.checkpoint(gpt, vars(shape), "gpt")
    sizes = ", ".join(
        f"{names[n]}: {sum(p.size for p in r.model.parameters()):,} parameters"
        for n, r in racers.items()
    )
    figure = viz.loss_curves(
        {},
        {names[name]: series for name, series in tested.items()},
        title="Held-out loss over training time",
        subtitle=f"{sizes}; Python's standard library",
        xlabel="seconds of processor time",
        ylabel="cross-entropy, nats per byte",
    )
    run.figure("race", figure)
    prompt = np.frombuffer(PROMPT.encode(), np.uint8).astype(np.int64)
    written = {
        names[name]: bytes(
            racer.model.generate(prompt, run.pick(700, 40), temperature=0.7, seed=run.seed).astype(
                np.uint8
            )
        ).decode("utf-8", "replace")
        for name, racer in racers.items()
    }
    figure = viz.passages(
        written,
        title="What each network writes",
        subtitle=f"after {PROMPT.strip()!r}, temperature 0.7",
    )
    run.figure("samples", figure)


def rnn_nats(model: models.CharRNN, rows: Ids) -> float:
    """Nats per byte over `rows`, read from left to right with one state."""
    with no_grad():
        return float(model.loss(rows[:, :-1], rows[:, 1:])[0].item())


def gpt_nats(model: models.GPT, rows: Ids) -> float:
    """The same bytes in windows of the context's length: it forgets what lies before."""
    context = model.config.context
    inputs, targets = (part.reshape(-1, context) for part in (rows[:, :-1], rows[:, 1:]))
    with no_grad():
        losses = [
            model(inputs[i : i + 64], targets[i : i + 64]).item() for i in range(0, len(inputs), 64)
        ]
    return float(np.mean(losses))
