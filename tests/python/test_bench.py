"""Every family and every op has a benchmark, and every benchmark agrees with float64. No timing."""

import dataclasses
import importlib
import importlib.util
import inspect
import itertools
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


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning"
)
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


def test_a_case_that_fails_on_a_device_loses_no_other(capsys):
    bench, harness = importlib.import_module("bench_cuda"), importlib.import_module("harness")

    def broken():
        yield "first"
        raise RuntimeError("no second")

    def run(name):
        if name == "wrong":
            raise AssertionError("wrong: off by 1")
        return harness.Row("cuda", name, "s", 1.0)

    found = bench.attempts(iter([broken, lambda: iter(["wrong", "last"])]), run)
    assert [next(found).name for _ in range(2)] == ["first", "last"]
    with pytest.raises(AssertionError, match="cuda: 2 cases failed"):
        next(found)
    told = capsys.readouterr().err
    assert "no second" in told and "off by 1" in told


class Clock(float):
    """Seconds that only the measured calls let pass."""

    now = 0.0

    @classmethod
    def call(cls, seconds, result):
        cls.now += seconds
        return result


def options(**settings):
    harness = importlib.import_module("harness")

    class Timed(harness.Options):
        clock = property(lambda self: lambda: Clock.now)

    return Timed(**settings)


def timed(seconds):
    return lambda x: Clock.call(seconds, x)


class Ceiling:
    def of(self, work, traffic):
        self.asked = traffic
        return 10.0, "GF/s"


def test_the_fastest_call_of_a_peer_is_compared_with():
    harness = importlib.import_module("harness")
    case = harness.Case(
        "identity",
        lambda rng: (rng.standard_normal(8, np.float32),),
        timed(0.5),
        lambda x: x,
        {"numpy slow": timed(3.0), "numpy fast": timed(2.0), "other": timed(0.1)},
        tolerance=1e-9,
        work=harness.flop(1e9),
        group="g",
    )
    ceiling = Ceiling()
    row = harness.measure("f", case, options(peer="numpy"), ceiling)
    assert (row.peer, row.ours, row.theirs, row.ratio) == ("numpy fast", 0.5, 2.0, 4.0)
    assert (row.group, row.rate, row.fraction) == ("g", 2.0, 0.2)
    assert ceiling.asked == row.traffic == 32  # the result is the argument, counted once


@pytest.mark.parametrize(("seconds", "samples"), [(0.01, 5 * 7), (3.0, 2 * 3)])
def test_long_calls_are_measured_less_often(seconds, samples):
    harness = importlib.import_module("harness")
    calls = []
    case = harness.Case(
        "c", lambda rng: (np.zeros(2, np.float32),), timed(seconds), lambda x: x, {}, tolerance=1.0
    )

    def counted(x):
        calls.append(0)
        return case.ours(x)

    harness.measure("f", dataclasses.replace(case, ours=counted), options(), Ceiling())
    rounds = 2 if samples == 6 else 5
    assert (
        len(calls) == samples + rounds + 3
    )  # a warm one a round; one checked, one to plan by, one sized


def test_traffic_counts_packed_weights_and_gives_up_on_what_has_no_size():
    harness = importlib.import_module("harness")
    w = np.ones((16, 8), np.float32)
    assert harness.traffic((w, None, "gelu", [w, 3])) == w.nbytes
    packed = ops.pack(w)
    assert harness.traffic((packed, w[:2])) == packed.nbytes + 64
    assert np.isnan(harness.traffic((w, object())))


def rows(count):
    """`count` cases of five families with rates and ratios far apart and close together."""
    harness = importlib.import_module("harness")
    rng = np.random.default_rng(1)
    for i in range(count):
        family = ("gemm", "attention", "conv", "softmax", "norm")[i % 5]
        memory = i % 5 > 2
        amount, ours = 10.0 ** rng.uniform(3, 8), 10.0 ** rng.uniform(-5, -3)
        ratio = float(np.exp(rng.normal(0.2, 0.8)))
        rate = amount / ours / 1e9
        yield harness.Row(
            family, f"a case of shape {i}x{i}x{i}", "s", ours, "torch mm", ours * ratio, ratio, rate,
            "GB/s" if memory else "GF/s", min(1.0, rate / 100), 1e-7, f"group {i % 2}" if i % 5 == 0 else "",
            amount, amount if memory else amount / 10.0 ** rng.uniform(0, 2),
        )  # fmt: skip


