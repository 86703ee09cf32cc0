"""Training a GPT on bytes: steps, validation, and checkpoints that continue bit for bit."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectile import checkpoint, data, random
from vectile.autograd import Tensor, no_grad
from vectile.device import near
from vectile.models.gpt import GPT, GPTConfig
from vectile.nn.utils import clip_grad_norm_, evaluating
from vectile.optim import AdamW
from vectile.optim.lr_scheduler import cosine_factor, warmup_factor
from vectile.quant import restore

Curve = tuple[Sequence[int], Sequence[float]]


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the learning rate warms up, then follows half a cosine down to `final_ratio`."""

    steps: int = 2000
    batch: int = 12
    lr: float = 3e-3
    warmup: int = 100
    final_ratio: float = 0.05
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    seed: int = 0
    eval_every: int = 250
    eval_batches: int = 16
    save_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "eval_every", "eval_batches", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"TrainConfig: {name}: expected >= 1, got {getattr(self, name)}")
        for name in ("warmup", "weight_decay", "seed", "lr"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"TrainConfig: {name}: expected >= 0, got {getattr(self, name)}")
        if not self.clip > 0:
            raise ValueError(f"TrainConfig: clip: expected > 0, got {self.clip}")


@dataclass
class History:
    """Losses in nats per byte: one for every training step, and (step, loss) where validated."""

    train: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)

    def curves(self) -> tuple[dict[str, Curve], dict[str, Curve]]:
        """The lines and the points that `viz.loss_curves` draws, as (steps, losses) by name."""
        steps, losses = [step for step, _ in self.validation], [loss for _, loss in self.validation]
        training = (range(1, len(self.train) + 1), self.train)
        return {"training": training}, {"validation": (steps, losses)}


