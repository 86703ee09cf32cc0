"""`vectile demo`: in about three minutes, from the machine's kernels to a trained and quantised GPT."""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vectile import checkpoint, data, kernel_table, machine, random
from vectile.cli import common
from vectile.extras import require
from vectile.models import GPT, GPTConfig
from vectile.quant import quantize_dynamic, save_quantized, size_report
from vectile.train import TrainConfig, Trainer, evaluate

TARGET = 2.0
"""Validation loss, in nats per byte, that training must reach."""

INT8_MARGIN = 0.01
"""How much validation loss INT8 may add, relative to float32."""

_CHECKS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
"""When to validate, as fractions of the planned training time; later again every tenth of it."""

LINE = "def __init__(self, name, value=None):"
PROMPTS = ("import ", "    def ", "class ")
MODEL = GPTConfig(context=64, n_layers=4, n_heads=4, d_model=128)
TRAIN = TrainConfig(steps=1, batch=12, lr=3e-3, warmup=100, eval_batches=32)


@dataclass(frozen=True)
class Plan:
    """Seconds for each stage."""

    kernels: float
    training: float
    int8: float
    pictures: float = 4.0

    @property
    def total(self) -> float:
        return self.kernels + self.training + self.int8 + self.pictures

    @property
    def short(self) -> bool:
        """Too short to promise the loss."""
        return self.total < 120

    @staticmethod
    def of(total: float) -> Plan:
        """A plan that takes about `total` seconds."""
        kernels, int8 = min(14.0, 0.12 * total), min(12.0, 0.1 * total)
        return Plan(kernels, max(1.0, total - kernels - int8 - 4.0), int8)


def add_to(commands: Any) -> None:
    parser = common.command(
        commands,
        "demo",
        run,
        "measure this machine, train a small GPT, quantise it, and draw what happened",
        ["vectile demo", "vectile demo --out results", "vectile demo --quick"],
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("vectile-demo"),
        metavar="FOLDER",
        help="where pictures, models and the report go (default: vectile-demo)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=common.positive, default=165, metavar="N", help="aim at (default: 165)"
    )
    length.add_argument(
        "--quick",
        action="store_true",
        help="a glimpse in about 20 seconds, too short to learn much",
    )


def run(arguments: argparse.Namespace) -> int:
    for package in ("rich", "matplotlib", "safetensors"):
        require(package, "vectile demo")
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    return Demo(out, Plan.of(20 if arguments.quick else arguments.seconds)).run()


