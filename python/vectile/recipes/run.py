"""Run: what a recipe trains with (seed, steps, progress) and hands in (scores, pictures, weights)."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, SupportsFloat, TypeVar

import numpy as np

import vectile
from vectile import checkpoint, random, terminal, viz
from vectile.extras import require
from vectile.nn import Module
from vectile.recipes.registry import Recipe
from vectile.runtime import config

T = TypeVar("T")
Better = Literal["higher", "lower"] | None

_ARROWS = {"higher": "↑", "lower": "↓", None: ""}
_QUICK_STEPS = 40


class Run:
    """One run of a recipe.

    `seed` has seeded `vectile.random` (initial weights, dropout) and `generator` (order of the data, noise):
    two streams, so that another model sees the same data. `quick` asks for a run of seconds. `out` is the
    folder for what the run writes. `stopped` turns true with Ctrl-C; then training ends and the rest goes on.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        seed: int = 0,
        quick: bool = False,
        screen: Any = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.recipe, self.out, self.seed, self.quick = recipe, out, seed, quick
        self.screen = screen or terminal.console()
        random.manual_seed(seed)
        self.generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1])))
        self.history: dict[str, tuple[list[int], list[float]]] = {}
        self._phases: dict[str, list[str]] = {}  # what was logged under which label of `steps`
        self.scores: list[dict[str, Any]] = []
        self.files: list[Path] = []
        self._interrupted, self._start = interrupted, time.perf_counter()
        self._cpu_start = time.process_time()
        self._step, self._label, self._note = 0, "", ""

    @property
    def stopped(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._interrupted()

    def pick(self, full: T, quick: T) -> T:
        """`full`, or `quick` in a smoke run: for sizes of data and models."""
        return quick if self.quick else full

    def steps(
        self,
        count: int,
        *,
        quick: int = _QUICK_STEPS,
        seconds: float | None = None,
        label: str = "training",
        always: bool = False,
    ) -> Iterator[int]:
        """The step numbers 0 … count - 1 under a progress bar; a smoke run takes `quick` of them.

        Ends early after `seconds`, if given, and with Ctrl-C unless `always`. What is logged under one label
        is drawn in one picture.
        """
        count = min(count, quick) if self.quick else count
        self._label, self._note = label, ""
        with terminal.progress_bar(self.screen, "{task.fields[note]}") as bar:
            task = bar.add_task(label, total=1.0, note="")
            start, drawn = time.perf_counter(), 0.0
            for step in range(count):
                spent = time.perf_counter() - start
                stopped = self.stopped and not always
                if stopped or (seconds is not None and spent >= seconds):
                    break
                self._step = step
                yield step
                now = time.perf_counter() - start
                if now - drawn > 0.1:  # redrawing costs more than a small model's step
                    done = max((step + 1) / count, now / seconds if seconds else 0.0)
                    bar.update(task, completed=done, note=self._note)
                    drawn = now
            bar.update(task, completed=1.0, note=self._note)

    def log(self, **values: Any) -> None:
        """Losses and other numbers of this step: shown in the bar, kept for loss.png and the report.

        One that is logged now and then, such as a validation loss, is drawn point by point.
        """
        for name, value in values.items():
            if name not in self.history:
                self.history[name] = [], []
                self._phases.setdefault(self._label, []).append(name)
            steps, seen = self.history[name]
            steps.append(self._step + 1)
            seen.append(float(value))
        self._note = "  ".join(f"{name} {float(value):.3f}" for name, value in values.items())

    def say(self, text: str) -> None:
        """A line on the screen, above the progress bar."""
        self.screen.print(text, markup=False, soft_wrap=True)

    def score(self, name: str, value: SupportsFloat, better: Better = None) -> None:
        """A figure of merit for the closing table and the report; `better` says which way is good."""
        if better not in _ARROWS:
            raise ValueError(f'score: better: expected "higher", "lower" or None, got {better!r}')
        self.scores.append({"name": name, "value": float(value), "better": better})

    def figure(self, name: str, figure: Any) -> Path:
        """Write a matplotlib figure as NAME.png."""
        return self._wrote(viz.save(figure, self.out / f"{name}.png"))

    def checkpoint(
        self,
        model: Module,
        settings: Mapping[str, Any] | None = None,
        name: str = "model",
        *,
        network: str = "",
        beside: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a model's state_dict as NAME.safetensors, from which `models.load` makes the model again.

        `settings` are the keyword arguments of its class (of its config, where it has one), or of `network`
        in `vectile.models`; `beside` is what else its use needs, such as the words of a vocabulary.
        """
        path = self.out / f"{name}.safetensors"
        about = {
            "recipe": self.recipe.name,
            "seed": self.seed,
            "network": network or type(model).__name__,
            "model": dict(settings or {}),
            "beside": dict(beside or {}),
        }
        checkpoint.save(path, model.state_dict(), checkpoint.plain(about))
        return self._wrote(path)

    def finish(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Draw the losses, write report.json and print the tables; returns the report."""
        for number, (label, names) in enumerate(self._phases.items()):
            subtitle = f"recipe {self.recipe.name}, seed {self.seed}"
            if len(self._phases) > 1:
                subtitle += f": {label}"
            often = max(len(self.history[name][0]) for name in names) / 4
            lines = {n: self.history[n] for n in names if len(self.history[n][0]) > often}
            points = {n: self.history[n] for n in names if n not in lines}
            figure = viz.loss_curves(lines, points, subtitle=subtitle)
            self.figure("loss" if number == 0 else f"loss-{label}", figure)
        now = config()
        report: dict[str, Any] = {
            "recipe": self.recipe.name,
            "summary": self.recipe.summary,
            "seed": self.seed,
            "quick": self.quick,
            "stopped": self.stopped,
            "options": {name: _plain(value) for name, value in options.items()},
            "seconds": round(time.perf_counter() - self._start, 1),
            "cpu_seconds": round(time.process_time() - self._cpu_start, 1),
            "scores": self.scores,
            "losses": {name: _ends(values) for name, (_, values) in self.history.items()},
            "files": [path.name for path in self.files],
            "versions": {
                "vectile": vectile.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                "isa": now["isa"],
                "threads": now["threads"],
            },
        }
        text = json.dumps(report, indent=1, ensure_ascii=False)
        path = self.out / "report.json"
        checkpoint.write_atomically(path, text.encode())
        self._wrote(path)
        self._print(report["seconds"])
        return report

    def _wrote(self, path: Path) -> Path:
        if path not in self.files:
            self.files.append(path)
        return path

    def _print(self, seconds: float) -> None:
        state = "stopped" if self.stopped else "done"
        self.screen.print(f"\n[bold]{self.recipe.name}[/], {state} in {seconds:.0f} s")
        scores = terminal.table("score", "", "")
        for score in self.scores:
            scores.add_row(score["name"], f"{score['value']:.4g}", _ARROWS[score["better"]])
        files = terminal.table(f"in {self.out}", "")
        for path in self.files:
            files.add_row(path.name, f"{path.stat().st_size / 1000:,.0f} kB")
        for table in (scores, files):
            self.screen.print(table)


def run_recipe(
    recipe: Recipe,
    out: Path | None = None,
    seed: int = 0,
    quick: bool = False,
    screen: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """Run a recipe into the folder `out` (`vectile-NAME` unless given) and return what report.json holds.

    MissingExtra when a module that it needs is not installed.
    """
    for module in recipe.needs:
        require(module, f"the recipe {recipe.name}", "recipes")
    out = out or Path(f"vectile-{recipe.name}")
    out.mkdir(parents=True, exist_ok=True)
    with terminal.interruptible() as interrupted:
        run = Run(recipe, out, seed, quick, screen, interrupted)
        recipe.train(run, **options)
        return run.finish(options)


def _ends(values: list[float]) -> dict[str, float]:
    """The mean over the first and the last tenth, which says whether a loss fell."""
    tenth = max(1, len(values) // 10)
    return {
        "first": float(np.mean(values[:tenth])),
        "last": float(np.mean(values[-tenth:])),
        "logged": len(values),
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else checkpoint.plain(value)
