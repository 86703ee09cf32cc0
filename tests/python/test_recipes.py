"""Every recipe runs, learns and hands in what it promises; the frame around them keeps its word."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from vectile import checkpoint, cli, extras, models, nn, optim, random, recipes, viz
from vectile.models import Translator
from vectile.recipes.registry import COURSE, Recipe

for package in ("rich", "matplotlib", "safetensors", "sklearn", "tokenizers", "sacrebleu"):
    pytest.importorskip(package, reason="recipes need vectile[recipes]")

VERSIONS = {"vectile", "numpy", "python", "isa", "threads"}


def run_cli(*arguments):
    return cli.main([str(argument) for argument in arguments])


def of(train, **about) -> Recipe:
    """A recipe around a function, outside the registry."""
    return Recipe("probe", "a probe", train, about.get("needs", ()), ("loss",))


@pytest.fixture(scope="module")
def sentences(tmp_path_factory) -> Path:
    """Pairs for the recipes that translate, so that they need no catalogue."""
    words = "open close read the file user line path not found error while writing".split()
    rng = np.random.default_rng(0)
    lines = {" ".join(rng.choice(words, rng.integers(2, 11))) for _ in range(2500)}
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("".join(f"{line}\t{line.translate(ROTATED)}\n" for line in sorted(lines)))
    return path


ROTATED = str.maketrans("abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm")


@pytest.mark.parametrize("name", recipes.recipes())
def test_a_smoke_run_learns_and_leaves_everything_behind(name, tmp_path, sentences, monkeypatch):
    begun: list[tuple[nn.Parameter, np.ndarray]] = []
    prepare = optim.Optimizer.__init__

    def watched(self, *arguments, **options):
        prepare(self, *arguments, **options)
        begun.extend((p, p.numpy().copy()) for g in self.param_groups for p in g["params"])

    monkeypatch.setattr(optim.Optimizer, "__init__", watched)
    recipe = recipes.find(name)
    given = {"pairs": sentences} if any(o.name == "pairs" for o in recipe.options()) else {}
    report = recipes.run_recipe(recipe, tmp_path, quick=True, **given)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["recipe"] == name and report["quick"] and not report["stopped"]
    assert (
        set(report["versions"]) == VERSIONS and min(report["seconds"], report["cpu_seconds"]) >= 0
    )
    assert report["scores"] and all(np.isfinite(s["value"]) for s in report["scores"])
    for series in recipe.falls:
        ends = report["losses"][series]
        assert ends["last"] < ends["first"], (series, ends)
    # beside a player that stands still the other's loss falls too: every matrix must have moved
    matrices = [(p, before) for p, before in begun if p.ndim > 1]
    assert matrices and all((p.numpy() != before).any() for p, before in matrices)
    pictures = [file for file in report["files"] if file.endswith(".png")]
    assert "loss.png" in pictures and len(pictures) >= 2
    for file in pictures:
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG"), file
    weights = [file for file in report["files"] if file.endswith(".safetensors")]
    assert weights
    for file in weights:
        tensors, settings = checkpoint.load(tmp_path / file)
        assert settings["recipe"] == name
        assert all(np.isfinite(value).all() for value in tensors.values())
        if "network" in settings:  # a judge is the recipe's own
            model = models.load(tmp_path / file)
            found = model.state_dict()
            assert not model.training and found.keys() == tensors.keys()
            assert all(np.array_equal(found[key], tensors[key]) for key in tensors)
            if settings["network"].endswith("Generator"):
                noise = np.random.default_rng(0).standard_normal((8, model.latent)).astype("f4")
                labels = [np.zeros(8, np.int64)] if settings["model"].get("classes") else []
                assert model(noise, *labels).numpy().std(0).max() > 0.01, "all samples are alike"


@pytest.mark.parametrize("name", recipes.recipes())
def test_a_recipe_says_what_it_is_and_what_its_options_do(name, capsys):
    recipe = recipes.find(name)
    assert recipe.summary and "\n" not in recipe.summary
    for option in recipe.options():
        assert option.help, option.name
    with pytest.raises(SystemExit) as leave:
        run_cli("train", "--recipe", name, "--help")
    assert leave.value.code == 0
    words = capsys.readouterr().out
    for option in recipe.options():
        assert f"--{option.name.replace('_', '-')}" in words


def test_a_seed_repeats_a_run(tmp_path):
    def train(run):
        model = nn.Linear(3, 1)
        optimizer = optim.Adam(model.parameters(), lr=0.1)
        for _ in run.steps(5):
            loss = (model(run.generator.standard_normal((4, 3)).astype("f4")) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
        run.checkpoint(model)

    paths = [tmp_path / str(i) for i in range(3)]
    reports = [
        recipes.run_recipe(of(train), path, seed=seed)
        for path, seed in zip(paths, (5, 5, 6), strict=True)
    ]
    states = [checkpoint.load(path / "model.safetensors")[0] for path in paths]
    assert reports[0]["losses"] == reports[1]["losses"] != reports[2]["losses"]
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])


def test_the_data_does_not_depend_on_how_much_the_model_draws(tmp_path):
    seen = []

    def train(run, draws):
        random.generator().random(draws)
        seen.append(run.generator.random(4))

    for draws in (0, 9):
        recipes.run_recipe(of(train), tmp_path, draws=draws)
    assert np.array_equal(*seen)


def test_what_is_logged_now_and_then_is_drawn_point_by_point(tmp_path, monkeypatch):
    drawn = []
    draw = viz.loss_curves

    def curves(lines, points, **options):
        drawn.append((set(lines), set(points)))
        return draw(lines, points, **options)

    def train(run):
        for step in run.steps(40):
            run.log(loss=1 / (step + 1))
            if step % 10 == 9:
                run.log(validation=1.0)

    monkeypatch.setattr(viz, "loss_curves", curves)
    recipes.run_recipe(of(train), tmp_path)
    assert drawn == [({"loss"}, {"validation"})]


def test_teacher_forcing_follows_its_schedule(tmp_path, sentences, monkeypatch):
    shares = []
    forward = models.Seq2Seq.forward

    def watched(self, source, target, teacher_forcing=1.0):
        shares.append((self.training, teacher_forcing))
        return forward(self, source, target, teacher_forcing)

    monkeypatch.setattr(models.Seq2Seq, "forward", watched)
    recipe = recipes.find("translate-rnn")
    report = recipes.run_recipe(recipe, tmp_path, quick=True, pairs=sentences, told=0.2)
    found = [share for training, share in shares if training]
    assert found[0] == 1.0 and np.allclose(found, np.linspace(1, 0.2, 41)[:-1])
    ends = report["losses"]["loss"]
    assert ends["last"] < ends["first"]
    with pytest.raises(ValueError, match="told: expected a share"):
        recipes.run_recipe(recipe, tmp_path, quick=True, pairs=sentences, told=-0.5)


def test_translators_are_drawn_beside_those_that_were_trained_before(
    tmp_path, sentences, monkeypatch, capsys
):
    drawn = []
    draw = viz.bar_chart

    def chart(groups, columns, **options):
        drawn.append({name: list(column) for name, column in columns.items()})
        return draw(groups, columns, **options)

    monkeypatch.setattr(viz, "bar_chart", chart)
    for name in ("translate-attention", "translate-rnn"):
        recipes.run_recipe(recipes.find(name), tmp_path / f"{name}-7", quick=True, pairs=sentences)
    alone, both = drawn
    assert list(alone) == ["translate-attention"]
    assert list(both) == ["translate-rnn", "translate-attention"]
    assert both["translate-attention"] == alone["translate-attention"]
    shown = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["BLEU", "rnn", "attention"] for line in shown)
    # other sentences do not compare
    few = tmp_path / "few.tsv"
    lines = sentences.read_text().splitlines(keepends=True)
    few.write_text("".join(line for line in lines if line.count(" ") > 9))
    recipe = recipes.find("translate-rnn")
    recipes.run_recipe(recipe, tmp_path / "translate-rnn-7", quick=True, pairs=few)
    assert list(drawn[-1]) == ["translate-rnn"]


@pytest.mark.parametrize("name", ["translate-rnn", "translate-transformer"])
def test_a_trained_translator_is_loaded_from_its_checkpoint(name, tmp_path, sentences):
    recipes.run_recipe(recipes.find(name), tmp_path, quick=True, pairs=sentences)
    translator = Translator.load(tmp_path / "model.safetensors")
    texts = ["open the file", "error while reading line", "path"]
    for width in (1, 3):
        found = translator(texts, width, max_length=9, batch=2)
        assert len(found) == 3 and all(isinstance(text, str) for text in found)
        assert found == [translator([text], width, max_length=9)[0] for text in texts]
    recipes.run_recipe(recipes.find("mlp"), tmp_path / "mlp", quick=True)
    with pytest.raises(ValueError, match="expected a translation model with its subwords, got MLP"):
        Translator.load(tmp_path / "mlp" / "model.safetensors")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "a network that a recipe wrote"),
        ({"network": "MLP", "model": []}, "a network that a recipe wrote"),
        ({"network": "system", "model": {}, "beside": {}}, "one of vectile.models or vectile.nn"),
        ({"network": "MLP", "model": {"depth": 3}, "beside": {}}, "unexpected keyword"),
        ({"network": "Linear", "model": {"in_features": 2, "out_features": 2}}, "beside"),
    ],
)
def test_a_checkpoint_that_holds_no_network_says_so(about, message, tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, nn.Linear(2, 2).state_dict(), about)
    with pytest.raises(ValueError, match=rf"model\.safetensors: expected .*{message}"):
        models.load(path)
    with pytest.raises(FileNotFoundError):
        models.load(tmp_path / "none.safetensors")


def test_options_come_from_the_signature(tmp_path):
    def train(
        run,
        *,
        rate: Annotated[float, "a rate"] = 0.5,
        kind: Annotated[Literal["a", "b"], "a kind"] = "a",
        pairs: Annotated[Path | None, "a file"] = None,
    ):
        pass

    found = {o.name: (o.kind, o.default, o.help, o.choices) for o in of(train).options()}
    assert found == {
        "rate": (float, 0.5, "a rate", None),
        "kind": (str, "a", "a kind", ("a", "b")),
        "pairs": (Path, None, "a file", None),
    }


def test_steps_end_with_their_count_their_time_and_ctrl_c(tmp_path):
    counts = {}

    def train(run):
        counts["all"] = len(list(run.steps(7)))
        counts["none"] = len(list(run.steps(0)))
        counts["timed"] = sum(1 for _ in run.steps(10**6, seconds=0.05) if not time.sleep(0.001))
        for step in run.steps(1000):
            run.log(loss=1000 - step)
            if step == 3:
                signal.raise_signal(signal.SIGINT)
        counts["after"] = len(list(run.steps(5)))
        run.score("kept", 1.0)
        run.checkpoint(nn.Linear(2, 2), {"rank": np.int64(3)})

    before = signal.getsignal(signal.SIGINT)
    report = recipes.run_recipe(of(train), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert counts["all"] == 7 and counts["none"] == 0 and 1 <= counts["timed"] <= 60
    assert counts["after"] == 0 and report["stopped"]
    assert report["losses"]["loss"]["logged"] == 4
    assert [score["name"] for score in report["scores"]] == ["kept"]
    assert set(report["files"]) == {"model.safetensors", "loss.png"}
    assert checkpoint.load(tmp_path / "model.safetensors")[1]["model"] == {"rank": 3}


def test_quick_takes_fewer_steps_and_picks_the_small_size(tmp_path):
    def train(run):
        run.score("steps", len(list(run.steps(1000))))
        run.score("size", run.pick(100, 3))

    for quick, expected in ((True, [40.0, 3.0]), (False, [1000.0, 100.0])):
        report = recipes.run_recipe(of(train), tmp_path, quick=quick)
        assert [score["value"] for score in report["scores"]] == expected


def test_outside_the_main_thread_a_recipe_runs_without_ctrl_c(tmp_path):
    reports = []
    thread = threading.Thread(
        target=lambda: reports.append(recipes.run_recipe(of(lambda run: None), tmp_path))
    )
    thread.start()
    thread.join()
    assert reports[0]["recipe"] == "probe"


def test_bad_use_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    with pytest.raises(ValueError, match=r"expected one of .*mlp.*; got 'nope'"):
        recipes.find("nope")
    assert run_cli("train", "--recipe", "nope") == 1
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ValueError, match="again"):
        recipes.recipe("mlp", "twice")(lambda run: None)
    with pytest.raises(ValueError, match="better"):
        recipes.run_recipe(of(lambda run: run.score("x", 1.0, "up")), tmp_path)
    with pytest.raises(extras.MissingExtra, match=r"not_there: pip install 'vectile\[recipes\]'"):
        recipes.run_recipe(of(lambda run: None, needs=("not_there",)), tmp_path)
    for words in (
        ["--recipe"],
        ["--recipe", "mlp", "--widht", "3"],
        ["--recipe=mlp", "--seed=-1"],
        ["--recipe=ddpm", "--fast=0"],
    ):
        with pytest.raises(SystemExit) as leave:
            run_cli("train", *words)
        assert leave.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_what_is_not_installed_is_listed_and_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run_cli("recipes") == 0
    listed = capsys.readouterr().out
    assert "matplotlib" in listed and "not installed: pip install 'vectile[recipes]'" in listed
    assert run_cli("train", "--recipe=translate-rnn", "--quick", "--out", tmp_path) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install 'vectile[recipes]'" in said


def test_without_a_catalogue_one_line_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vectile.data.translation.LOCALE_FOLDERS", (tmp_path,))
    assert run_cli("train", "--recipe=translate-rnn", "--quick", "--out", tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(words in said for words in (str(tmp_path), "*/fr/LC_MESSAGES", "install", "--pairs"))


def test_the_command_line_lists_and_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert run_cli("recipes") == 0
    listed = capsys.readouterr().out
    places = [listed.index(f"\n{name} ") for name in recipes.recipes()]
    assert places == sorted(places) and list(recipes.recipes()) == COURSE
    assert "tokenizers sacrebleu" in listed and "matplotlib" not in listed
    out = tmp_path / "run"
    assert run_cli("train", "--recipe=mlp", "--quick", "--width", 16, "--out", out) == 0
    shown = capsys.readouterr().out
    assert "held-out accuracy" in shown and "model.safetensors" in shown
    report = json.loads((out / "report.json").read_text())
    assert report["options"]["width"] == 16
    monkeypatch.chdir(tmp_path)
    recipes.run_recipe(of(lambda run: None))
    assert os.path.exists("vectile-probe/report.json")
