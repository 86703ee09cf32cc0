"""A classifier of digits that judges the samples of generative recipes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vectile import checkpoint, data, metrics, models, no_grad, optim
from vectile.nn import functional as F
from vectile.recipes.run import Run

_HIDDEN = (128, 32)

Features = NDArray[np.float32]


class Judge:
    """Reads digits of `size` x `size` pixels in [0, 1]; its last hidden layer is a space to measure in.

    Trained on the training digits alone, also after Ctrl-C, since the scores need it; or read from
    judge.safetensors in the run's folder where an earlier run left it. No seed changes it: the judge is the
    same in every recipe.
    """

    def __init__(self, run: Run, size: int = 8) -> None:
        self.training, self.held_out = training, _ = data.digits(size)
        self.model = models.MLP(size * size, _HIDDEN, 10)
        path, steps = run.out / "judge.safetensors", run.pick(3000, 40)
        settings = {"kind": "judge", "size": size, "steps": steps, "hidden": list(_HIDDEN)}
        if path.exists():
            tensors, found = checkpoint.load(path)
            if found == settings:
                self.model.load_state_dict(tensors)
                return
        # drawn here, so that every recipe has the same judge
        generator = np.random.Generator(np.random.Philox(size))
        for parameter in self.model.parameters():
            bound = 1 / np.sqrt(parameter.shape[-1])
            parameter.data[...] = generator.uniform(-bound, bound, parameter.shape)
        optimizer = optim.AdamW(self.model.parameters(), lr=2e-3, weight_decay=0.05)
        schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, steps // 20, steps)
        rows = data.shuffled(len(training.labels), 64, generator)
        for _ in run.steps(steps, label="judge", always=True):
            batch = next(rows)
            images = data.warped(training.images[batch], generator, shift=size / 16)
            loss = F.cross_entropy(self.model(images), training.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        checkpoint.save(path, self.model.state_dict(), settings)

    def features(self, images: ArrayLike) -> Features:
        """The last hidden layer, (n, 32)."""
        with no_grad():
            out: Features = self.model.features(np.asarray(images, np.float32)).numpy()
        return out

    def predict(self, images: ArrayLike) -> NDArray[np.int64]:
        """The digit that each image shows, as the judge sees it."""
        with no_grad():
            logits = self.model(np.asarray(images, np.float32)).numpy()
        out: NDArray[np.int64] = logits.argmax(1)
        return out

    def distance(self, images: ArrayLike) -> float:
        """Fréchet distance to held-out digits in the space of `features`, between sets of half as many (179).

        The mean over twenty draws of both sets, the same for all figures, so that these compare.
        """
        features, held_out = self.features(images), self.features(self.held_out.images)
        count = len(held_out) // 2
        if len(features) < count:
            raise ValueError(f"distance: images: expected at least {count}, got {len(features)}")
        draws = np.random.Generator(np.random.Philox(0))
        found = []
        for half, _ in self._halves(held_out):
            rows = draws.permutation(len(features))[:count]
            found.append(metrics.frechet_distance(features[rows], half))
        return float(np.mean(found))

    def reference(self) -> NDArray[np.float64]:
        """Twenty distances between two halves of the held-out digits: what perfect samples would reach."""
        halves = self._halves(self.features(self.held_out.images))
        return np.array([metrics.frechet_distance(a, b) for a, b in halves])

    def _halves(self, features: Features) -> Iterator[tuple[Features, Features]]:
        generator, count = np.random.Generator(np.random.Philox(1)), len(features) // 2
        for _ in range(20):
            order = generator.permutation(len(features))
            yield features[order[:count]], features[order[count : 2 * count]]

    def score(self, run: Run, samples: ArrayLike, labels: ArrayLike | None = None) -> None:
        """Hand in the samples' distance to held-out digits, and beside it that of real digits.

        Other held-out digits show what is possible, training digits what learning them by heart would give.
        With `labels`, what the samples were asked to be, also how often the judge agrees.
        """
        distance = self.distance(samples)
        run.score("Fréchet distance, samples to held-out digits", distance, better="lower")
        distance = self.distance(self.training.images)
        run.score("Fréchet distance, training to held-out digits", distance)
        halves = self.reference()
        run.score("Fréchet distance, two halves of the held-out digits", halves.mean())
        run.score("its standard deviation over twenty draws", halves.std())
        if labels is not None:
            right = np.mean(self.predict(samples) == np.asarray(labels))
            run.score("samples that the judge reads as asked", right, better="higher")
            right = np.mean(self.predict(self.held_out.images) == self.held_out.labels)
            run.score("held-out digits that the judge reads right", right)
