"""The judge of generated digits: it learns from training digits alone, and its figures compare."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from vectile import data, recipes
from vectile.recipes.judge import Judge
from vectile.recipes.registry import Recipe

for package in ("rich", "matplotlib", "safetensors", "sklearn"):
    pytest.importorskip(package, reason="recipes need vectile[recipes]")

SAMPLES, TRAINING, HALVES = (
    f"Fréchet distance, {name}"
    for name in (
        "samples to held-out digits",
        "training to held-out digits",
        "two halves of the held-out digits",
    )
)


def run(train, path, quick=True):
    """The scores of a recipe around `train`, by name."""
    report = recipes.run_recipe(Recipe("probe", "a probe", train, (), ()), path, quick=quick)
    return {score["name"]: score["value"] for score in report["scores"]}


def test_the_judge_never_sees_a_held_out_digit(tmp_path, monkeypatch):
    training, held_out = data.digits()
    hidden = held_out._replace(images=np.full_like(held_out.images, np.nan))
    monkeypatch.setattr(data, "digits", lambda size: (training, hidden))

    def train(run):
        judge = Judge(run)
        assert all(np.isfinite(value).all() for value in judge.model.state_dict().values())

    run(train, tmp_path)


def test_real_digits_lie_nearer_than_what_is_none(tmp_path):
    training, held_out = data.digits()
    noise = np.random.default_rng(0).random((200, 1, 8, 8))
    shuffled = np.roll(held_out.labels, 1)
    cases = {"noise": noise, "training": training.images, "held out": held_out.images}
    found = {
        name: run(lambda run, i=images: Judge(run).score(run, i), tmp_path)
        for name, images in cases.items()
    }
    references = [(scores[TRAINING], scores[HALVES]) for scores in found.values()]
    assert references[0] == references[1] == references[2]
    training_distance, halves = references[0]
    assert found["training"][SAMPLES] == training_distance
    assert 0.2 < training_distance / halves < 5  # sets of equal size from one distribution
    assert 0 < found["held out"][SAMPLES] < halves  # which share digits, as halves do not
    assert found["noise"][SAMPLES] > 5 * halves
    asked = run(lambda run: Judge(run).score(run, held_out.images, shuffled), tmp_path)
    right = asked["held-out digits that the judge reads right"]
    assert right > asked["samples that the judge reads as asked"]
    with pytest.raises(ValueError, match="distance: images: expected at least 179, got 178"):
        run(lambda run: Judge(run).score(run, noise[:178]), tmp_path)


def test_after_ctrl_c_the_judge_is_trained_all_the_same(tmp_path):
    def train(run, stop):
        for _ in run.steps(5):
            if stop:
                signal.raise_signal(signal.SIGINT)
        Judge(run).score(run, data.digits()[0].images)

    scores = [
        run(lambda run, stop=stop: train(run, stop), tmp_path / str(stop)) for stop in (False, True)
    ]
    assert scores[0] == scores[1]
