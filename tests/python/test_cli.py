"""The command line as a user meets it: results, resumed runs, one-line errors, help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from vectile import checkpoint, cli, extras
from vectile.cli import common
from vectile.train import Trainer, load_model

for package in ("rich", "matplotlib", "safetensors"):
    pytest.importorskip(package, reason="the commands need vectile[demo]")

TINY = ["--d-model", "16", "--layers", "1", "--heads", "2", "--context", "16", "--batch", "4"]
COMMANDS = ("demo", "train", "generate", "quantize", "advise", "bench", "info")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"pack my box with five dozen liquor jugs. " * 100)
    return path


@pytest.fixture
def trained(tmp_path, text, capsys):
    out = tmp_path / "model.safetensors"
    assert run("train", "--data", text, "--steps", 6, "--eval-every", 3, "--out", out, *TINY) == 0
    output = capsys.readouterr().out
    assert "step      6" in output and "validation" in output and f"saved {out}" in output
    return out


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def fails(capsys, *arguments):
    """Run a command that must fail with one line on stderr; return it."""
    try:
        status = run(*arguments)
    except SystemExit as leave:
        status = leave.code
    error = capsys.readouterr().err
    assert status != 0
    assert error.count("\n") == 1 and "Traceback" not in error, error
    return error


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_train_writes_model_and_curve(trained):
    assert is_png(trained.with_suffix(".png"))
    tensors, settings = checkpoint.load(trained)
    assert settings["step"] == 6 and len(tensors["history.train"]) == 6
    assert tensors["history.validation"][:, 0].tolist() == [3.0, 6.0]


def test_resumed_training_is_the_same_run(tmp_path, text, trained):
    part = tmp_path / "part.safetensors"
    options = ["--data", text, "--eval-every", 3, *TINY]
    # the schedule belongs to the run's end: the first part must know it too
    assert run("train", *options, "--steps", 6, "--save-every", 2, "--out", part) == 0
    whole = checkpoint.load(trained)[0]
    for key, value in checkpoint.load(part)[0].items():
        assert np.array_equal(value, whole[key]), key
    assert run("train", "--resume", part, "--steps", 9) == 0
    tensors, settings = checkpoint.load(part)
    assert settings["step"] == 9 and len(tensors["history.train"]) == 9


@pytest.fixture
def sigint():
    """Ctrl-C as Python starts with it: a background job of a shell starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_saves_and_the_resumed_run_ends_as_the_uninterrupted(
    tmp_path, text, capsys, monkeypatch, sigint
):
    out, whole = tmp_path / "a.safetensors", tmp_path / "whole.safetensors"
    options = ["--data", text, "--steps", 20, "--eval-every", 15, "--save-every", 5, *TINY]
    step = Trainer.step

    def stopping(trainer):
        if trainer.step_count == 7:
            signal.raise_signal(signal.SIGINT)
        return step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopping)
        assert run("train", *options, "--out", out) == 0
    output = capsys.readouterr().out
    assert "stopped at step 8" in output and "--resume" in output
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert checkpoint.load(out)[1]["step"] == 8
    assert run("train", "--resume", out) == 0
    assert run("train", *options, "--out", whole) == 0
    expected = checkpoint.load(whole)[0]
    for key, value in checkpoint.load(out)[0].items():
        assert np.array_equal(value, expected[key]), key


def test_a_second_ctrl_c_ends_the_command(tmp_path, text, capsys, monkeypatch, sigint):
    def impatient(trainer):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", impatient)
    out = tmp_path / "a.safetensors"
    assert run("train", "--data", text, "--out", out, *TINY) == 130
    assert capsys.readouterr().err == "vectile: interrupted\n" and not out.exists()


def test_generate_repeats_with_a_seed(trained, capsys):
    outputs = []
    for _ in range(2):
        assert run("generate", trained, "--prompt", "pack", "--tokens", 20, "--seed", 3) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and outputs[0].startswith("pack")
    assert run("generate", trained, "--tokens", 5, "--greedy", "--top-k", 3, "--top-p", 0.9) == 0


def test_attention_of_a_model(tmp_path, text, capsys):
    out = tmp_path / "model.safetensors"
    options = ["--data", text, "--steps", 2, "--out", out, *TINY]
    attention = ["--positions", "rotary", "--kv-heads", 1, "--window", 4]
    assert run("train", *options, *attention) == 0
    config = load_model(out).config
    assert (config.positions, config.n_kv_heads, config.window) == ("rotary", 1, 4)
    assert run("generate", out, "--tokens", 5, "--seed", 0, "--cache-dtype", "int8") == 0
    capsys.readouterr()
    assert "got 'sine'" in fails(capsys, "train", *options, "--positions", "sine")
    assert "'int7'" in fails(capsys, "generate", out, "--cache-dtype", "int7")