class Demo:
    """The stages, each of which prints its result above the progress bar."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.out, self.plan = out, plan
        self.screen = common.console()
        self.done = 0.0  # planned seconds of the stages that are over
        self.bar = common.progress_bar(self.screen, "{task.fields[note]}")
        self.report: dict[str, Any] = {}

    def run(self) -> int:
        start = time.perf_counter()
        self.screen.rule("[bold]vectile demo", align="left")
        self.screen.print(kernel_table.describe())
        with self.bar:
            self.task = self.bar.add_task("starting", total=self.plan.total, note="")
            rows = self.kernels()
            trainer = self.train()
            self.sample(trainer.model)
            self.quantize(trainer)
            self.pictures(rows, trainer)
            self.bar.update(self.task, completed=self.plan.total, description="done", note="")
        seconds = time.perf_counter() - start
        self.report["seconds"] = round(seconds, 1)
        checkpoint.write_atomically(
            self.out / "report.json", json.dumps(self.report, indent=1).encode()
        )
        return self.verdict(seconds)

    @contextmanager
    def stage(self, name: str, seconds: float) -> Iterator[Callable[[float, str], None]]:
        """Yields `advance(fraction, note)`, which moves the bar within this stage's share."""

        def advance(fraction: float, note: str = "") -> None:
            self.bar.update(
                self.task, completed=self.done + min(fraction, 1.0) * seconds, note=note
            )

        self.bar.update(self.task, description=name)
        advance(0.0)
        yield advance
        self.done += seconds
        advance(0.0)

    def heading(self, text: str) -> None:
        self.screen.print(f"\n[bold]{text}")

    # -- stages ---------------------------------------------------------------------------------

    def kernels(self) -> list[kernel_table.KernelRow]:
        """Every kernel beside NumPy."""
        with self.stage("kernels", self.plan.kernels) as advance:
            found = machine.ceilings()
            reads = ", ".join(f"{_size(n)} {rate:.0f}" for n, rate in found.read_gbs.items())
            self.screen.print(
                f"measured peaks: {found.fma_gflops:,.0f} GFLOP/s float32, "
                f"{found.int8_gops:,.0f} GOP/s INT8; reading GB/s from {reads}"
            )
            quick = self.plan.kernels < 8
            total = len(kernel_table.kernels(quick))
            rows: list[kernel_table.KernelRow] = []

            def progress(row: kernel_table.KernelRow) -> None:
                rows.append(row)
                advance(len(rows) / total, row.name)

            kernel_table.kernel_table(quick, 0.7 * self.plan.kernels / total, progress)
        self.heading("Kernels beside NumPy")
        table = common.table(*kernel_table.HEADINGS)
        for row in rows:
            table.add_row(*kernel_table.columns(row))
        self.screen.print(table)
        self.report["kernels"] = [asdict(row) | {"speedup": row.speedup} for row in rows]
        return rows

    def train(self) -> Trainer:
        """A small GPT on Python's library, for the planned time and on to the target if need be."""
        random.manual_seed(TRAIN.seed)
        text, validation = data.split(data.stdlib_corpus())
        config = replace(TRAIN, eval_batches=4) if self.plan.short else TRAIN
        trainer = Trainer(GPT(MODEL), config, text, validation)
        count = sum(p.size for p in trainer.parameters)
        self.heading(
            f"Training a GPT with {count:,} parameters on {len(text) / 1e6:.1f} MB "
            "of Python's own library source"
        )
        value = trainer.validate()
        self.screen.print(f"  before        validation {value:.3f} nats per byte")
        budget, start = self.plan.training, time.perf_counter()
        limit = budget if self.plan.short else 2 * budget
        due, validating, rate = budget * _CHECKS[0], 0.0, 0.0
        with self.stage("training", budget) as advance:
            while True:
                elapsed = time.perf_counter() - start
                if elapsed >= due:
                    value = trainer.validate()
                    now = time.perf_counter() - start
                    validating += now - elapsed
                    self.screen.print(
                        f"  step {trainer.step_count:>6}   validation {value:.3f}   "
                        f"{rate:,.0f} tokens/s"
                    )
                    if now >= budget and (value <= TARGET or now >= limit):
                        break
                    later = (budget * fraction for fraction in _CHECKS)
                    due = next((moment for moment in later if moment > now), now + 0.1 * budget)
                # past the planned time a modest rate goes on until the target
                loss = trainer.step(elapsed / budget if elapsed < budget else 0.8)
                trained = time.perf_counter() - start - validating
                rate = trainer.step_count * trainer.tokens_per_step / trained
                advance(
                    elapsed / budget,
                    f"loss {loss:.2f}  validation {value:.2f}  {rate:,.0f} tokens/s",
                )
        trainer.save(self.out / "model.safetensors", {"data": None, "limit": None})
        self.report["training"] = {
            "parameters": count,
            "steps": trainer.step_count,
            "tokens_per_second": round(rate),
            "validation_loss": value,
        }
        return trainer

    def sample(self, model: GPT) -> None:
        """Text in the model's own words."""
        texts: list[str] = []
        for prompt in PROMPTS:
            ids = np.frombuffer(f"\n\n{prompt}".encode(), np.uint8)
            out = model.generate(ids, 240, temperature=0.8, top_p=0.95, seed=len(texts))
            texts.append(
                out.astype(np.uint8).tobytes().decode("utf-8", "replace").strip("\n").rstrip()
            )
        text = "\n\n".join(texts)
        self.heading("It writes, given " + ", ".join(repr(prompt) for prompt in PROMPTS))
        syntax = require("rich.syntax", "vectile demo").Syntax(
            text, "python", theme="ansi_dark", background_color="default", word_wrap=True
        )
        self.screen.print(syntax)
        (self.out / "sample.txt").write_text(text + "\n", encoding="utf-8")

    def quantize(self, trainer: Trainer) -> None:
        """The same model in INT8: size, speed, loss."""
        model = trainer.model.eval()
        with self.stage("INT8", self.plan.int8) as advance:
            small = quantize_dynamic(copy.deepcopy(model))
            figures = {}
            for i, (name, network) in enumerate((("float32", model), ("INT8", small))):
                advance(i / 2, name)
                start = time.perf_counter()
                loss = evaluate(network, trainer.validation)
                seconds = time.perf_counter() - start
                tokens = sum(x.size for x, _ in trainer.validation)
                figures[name] = {
                    "megabytes": size_report(network).total / 1e6,
                    "validation_loss": loss,
                    "scored_tokens_per_second": round(tokens / seconds),
                    "generated_tokens_per_second": round(
                        _generation_rate(network, self.plan.int8 / 5)
                    ),
                }
        save_quantized(
            self.out / "model-int8.safetensors", small, {"kind": "gpt", "model": asdict(MODEL)}
        )
        self.heading("float32 and INT8")
        table = common.table("", "size", "validation loss", "scoring", "generating")
        for name, f in figures.items():
            table.add_row(
                name,
                f"{f['megabytes']:.2f} MB",
                f"{f['validation_loss']:.4f}",
                f"{f['scored_tokens_per_second']:,} tokens/s",
                f"{f['generated_tokens_per_second']:,} tokens/s",
            )
        self.screen.print(table)
        self.report["int8"] = figures

    def pictures(self, rows: list[kernel_table.KernelRow], trainer: Trainer) -> None:
        """Loss curve, attention maps and kernel chart as PNG."""
        from vectile import viz

        training, model = self.report["training"], trainer.model
        ids = np.frombuffer(LINE.encode(), np.uint8)[None]
        with self.stage("pictures", self.plan.pictures) as advance:
            viz.save(viz.kernel_chart(rows, kernel_table.describe()), self.out / "kernels.png")
            advance(0.3, "kernels.png")
            figure = viz.loss_curves(
                *trainer.history.curves(),
                target=TARGET,
                subtitle=f"GPT with {training['parameters']:,} parameters on Python's library, "
                f"{training['tokens_per_second']:,} tokens/s",
                ylabel="cross-entropy, nats per byte",
            )
            viz.save(figure, self.out / "loss.png")
            advance(0.6, "loss.png")
            figure = viz.attention_heads(
                model.attention_weights(ids)[:, 0],
                list(LINE),
                causal=True,
                title="Where each byte looks",
                subtitle=f"rows attend to columns; line of text: {LINE!r}",
            )
            viz.save(figure, self.out / "attention.png")

    def verdict(self, seconds: float) -> int:
        """What was promised and what was reached; the exit status."""
        loss = self.report["training"]["validation_loss"]
        int8 = self.report["int8"]
        change = int8["INT8"]["validation_loss"] / int8["float32"]["validation_loss"] - 1
        ratio = int8["float32"]["megabytes"] / int8["INT8"]["megabytes"]
        checks = (
            (loss <= TARGET, f"validation loss {loss:.3f} nats per byte (target {TARGET:g})"),
            (
                change <= INT8_MARGIN,
                f"INT8 {ratio:.1f}x smaller, validation loss {100 * change:+.2f}% "
                f"(at most +{100 * INT8_MARGIN:g}%)",
            ),
        )
        self.heading(f"Done in {seconds:.0f} s")
        for passed, text in checks:
            self.screen.print(f"  {'[green]✓[/]' if passed else '[red]✗[/]'} {text}")
        files = ", ".join(sorted(path.name for path in self.out.iterdir()))
        self.screen.print(f"  {self.out}/: {files}", soft_wrap=True)
        return 0 if all(passed for passed, _ in checks[self.plan.short :]) else 1


def _generation_rate(model: GPT, seconds: float) -> float:
    """Tokens a second, one at a time with the cache, within the context."""
    prompt = np.frombuffer(PROMPTS[0].encode(), np.uint8)
    new = model.config.context - len(prompt)
    model.generate(prompt, new, greedy=True)
    tokens, start = 0, time.perf_counter()
    while tokens == 0 or time.perf_counter() - start < seconds:
        model.generate(prompt, new, greedy=True)
        tokens += new
    return tokens / (time.perf_counter() - start)


def _size(n: int) -> str:
    return f"{n >> 20} MiB" if n >= 1 << 20 else f"{n >> 10} KiB"
