"""Text, training, and checkpoints that survive crashes and continue bit for bit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vectile import checkpoint, data, random
from vectile.models import GPT, GPTConfig
from vectile.train import TrainConfig, Trainer, evaluate, load_model, model_from

pytest.importorskip("safetensors", reason="checkpoints are safetensors files")

TEXT = np.frombuffer(b"the quick brown fox jumps over the lazy dog. " * 60, np.uint8)
MODEL = GPTConfig(context=16, n_layers=1, n_heads=2, d_model=16, dropout=0.1)
CONFIG = TrainConfig(steps=12, batch=4, warmup=3, eval_batches=2)


def trainer(config=CONFIG, model=MODEL):
    random.manual_seed(config.seed)
    return Trainer(GPT(model), config, *data.split(TEXT))


def test_split_batches_and_validation():
    train, validation = data.split(TEXT, 0.2)
    assert len(validation) == len(TEXT) // 5
    assert np.array_equal(np.concatenate([train, validation]), TEXT)
    x, y = data.batch(train, 5, 16, seed=1, step=2)
    assert x.shape == y.shape == (5, 16) and np.array_equal(x[:, 1:], y[:, :-1])
    assert np.array_equal(x, data.batch(train, 5, 16, seed=1, step=2)[0])
    assert not np.array_equal(x, data.batch(train, 5, 16, seed=1, step=3)[0])
    assert not np.array_equal(x, data.batch(train, 5, 16, seed=2, step=2)[0])
    shortest = data.batch(TEXT[:17], 3, 16, 0, 0)
    assert np.array_equal(shortest[0], np.repeat(TEXT[None, :16], 3, 0))
    batches = data.validation_batches(validation, 4, 16, 3)
    assert [x.shape for x, _ in batches] == [(4, 16)] * 3
    assert sum(len(x) for x, _ in data.validation_batches(TEXT[:40], 4, 16, 3)) == 2
    with pytest.raises(ValueError, match="expected more than the context of 16 bytes, got 16"):
        data.batch(TEXT[:16], 3, 16, 0, 0)
    with pytest.raises(ValueError, match=r"validation: expected a fraction in \(0, 1\), got 1"):
        data.split(TEXT, 1)


def test_reading_files(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"\xff\x00")
    files = [tmp_path / "a", tmp_path / "b"]
    assert data.read_bytes(files).tobytes() == b"abc\xff\x00"
    assert data.read_bytes(files, limit=4).tobytes() == b"abc\xff"
    with pytest.raises(FileNotFoundError):
        data.read_bytes([tmp_path / "c"])
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="at least one byte"):
        data.read_bytes([tmp_path / "empty"])


def test_stdlib_corpus_is_sorted_source_without_tests_or_packages():
    files = data.stdlib_files()
    assert files == sorted(files) and len(files) > 100
    parts = {part for file in files for part in file.parts[-3:-1]}
    assert not parts & {"test", "tests", "site-packages", "dist-packages"}
    assert len(data.stdlib_corpus(100_000)) == 100_000
    assert data.stdlib_corpus(5000).tobytes().startswith(files[0].read_bytes()[:50])


def test_training_learns_the_text():
    run = trainer(TrainConfig(steps=60, batch=8, lr=1e-2, warmup=5))
    before = run.validate()
    while not run.finished:
        run.step()
    assert run.validate() < 0.75 * before
    assert [step for step, _ in run.history.validation] == [0, 60]
    assert len(run.history.train) == 60 and run.model.training


def test_progress_places_the_learning_rate():
    run = trainer(TrainConfig(steps=10, lr=1.0, warmup=0, final_ratio=0.1, batch=2))
    for progress, expected in ((0.0, 1.0), (0.5, 0.55), (1.0, 0.1), (7.0, 0.1)):
        run.step(progress)
        assert [g["lr"] for g in run.optimizer.param_groups] == pytest.approx([expected] * 2)


@pytest.mark.parametrize("stop", [0, 1, 7])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path, stop):
    whole = trainer()
    while not whole.finished:
        whole.step()
    part = trainer()
    for _ in range(stop):
        part.step()
    part.validate()
    part.save(tmp_path / "run.safetensors")
    random.manual_seed(12345)
    resumed = Trainer.resume(tmp_path / "run.safetensors", *data.split(TEXT))
    assert resumed.step_count == stop and resumed.history.validation == part.history.validation
    while not resumed.finished:
        resumed.step()
    assert resumed.history.train == whole.history.train
    for key, value in whole.model.state_dict().items():
        assert np.array_equal(value, resumed.model.state_dict()[key]), key


def test_resuming_on_another_text_is_refused(tmp_path):
    run = trainer()
    run.save(tmp_path / "run")
    other = TEXT.copy()
    other[0] += 1
    with pytest.raises(ValueError, match="expected the text it was trained on"):
        Trainer.resume(tmp_path / "run", *data.split(other))
    longer = Trainer.resume(tmp_path / "run", *data.split(TEXT), steps=99)
    assert longer.config.steps == 99


def test_evaluating_puts_every_part_back_into_its_own_mode():
    run = trainer()
    run.model.blocks[0].eval()
    modes = [m.training for m in run.model.modules()]
    assert evaluate(run.model, run.validation) == evaluate(run.model, run.validation)
    assert [m.training for m in run.model.modules()] == modes
    too_long = np.zeros((1, 99), int)
    with pytest.raises(ValueError, match="ids length"):
        evaluate(run.model, [(too_long, too_long)])
    assert [m.training for m in run.model.modules()] == modes


def test_a_saved_model_loads_for_use(tmp_path):
    run = trainer()
    run.step()
    run.save(tmp_path / "run", {"corpus": "test"})
    model = load_model(tmp_path / "run")
    assert not model.training and model.head.weight is model.tokens.weight
    assert evaluate(model, run.validation) == run.validate()
    assert checkpoint.load(tmp_path / "run")[1]["source"] == {"corpus": "test"}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    checkpoint.save(path, {"x": np.arange(3)}, {"a": 1})

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"x": np.zeros(9)}, {})
    monkeypatch.undo()
    tensors, settings = checkpoint.load(path)
    assert tensors["x"].tolist() == [0, 1, 2] and settings == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_round_trip_of_dtypes_and_layouts(tmp_path):
    tensors = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "i": np.array([-1, 127], np.int8),
        "e": np.zeros((0, 4)),
        "n": np.array(7),
    }
    checkpoint.save(tmp_path / "f", tensors, {"text": "ü"})
    loaded, settings = checkpoint.load(tmp_path / "f")
    assert settings == {"text": "ü"}
    for key, value in tensors.items():
        assert loaded[key].shape == value.shape and loaded[key].dtype == value.dtype
        assert np.array_equal(loaded[key], value)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        checkpoint.load(tmp_path)
    for content in (b"", b"hello world, this is no checkpoint", b"\xff" * 100):
        Path(tmp_path / "junk").write_bytes(content)
        with pytest.raises(ValueError, match="junk: expected a safetensors checkpoint"):
            checkpoint.load(tmp_path / "junk")
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="foreign: expected a checkpoint written by vectile"):
        checkpoint.load(tmp_path / "foreign")
    with pytest.raises(ValueError, match="expected a GPT checkpoint, got 'cnn'"):
        model_from({}, {"kind": "cnn"})


@pytest.mark.parametrize(
    "options, message",
    [({"steps": 0}, "steps: expected >= 1, got 0"), ({"lr": -1.0}, "lr"), ({"clip": 0.0}, "clip")],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)
