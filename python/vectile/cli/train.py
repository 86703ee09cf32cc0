"""`vectile train`: a byte-level GPT on files or on Python's own library; `--recipe`: see `cli.recipes`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from vectile import checkpoint, data, random
from vectile.cli import common
from vectile.extras import require
from vectile.models import GPT, GPTConfig
from vectile.train import TrainConfig, Trainer

_MODEL: dict[
    str, tuple[str, Callable[[str], Any], str]
] = {  # option -> (GPTConfig field, type, help)
    "--d-model": ("d_model", common.positive, "width of the residual stream"),
    "--layers": ("n_layers", common.positive, "number of blocks"),
    "--heads": ("n_heads", common.positive, "attention heads per block"),
    "--context": ("context", common.positive, "bytes that the model sees at once"),
    "--dropout": ("dropout", float, "dropout probability"),
    "--positions": ("positions", str, "learned, rotary or alibi"),
    "--kv-heads": ("n_kv_heads", common.positive, "heads of keys and values; all by default"),
    "--window": ("window", common.positive, "bytes before its own that each sees; all by default"),
}
_TRAIN: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "--steps": ("steps", common.positive, "optimiser steps in total"),
    "--batch": ("batch", common.positive, "windows per step"),
    "--lr": ("lr", float, "peak learning rate"),
    "--warmup": ("warmup", int, "steps of linear warm-up"),
    "--weight-decay": ("weight_decay", float, "AdamW's decay of the matrices"),
    "--clip": ("clip", float, "largest gradient norm"),
    "--seed": ("seed", int, "of initial weights, batches and dropout"),
    "--eval-every": ("eval_every", common.positive, "steps between validations"),
    "--save-every": ("save_every", common.positive, "steps between checkpoints"),
}
_METAVARS: dict[Callable[[str], Any], str] = {float: "X", str: "KIND"}


def add_to(commands: Any) -> None:
    parser = common.command(
        commands,
        "train",
        run,
        "train a byte-level GPT; Ctrl-C saves and stops",
        [
            "vectile train",
            "vectile train --data book.txt notes.md --steps 5000 --out book.safetensors",
            "vectile train --resume book.safetensors",
            "vectile train --recipe vit            (vectile recipes lists them)",
        ],
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="run this recipe instead of training a GPT; it has options of its own",
    )
    common.add_text_options(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="checkpoint to write, with the loss curve beside it as .png (default: model.safetensors)",
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="continue a run exactly where it was saved"
    )
    for options, defaults in ((_MODEL, GPTConfig), (_TRAIN, TrainConfig)):
        known = {field.name: field.default for field in fields(defaults)}
        group = parser.add_argument_group("model" if options is _MODEL else "training")
        for option, (name, kind, text) in options.items():
            group.add_argument(
                option,
                dest=name,
                type=kind,
                default=argparse.SUPPRESS,
                metavar=_METAVARS.get(kind, "N"),
                help=text if known[name] is None else f"{text} (default: {known[name]})",
            )


def run(arguments: argparse.Namespace) -> int:
    require("safetensors", "vectile train")
    require("matplotlib.figure", "vectile train")
    screen = common.console()
    out: Path = arguments.out or arguments.resume or Path("model.safetensors")
    common.require_parent(out)
    picture = out.with_suffix(".png")
    if picture == out:
        raise ValueError(f"--out: expected a name without .png, which the picture takes, got {out}")
    trainer, source = _resume(arguments) if arguments.resume else _start(arguments)
    parameters = sum(p.size for p in trainer.parameters)
    screen.print(
        f"GPT with {parameters:,} parameters on {len(trainer.text):,} bytes; "
        f"step {trainer.step_count} of {trainer.config.steps}"
    )
    stopped = _loop(trainer, out, source, screen)
    trainer.save(out, source)
    draw(picture, trainer)
    if stopped:
        screen.print(
            f"stopped at step {trainer.step_count}; continue with: vectile train --resume {out}",
            soft_wrap=True,
        )
    screen.print(f"saved {out} and {picture}", soft_wrap=True)
    return 0


def _start(arguments: argparse.Namespace) -> tuple[Trainer, dict[str, Any]]:
    given = vars(arguments)
    config = TrainConfig(**{n: given[n] for n, _, _ in _TRAIN.values() if n in given})
    model_config = GPTConfig(**{n: given[n] for n, _, _ in _MODEL.values() if n in given})
    source = common.text_source(arguments)
    text, validation = data.split(common.read_text(source))
    random.manual_seed(config.seed)
    return Trainer(GPT(model_config), config, text, validation), source


def _resume(arguments: argparse.Namespace) -> tuple[Trainer, dict[str, Any]]:
    """The saved run. Only its end may move: everything else would make it another run."""
    given = vars(arguments)
    fixed = [
        option
        for option, (name, _, _) in {**_MODEL, **_TRAIN}.items()
        if name in given and option != "--steps"
    ]
    if fixed:
        raise ValueError(f"--resume: expected no {', '.join(fixed)}: the checkpoint decides")
    if arguments.data or arguments.limit or arguments.corpus:
        source = common.text_source(arguments)
    else:
        settings = checkpoint.load(arguments.resume)[1]
        with checkpoint.understanding(arguments.resume):
            files, limit = (settings.get("source", {}).get(key) for key in ("data", "limit"))
            source = {
                "data": files and [str(file) for file in files],
                "limit": limit and int(limit),
            }
    text, validation = data.split(common.read_text(source))
    return Trainer.resume(arguments.resume, text, validation, given.get("steps")), source


def _loop(trainer: Trainer, out: Path, source: dict[str, Any], screen: Any) -> bool:
    """Train to the end or to Ctrl-C (True)."""
    config, history = trainer.config, trainer.history
    first, start = trainer.step_count, time.perf_counter()
    with (
        common.interruptible() as interrupted,
        common.progress_bar(
            screen,
            "loss {task.fields[loss]}",
            "val {task.fields[val]}",
            "{task.fields[rate]} tokens/s",
        ) as bar,
    ):
        task = bar.add_task(
            "training", total=config.steps, completed=first, loss="-", val="-", rate="-"
        )
        while not trainer.finished:
            if interrupted():
                return True
            loss = trainer.step()
            step = trainer.step_count
            rate = (step - first) * trainer.tokens_per_step / (time.perf_counter() - start)
            bar.update(task, completed=step, loss=f"{loss:.3f}", rate=f"{rate:,.0f}")
            if step % config.eval_every == 0 or trainer.finished:
                value = trainer.validate()
                bar.update(task, val=f"{value:.3f}")
                average = sum(history.train[-config.eval_every :]) / len(
                    history.train[-config.eval_every :]
                )
                screen.print(
                    f"step {step:>6}  loss {average:.4f}  validation {value:.4f}  "
                    f"{rate:,.0f} tokens/s"
                )
            if step % config.save_every == 0:
                trainer.save(out, source)
    return False


def draw(path: Path, trainer: Trainer) -> None:
    """The run's loss curve."""
    from vectile import viz

    config = trainer.model.config
    figure = viz.loss_curves(
        *trainer.history.curves(),
        subtitle=f"GPT, {sum(p.size for p in trainer.parameters):,} parameters, "
        f"d_model {config.d_model}, {config.n_layers} layers, context {config.context}",
        ylabel="cross-entropy, nats per byte",
    )
    viz.save(figure, path)