def test_quantize_then_generate(trained, capsys):
    assert run("quantize", trained) == 0
    out = trained.with_name("model-int8.safetensors")
    assert "x smaller" in capsys.readouterr().out
    assert run("generate", out, "--tokens", 5, "--seed", 0) == 0
    capsys.readouterr()
    assert "got a quantized one" in fails(capsys, "quantize", out)
    assert run("quantize", trained, "--bits", 4, "--group-size", 32) == 0
    assert "layers in INT4" in capsys.readouterr().out
    smaller = trained.with_name("model-int4.safetensors")
    assert smaller.stat().st_size < out.stat().st_size
    assert run("generate", smaller, "--tokens", 5, "--seed", 0) == 0
    capsys.readouterr()
    assert "expected --bits 4" in fails(capsys, "quantize", trained, "--group-size", 32)
    assert "got a model without one" in fails(capsys, "train", "--resume", out)


def test_info(capsys):
    assert run("info", "--json") == 0
    assert json.loads(capsys.readouterr().out)["isa"]
    assert run("info") == 0
    assert "isa" in capsys.readouterr().out


def test_bench_table(tmp_path, capfd):
    out, picture = tmp_path / "table.json", tmp_path / "table.png"
    command = ["bench", "--table", "--quick", "--threads", "1", "--json", out, "--plot", picture]
    assert run(*command) == 0
    assert "softmax" in capfd.readouterr().out
    report = json.loads(out.read_text())
    assert report["config"]["threads"] == 1
    assert {row["name"] for row in report["kernels"]} >= {
        "matmul",
        "causal attention",
        "INT8 linear",
    }
    assert all(row["seconds"] > 0 and row["fraction"] > 0 for row in report["kernels"])
    assert is_png(picture)


def test_demo(tmp_path, capsys):
    out = tmp_path / "demo"
    assert run("demo", "--seconds", 6, "--out", out) == 0
    output = capsys.readouterr().out
    for heading in ("Kernels beside NumPy", "Training a GPT", "It writes", "float32 and INT8"):
        assert heading in output
    assert all(is_png(out / f"{name}.png") for name in ("kernels", "loss", "attention"))
    report = json.loads((out / "report.json").read_text())
    figures = report["int8"]
    assert figures["INT8"]["megabytes"] < figures["float32"]["megabytes"] / 3
    loss = figures["float32"]["validation_loss"]
    assert loss == pytest.approx(report["training"]["validation_loss"])
    assert abs(figures["INT8"]["validation_loss"] / loss - 1) < 0.01
    assert run("generate", out / "model-int8.safetensors", "--tokens", 5) == 0


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as leave:
        run(*([command] if command else []), "--help")
    assert leave.value.code == 0
    output = capsys.readouterr().out
    assert "examples:" in output and f"vectile {command}".strip() in output.split("examples:")[1]