def result(count):
    return {
        "date": "2026-01-31",
        "command": "bench/python/run.py " + "family " * 30,
        "config": {"version": "1.0", "cpu": "A processor with a long name " * 3, "isa": "avx2"},
        "peers": {"numpy": "2.0", "torch": "2.1"},
        "options": {"threads": 2},
        "clock": "wall time",
        "ceilings": {
            "fma_gflops": 100.0,
            "int8_gops": 400.0,
            "read_gbs": {str(1 << n): 200.0 / (n - 11) for n in (14, 18, 22, 27)},
            "reads": {},
        },
        "rows": [{k: v for k, v in dataclasses.asdict(r).items() if v == v} for r in rows(count)],
    }


@pytest.mark.parametrize("count", [1, 4, 25, 150])
def test_a_picture_has_every_case_and_its_text_covers_no_other(count):
    pytest.importorskip("matplotlib", reason="pictures need vectile[demo]")
    picture = importlib.import_module("picture")
    text = importlib.import_module("matplotlib.text")
    made = picture.draw(result(count), list(rows(count)))
    made.canvas.draw()
    renderer = made.canvas.get_renderer()
    outside = {
        label
        for axes in made.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    width, height = made.get_size_inches() * made.dpi
    boxes = {}
    for t in made.findobj(text.Text):
        if t.get_visible() and t.get_text().strip() and not t.get_rotation() and t not in outside:
            if isinstance(t, text.Annotation):
                t.update_positions(renderer)
            boxes[t] = text.Text.get_window_extent(t, renderer)
    for t, b in boxes.items():
        assert b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height, t.get_text()
    for (t, a), (u, b) in itertools.combinations(boxes.items(), 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), (t.get_text(), u.get_text())
    written = {t.get_text() for t in boxes}
    assert "Times the peer's speed" in written
    lines = picture.ratio_lines(list(rows(count)))
    assert sum(len(line.rows) for line in lines if not line.heading) == count


def test_the_last_lines_name_the_mean_and_the_worst_of_each_group():
    report = importlib.import_module("report")
    harness = importlib.import_module("harness")
    made = [
        harness.Row("gemm", name, "s", 1.0, "torch", ratio, ratio, error=0.0, group=group)
        for name, ratio, group in (("a", 0.5, "g"), ("b", 2.0, "g"), ("c", 4.0, "h"))
    ]
    assert report.summaries([*made, harness.figure("step", "faults", "MB", 1.0, "torch", 9.0)]) == [
        "gemm: 1.59x, geometric mean of 3; worst 0.50x, a",
        "gemm, g: 1.00x, geometric mean of 2; worst 0.50x, a",
        "gemm, h: 4.00x, geometric mean of 1; worst 4.00x, c",
    ]


def test_a_report_gives_back_its_rows():
    harness = importlib.import_module("harness")
    rows = [
        harness.Row("softmax", "row", "s", 1.0, "numpy", 2.0, 2.0),
        harness.figure("a", "b", "", 3),
    ]
    text = json.dumps(harness.report(rows, harness.Options(), harness.Ceiling(), ""))
    again = [harness.Row(**row) for row in json.loads(text)["rows"]]
    assert repr(again) == repr(rows)  # NaN is not itself


def test_large_products_are_checked_by_rows_and_columns():
    gemm = importlib.import_module("bench_gemm")
    harness = importlib.import_module("harness")
    case = next(c for c in gemm.products("g", "TN 700x600x300", True))
    rng = np.random.default_rng(0)
    harness.check(case, "vectile", case.ours, rng)

    def wrong(a, b, c):
        case.ours(a, b, c)
        c[-1] += 0.01 * np.abs(c).max()
        return c

    with pytest.raises(AssertionError, match="vectile is off"):
        harness.check(case, "vectile", wrong, rng)


def test_the_command_line(tmp_path):
    result = tmp_path / "result.json"
    run = [sys.executable, str(BENCH / "run.py")]
    done = subprocess.run(
        [*run, "softmax", "--quick", "--peer", "numpy", "--case", "128x128", "--json", str(result)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "softmax 128x128" in done.stdout and "ceilings now: FMA" in done.stdout
    assert "softmax: " in done.stdout.splitlines()[-1] and "geometric mean" in done.stdout
    rows = json.loads(result.read_text())["rows"]
    assert rows and all("128x128" in r["name"] for r in rows)
    assert all(r["family"] == "softmax" and r["ours"] > 0 for r in rows)
    picture = tmp_path / "again.svg"
    if importlib.util.find_spec("matplotlib"):
        subprocess.run(
            [*run, "--from", str(result), "--plot", str(picture)], timeout=120, check=True
        )
        assert "Times the peer" in picture.read_text()
    nothing = subprocess.run(
        [*run, "--from", str(picture), "--plot", str(picture)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert nothing.returncode == 2 and "expected what --json writes" in nothing.stderr
    wrong = subprocess.run(
        [*run, "nothing"], capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 2 and "family: expected one of" in wrong.stderr
