"""Every family and every op has a benchmark, and every benchmark agrees with float64. No timing."""

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vectile import ops

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench" / "python"
FAMILIES = sorted(p.stem for p in (ROOT / "csrc" / "kernels").glob("*.inc"))
CEILINGS = "machine"  # measures the denominators, has nothing to be compared with
MODULES = sorted(p.stem for p in BENCH.glob("bench_*.py"))
OPS = sorted(n for n, f in vars(ops).items() if n[0] != "_" and inspect.isroutine(f))

sys.path.insert(0, str(BENCH))


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != CEILINGS])
def test_every_family_has_a_benchmark(family):
    assert f"bench_{family}" in MODULES


def test_every_op_has_a_benchmark():
    text = "".join(p.read_text() for p in BENCH.glob("bench_*.py"))
    measured = set(re.findall(r"\bops\.(\w+)|\"(\w+)\"", text))
    names = {n for pair in measured for n in pair}
    assert [n for n in OPS if n not in names] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MODULES)
def test_both_sides_agree_with_float64(name):
    harness = importlib.import_module("harness")
    rng = np.random.default_rng(0)
    module = importlib.import_module(name)
    assert hasattr(module, "cases") or hasattr(module, "figures")
    for case in getattr(module, "cases", lambda quick: ())(True):
        harness.check(case, "vectile", case.ours, rng)
        for peer, function in case.peers.items():
            if not harness.is_of("torch", peer) or harness.torch is not None:
                harness.check(case, peer, function, rng)


def test_the_work_of_a_step_is_that_of_its_layers():
    step = importlib.import_module("bench_step")
    cnn = next(t for name, t in step.STEPS.items() if name.startswith("CNN"))
    first, second, last = 784 * 9 * 32, 196 * 9 * 32 * 64, 3136 * 10  # products an image
    assert cnn.flops() == 64 * (4 * first + 6 * second + 6 * last)  # the images need no gradient


@pytest.mark.parametrize("wrong", [1e-3, np.nan])
def test_a_wrong_result_is_not_timed(wrong):
    harness = importlib.import_module("harness")
    case = harness.Case(
        "wrong",
        lambda rng: (rng.standard_normal(8, np.float32),),
        lambda x: x + np.float32(wrong),
        lambda x: x,
        {},
        tolerance=1e-4,
    )
    with pytest.raises(AssertionError, match=r"wrong: vectile is off by .*, over 1.00e-04"):
        harness.check(case, "vectile", case.ours, np.random.default_rng(0))


def test_the_command_line(tmp_path):
    result = tmp_path / "result.json"
    run = [sys.executable, str(BENCH / "run.py")]
    done = subprocess.run(
        [*run, "softmax", "--quick", "--peer", "numpy", "--json", str(result)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "softmax 128x128" in done.stdout and "ceilings now: FMA" in done.stdout
    rows = json.loads(result.read_text())["rows"]
    assert all(r["family"] == "softmax" and r["ours"] > 0 for r in rows)
    wrong = subprocess.run(
        [*run, "nothing"], capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 2 and "family: expected one of" in wrong.stderr