def test_wrong_use_is_one_line(tmp_path, text, trained, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    junk = tmp_path / "junk"
    junk.write_bytes(b"x" * 50)
    short = tmp_path / "short"
    short.write_bytes(b"abc")
    cases = {
        (): "required",
        ("fly",): "invalid choice",
        ("train", "--steps", "none"): "--steps",
        ("train", "--steps", "0"): "expected an integer >= 1, got 0",
        ("train", "--data", "missing.txt"): "missing.txt: No such file or directory",
        ("train", "--data", str(text), "--corpus", "stdlib"): "not allowed with",
        ("train", "--data", str(text), "--heads", "3"): "d_model: expected a multiple of n_heads",
        ("train", "--data", str(text), "--out", "no/folder/x"): "No such folder",
        ("train", "--data", str(text), "--out", "."): "Is a directory",
        ("train", "--data", str(text), "--out", "m.png"): "--out: expected a name without .png",
        ("train", "--data", str(short)): "expected more than the context",
        ("train", "--data", str(text), "--dropout", "2"): "dropout: expected in [0, 1), got 2.0",
        ("train", "--resume", "missing"): "missing: No such file",
        ("train", "--resume", str(junk)): "expected a safetensors checkpoint",
        ("train", "--resume", str(trained), "--lr", "1"): "expected no --lr",
        ("train", "--resume", str(trained), "--data", str(junk), str(text)): "expected the text",
        ("generate", "missing"): "missing: No such file",
        ("generate", str(junk)): "expected a safetensors checkpoint",
        ("generate", str(trained), "--temperature", "0"): "temperature: expected > 0, got 0.0",
        ("generate", str(trained), "--top-p", "2"): "top_p: expected in (0, 1], got 2.0",
        ("quantize", str(junk)): "expected a safetensors checkpoint",
        ("bench", "--isa", "mmx"): "--isa: expected one of scalar",
        ("bench", "--table", "softmax"): "need a source checkout",
        ("bench", "--table", "--from", str(junk)): "need a source checkout",
        ("demo", "--quick", "--seconds", "3"): "not allowed with",
        ("demo", "--out", str(junk)): "File exists",
        ("info", "--yaml"): "unrecognized arguments: --yaml",
    }
    for arguments, message in cases.items():
        assert message in fails(capsys, *arguments), arguments


JUNK = (None, -1, "x", [1, 2], {"a": 1})


def runs_or_says_why(capsys, *arguments):
    """Run a command that may fail, though with one line only."""
    status = run(*arguments)
    error = capsys.readouterr().err
    assert status == 0 or (error.count("\n") == 1 and str(arguments[-1]) in error), error
    return status


@pytest.fixture
def no_training(monkeypatch):
    """What follows the loading is quick."""
    monkeypatch.setattr(cli.train, "_loop", lambda *_: False)
    monkeypatch.setattr(cli.train, "draw", lambda *_: None)
    monkeypatch.setattr(common.data, "stdlib_corpus", lambda *_: np.zeros(100, np.uint8))
    monkeypatch.setattr(os, "fsync", lambda _: None)


def test_a_checkpoint_with_other_settings_is_one_line(tmp_path, trained, capsys, no_training):
    tensors, settings = checkpoint.load(trained)
    path, out = tmp_path / "other.safetensors", tmp_path / "out.safetensors"
    failures = 0
    changes = [(settings, key) for key in settings]
    changes += [(settings[part], key) for part in ("model", "train") for key in settings[part]]
    for owner, key in changes:
        known = owner.pop(key)
        for value in (..., *JUNK):
            if value is not ...:
                owner[key] = value
            checkpoint.save(path, tensors, settings)
            failures += runs_or_says_why(capsys, "generate", "--tokens", 1, path)
            failures += runs_or_says_why(capsys, "train", "--out", out, "--resume", path)
        owner[key] = known
    assert failures > 150


def test_a_checkpoint_with_other_tensors_is_one_line(tmp_path, trained, capsys, no_training):
    tensors, settings = checkpoint.load(trained)
    path, out = tmp_path / "other.safetensors", tmp_path / "out.safetensors"
    for key in tensors:
        for value in (None, np.zeros((2, 1), np.float32)):
            changed = {k: v for k, v in tensors.items() if k != key}
            checkpoint.save(path, changed if value is None else {**changed, key: value}, settings)
            assert runs_or_says_why(capsys, "train", "--out", out, "--resume", path) or (
                key.startswith("history") and value is not None
            )
            if key.startswith("model."):
                assert runs_or_says_why(capsys, "quantize", "--out", out, path) == 1
    small = {**settings, "model": {**settings["model"], "vocab_size": 8}}
    rows = {k: v[:8] if len(v) == 256 else v for k, v in tensors.items()}
    checkpoint.save(path, rows, small)
    assert "expected a model of bytes, got 8 tokens" in fails(capsys, "generate", path)
    assert "expected bytes below vocab_size 8" in fails(capsys, "train", "--resume", path)


@pytest.mark.parametrize("command", [["-m", "vectile", "info"], ["-m", "vectile.info"]])
def test_an_unknown_tier_is_one_line(command):
    environment = {**os.environ, "VECTILE_ISA": "mmx"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True)
    assert done.returncode != 0 and done.stderr.count(b"\n") == 1, done.stderr
    assert b"VECTILE_ISA: value: expected one of scalar" in done.stderr


@pytest.mark.parametrize(
    "package, arguments",
    [("rich", ("demo",)), ("matplotlib", ("demo",)), ("safetensors", ("train",))],
)
def test_a_missing_extra_says_how_to_get_it(package, arguments, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    importing = extras.importlib.import_module

    def without(name):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return importing(name)

    monkeypatch.setattr(extras.importlib, "import_module", without)
    error = fails(capsys, *arguments)
    assert package in error and "pip install 'vectile[demo]'" in error


def test_second_ctrl_c_interrupts_at_once(sigint):
    with common.interruptible() as pressed:
        assert not pressed()
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_bytes_that_are_no_text_are_shown():
    assert common.show_bytes(b"a\xffb") in ("a\ufffdb", "a?b")
