"""Advice on precision: what is measured, how it is judged, what is said. The clock is the test's own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vectile import nn, quant
from vectile.cli import main
from vectile.models import GPT, GPTConfig
from vectile.precision import BASE, CANDIDATES, Candidate


class Clock:
    """Stands still but for what a call costs; `noise` is the cost of successive samples, in turns."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def candidate(self, name, cost, off=0.0, noise=(1.0,)):
        def make(x, w):
            turn = iter(())

            def call():
                nonlocal turn
                factor = next(turn, None)
                if factor is None:
                    turn = iter(noise)
                    factor = next(turn)
                self.calls.append((name, x.shape, w.shape))
                self.now += factor * (cost(x, w) if callable(cost) else cost)
                return x @ w.T * np.float32(1 + off)

            return call

        return Candidate(name, make)


def advise(work, *candidates, clock, **options):
    made = [clock.candidate(*c) for c in candidates]
    return quant.advise(work, candidates=made, clock=clock, **options)


def test_the_fastest_is_named_with_its_ratio_and_error():
    clock = Clock()
    advice = advise((4, 32, 16), (BASE, 0.02), ("int8", 0.01, 0.01), ("slow", 0.05), clock=clock)
    assert advice.fastest == "int8" and advice.contenders == ("int8",)
    assert list(advice.times) == ["int8", BASE, "slow"]
    assert advice.ratios == pytest.approx({"int8": 2.0, BASE: 1.0, "slow": 0.4})
    assert advice.errors["int8"] == pytest.approx(0.01, rel=1e-3) and advice.errors[BASE] < 1e-6
    assert "int8 is the fastest: 2.00x float32" in str(advice)
    assert "4 x 32 -> 16" in str(advice) and "1.0e-02" in str(advice)
    assert set(clock.calls) == {(n, (4, 32), (16, 32)) for n in (BASE, "int8", "slow")}


@pytest.mark.parametrize("seconds", [1.0, 0.2])
def test_the_budget_is_kept(seconds):
    clock = Clock()
    advise((2, 8, 8), (BASE, 0.004), ("int8", 0.006), clock=clock, seconds=seconds)
    assert seconds <= clock.now <= seconds + 4 * 0.01  # preparing, and the last round


def test_long_calls_still_get_five_rounds():
    clock = Clock()
    advice = advise((2, 8, 8), (BASE, 1.0), ("int8", 2.0), clock=clock, seconds=0.1)
    assert len(clock.calls) == 2 * (2 + 5) and advice.fastest == BASE


@pytest.mark.parametrize(
    ("cost", "noise"),
    [
        (0.0102, (1.0,)),  # 2%
        (0.0110, (0.8, 1.1, 0.85, 1.2)),  # 10% in the middle, often ahead
    ],
)
def test_noise_decides_nothing(cost, noise):
    clock = Clock()
    advice = advise((2, 8, 8), (BASE, 0.01), ("int8", cost, 0.0, noise), ("slow", 1.0), clock=clock)
    assert advice.fastest is None and set(advice.contenders) == {BASE, "int8"}
    assert "no clear winner between" in str(advice)


def test_a_list_is_judged_as_a_whole_and_by_its_parts():
    clock = Clock()

    def wide(x, w):
        return 0.01 if len(w) == 16 else 0.03

    advice = advise([(1, 8, 16), (1, 8, 16), (1, 8, 4)], (BASE, 0.02), ("int8", wide), clock=clock)
    assert advice.times == pytest.approx({BASE: 3 * 0.02, "int8": 2 * 0.01 + 0.03})
    assert [p.fastest for p in advice.parts] == ["int8", BASE]
    assert dict(advice.layers) == {(1, 8, 16): 2, (1, 8, 4): 1}
    assert "1 x 8 -> 4: float32 is the fastest" in str(advice)


def test_a_model_is_measured_by_its_linear_layers():
    clock, model = Clock(), nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    one = advise(model, (BASE, 0.01), clock=clock, rows=5)
    assert dict(one.layers) == {(5, 8, 4): 1, (5, 4, 2): 1}
    seen = advise(model, (BASE, 0.01), clock=clock, example=np.zeros((3, 7, 8), np.float32))
    assert dict(seen.layers) == {(21, 8, 4): 1, (21, 4, 2): 1}
    assert "forward" not in vars(model[0])
    gpt = GPT(GPTConfig(vocab_size=64, context=16, n_layers=2, n_heads=2, d_model=32))
    whole = advise(gpt, (BASE, 0.01), clock=clock, example=np.zeros((2, 5), int))
    assert dict(whole.layers)[10, 32, 128] == 2 and "only float32 can do this" in whole.verdict


def test_a_precision_that_cannot_is_left_out_with_its_reason():
    clock = Clock()

    def refuse(x, w):
        raise ValueError("int4: group: expected 32")

    made = [clock.candidate(BASE, 0.01), Candidate("int4", refuse)]
    advice = quant.advise((1, 8, 8), candidates=made, clock=clock)
    assert advice.skipped == {"int4": "int4: group: expected 32"} and "int4" not in advice.times
    assert "not measured: int4 (int4: group: expected 32)" in str(advice)
    with pytest.raises(ValueError, match=r"candidates: expected one that can do this.*int4: group"):
        quant.advise((1, 8, 8), candidates=made[1:], clock=clock)


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        ("model", TypeError, "expected .rows, in_features, out_features"),
        (3, TypeError, "expected .rows, in_features, out_features"),
        ((1, 2), TypeError, "got .1, 2."),
        ([], ValueError, "expected a Linear layer at least, got none"),
        (nn.ReLU(), ValueError, "expected a Linear layer at least, got none"),
        ((0, 8, 8), ValueError, "sizes: expected at least 1, got .0, 8, 8."),
    ],
)
def test_wrong_work_is_refused(work, error, message):
    with pytest.raises(error, match=f"advise: work.*{message}"):
        quant.advise(work)


def test_every_candidate_is_near_float64(isa):
    advice = quant.advise((3, 128, 40), seconds=1e-3)
    known = {c.name for c in CANDIDATES}
    assert set(advice.times) | set(advice.skipped) == known
    assert {BASE, "float32 packed", "int8"} <= set(advice.times)
    bounds = {"int4": 0.2, "float8": 1 / 16, "int8": 0.02, "bfloat16": 0.01, "float16": 0.002}
    bounds |= {"bf16 arithmetic": 0.01, "fp16 arithmetic": 0.002}
    assert all(e < bounds.get(n, 1e-5) for n, e in advice.errors.items())


def test_the_command(tmp_path, capsys):
    out = tmp_path / "advice.json"
    command = ["advise", "2x64x32", "1x32x8", "--seconds", "0.01", "--threads", "1"]
    assert main([*command, "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "linear 2 x 64 -> 32" in shown and "float32 packed" in shown
    figures = json.loads(out.read_text())
    assert len(figures["parts"]) == 2 and figures["timings"][0]["seconds"] > 0
    assert main(["advise", "2x64"]) == 1
    assert "2x64" in capsys.readouterr().err