class Trainer:
    """A model, here or on a GPU, its optimiser and its text. All that a step depends on is in the checkpoint.

    A step's batch is a function of (seed, step) and dropout draws from `vectile.random`, so a run that was
    saved, ended and resumed goes through the very numbers of one that was never stopped.
    """

    def __init__(
        self,
        model: GPT,
        config: TrainConfig,
        train_text: data.Bytes,
        validation_text: data.Bytes,
    ) -> None:
        self.model, self.config = model, config
        for text in (train_text, validation_text):
            if text.max(initial=0) >= model.config.vocab_size:
                raise ValueError(
                    f"Trainer: text: expected bytes below vocab_size {model.config.vocab_size}, "
                    f"got {text.max()}"
                )
        self.text = train_text
        context = model.config.context
        self.validation = data.validation_batches(
            validation_text, config.batch, context, config.eval_batches
        )
        self.tokens_per_step = config.batch * context
        self.step_count = 0
        self.history = History()
        self.parameters = list(model.parameters())
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = AdamW(
            [group for group in groups if group["params"]],
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )

    @property
    def finished(self) -> bool:
        return self.step_count >= self.config.steps

    def step(self, progress: float | None = None) -> float:
        """One optimiser step; returns the batch's loss.

        `progress` in [0, 1] places the step on the learning-rate curve when something else than the number
        of steps (such as time) ends the run.
        """
        config, step = self.config, self.step_count
        if progress is None:
            progress = step / config.steps
        rate = config.lr * warmup_factor(step, config.warmup)
        rate *= cosine_factor(progress, config.final_ratio)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = data.batch(self.text, config.batch, self.model.config.context, config.seed, step)
        self.optimizer.zero_grad()
        loss = _loss(self.model, batch)
        loss.backward()
        clip_grad_norm_(self.parameters, config.clip)
        self.optimizer.step()
        self.step_count += 1
        value = float(loss.item())
        self.history.train.append(value)
        return value

    def validate(self) -> float:
        """Mean loss over the fixed validation windows, also noted in the history."""
        value = evaluate(self.model, self.validation)
        self.history.validation.append((self.step_count, value))
        return value

    def save(self, path: str | PathLike[str], source: Mapping[str, Any] | None = None) -> None:
        """Write everything needed to continue; `source` says where the text came from."""
        state = self.optimizer.state_dict()["state"]
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        for index, entry in state.items():
            tensors[f"optimizer.{index}.exp_avg"] = entry["exp_avg"]
            tensors[f"optimizer.{index}.exp_avg_sq"] = entry["exp_avg_sq"]
        tensors["history.train"] = np.array(self.history.train, np.float64)
        tensors["history.validation"] = np.array(self.history.validation, np.float64).reshape(-1, 2)
        settings = {
            "kind": "gpt",
            "model": asdict(self.model.config),
            "train": asdict(self.config),
            "step": self.step_count,
            "optimizer_steps": {index: entry["step"] for index, entry in state.items()},
            "random": checkpoint.plain(random.get_state()),
            "text": fingerprint(self.text),
            "source": dict(source or {}),
        }
        checkpoint.save(path, tensors, settings)

    @classmethod
    def resume(
        cls,
        path: str | PathLike[str],
        train_text: data.Bytes,
        validation_text: data.Bytes,
        steps: int | None = None,
        device: str = "cpu",
    ) -> Trainer:
        """The trainer that `save` wrote, at the step where it was; `steps` moves the run's end.

        `device` is where the model goes on, wherever it was saved. ValueError when the text is not the one it
        was trained on.
        """
        tensors, settings = checkpoint.load(path)
        if "train" not in settings:
            raise ValueError(f"{path}: expected a training checkpoint, got a model without one")
        with checkpoint.understanding(path):
            known = dict(settings["text"])
            config = TrainConfig(
                **{**settings["train"], "betas": tuple(settings["train"]["betas"])}
            )
        if known != fingerprint(train_text):
            raise ValueError(
                f"{path}: expected the text it was trained on ({known.get('bytes')} bytes), "
                f"got another of {len(train_text)} bytes"
            )
        if steps is not None:
            config = replace(config, steps=steps)
        model = model_from(tensors, settings, path).to(device)
        with checkpoint.understanding(path):
            trainer = cls(model, config, train_text, validation_text)
            trainer._restore(tensors, settings)
        return trainer

    def _restore(self, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> None:
        """Take over the progress in a checkpoint's contents."""
        self.step_count = int(settings["step"])
        names = ("exp_avg", "exp_avg_sq")
        state = {
            int(index): {"step": step, **{n: tensors[f"optimizer.{index}.{n}"] for n in names}}
            for index, step in settings["optimizer_steps"].items()
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.history.train = tensors["history.train"].tolist()
        self.history.validation = [
            (int(step), float(loss)) for step, loss in tensors["history.validation"]
        ]
        random.set_state(_random_state(settings["random"]))


def evaluate(model: GPT, batches: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> float:
    """Mean cross-entropy in nats per byte over `batches` of (inputs, targets), without dropout."""
    with evaluating(model), no_grad():
        losses = [_loss(model, batch).item() for batch in batches]
    return float(np.average(losses, weights=[inputs.size for inputs, _ in batches]))


def _loss(model: GPT, batch: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Tensor:
    """Of inputs and targets, which follow the model to where it is."""
    weight = model.tokens.weight.data
    loss: Tensor = model(*[near(ids, weight) for ids in batch])
    return loss


def model_from(
    tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any], path: object = "checkpoint"
) -> GPT:
    """The GPT in a checkpoint's contents, float32 or quantised."""
    if settings.get("kind") != "gpt":
        raise ValueError(f"{path}: expected a GPT checkpoint, got {settings.get('kind')!r}")
    with checkpoint.understanding(path):
        model = restore(GPT(GPTConfig(**settings["model"])), settings.get("quantized", ()))
        model.load_state_dict(checkpoint.part(tensors, "model."))
    return model


def load_model(path: str | PathLike[str]) -> GPT:
    """The GPT that `vectile train` or `vectile quantize` wrote, in evaluation mode."""
    return model_from(*checkpoint.load(path), path).eval()


def fingerprint(text: data.Bytes) -> dict[str, int]:
    """Enough to notice that a text is not the same."""
    return {"bytes": len(text), "crc32": zlib.crc32(np.ascontiguousarray(text).data)}


def _random_state(plain: Mapping[str, Any]) -> dict[str, Any]:
    """NumPy's Philox state from its JSON form."""
    state = {key: np.array(value, np.uint64) for key, value in plain["state"].items()}
    return {**plain, "state": state, "buffer": np.array(plain["buffer"], np.uint64)}
