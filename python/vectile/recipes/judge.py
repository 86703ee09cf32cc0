"""A classifier of digits that judges the samples of generative recipes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import checkpoint, data, metrics, models, no_grad, optim
from vectile.nn import functional as F
from vectile.recipes.run import Run

_HIDDEN = (128, 32)


class Judge:
    """Reads digits of `size` x `size` pixels in [0, 1]; its last hidden layer is a space to measure in.

    Trained on the training digits, or read from judge.safetensors in the run's folder where an earlier run
    left it. `seed` fixes it: the judge is the same in every recipe.
    """

    def __init__(self, run: Run, size: int = 8) -> None:
        training, self.held_out = data.digits(size)
        self.real = np.concatenate([training.images, self.held_out.images])
        self.model = models.MLP(size * size, _HIDDEN, 10)
        path, steps = run.out / "judge.safetensors", run.pick(3000, 40)
        settings = {"kind": "judge", "size": size, "steps": steps, "hidden": list(_HIDDEN)}
        if path.exists():
            tensors, found = checkpoint.load(path)
            if found == settings:
                self.model.load_state_dict(tensors)
                return
        generator = np.random.Generator(np.random.Philox(size))
        for (
            parameter
        ) in self.model.parameters():  # drawn here, so that every recipe has the same judge
            bound = 1 / np.sqrt(parameter.shape[-1])
            parameter.data[...] = generator.uniform(-bound, bound, parameter.shape)
        optimizer = optim.AdamW(self.model.parameters(), lr=2e-3, weight_decay=0.05)
        schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, steps // 20, steps)
        rows = data.shuffled(len(training.labels), 64, generator)
        for _ in run.steps(steps, label="judge"):
            batch = next(rows)
            images = data.warped(training.images[batch], generator, shift=size / 16)
            loss = F.cross_entropy(self.model(images), training.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if not run.stopped:
            checkpoint.save(path, self.model.state_dict(), settings)

    def features(self, images: ArrayLike) -> NDArray[np.float32]:
        """The last hidden layer, (n, 32)."""
        with no_grad():
            out: NDArray[np.float32] = self.model.features(np.asarray(images, np.float32)).numpy()
        return out

    def predict(self, images: ArrayLike) -> NDArray[np.int64]:
        """The digit that each image shows, as the judge sees it."""
        with no_grad():
            logits = self.model(np.asarray(images, np.float32)).numpy()
        out: NDArray[np.int64] = logits.argmax(1)
        return out

    def distance(self, a: ArrayLike, b: ArrayLike) -> float:
        """Fréchet distance of two sets of images in the space of `features`."""
        return metrics.frechet_distance(self.features(a), self.features(b))

    def score(self, run: Run, samples: ArrayLike, labels: ArrayLike | None = None) -> None:
        """Hand in the samples' distance to held-out digits, and beside it that of two sets of real digits.

        Sets are as large as the held-out one (n = 359), so that the figures compare; give at least as many
        samples. With `labels`, what the samples were asked to be, also how often the judge agrees.
        """
        images, count = np.asarray(samples), len(self.held_out.images)
        if len(images) < count:
            raise ValueError(f"score: samples: expected at least {count}, got {len(images)}")
        distance = self.distance(images[:count], self.held_out.images)
        run.score("Fréchet distance, samples to held-out digits", distance, better="lower")
        order = np.random.Generator(np.random.Philox(0)).permutation(len(self.real))
        halves = self.real[order[:count]], self.real[order[count : 2 * count]]
        run.score("Fréchet distance, two sets of real digits", self.distance(*halves))
        if labels is not None:
            right = np.mean(self.predict(images) == np.asarray(labels))
            run.score("samples that the judge reads as asked", right, better="higher")
            right = np.mean(self.predict(self.held_out.images) == self.held_out.labels)
            run.score("held-out digits that the judge reads right", right)
