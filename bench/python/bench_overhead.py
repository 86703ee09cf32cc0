"""What a call costs before any work is done, and what importing costs."""

from __future__ import annotations

import operator
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import vectile
from bench_softmax import exact as softmax
from harness import Case, Options, Row, figure, torch
from vectile import ops
from vectile.autograd import tensor

Array = np.ndarray


def normal(*shapes: tuple[int, ...]):
    return lambda rng: tuple(rng.standard_normal(s, np.float32) for s in shapes)


def tensors(*arrays: Array):
    return tuple(tensor(a, requires_grad=True) for a in arrays)


def torch_tensors(*arrays: Array):
    return tuple(torch.from_numpy(a).requires_grad_() for a in arrays)


def add_and_backward(a, b):
    (a + b).sum().backward()
    return a, b


def cases(quick: bool) -> Iterator[Case]:
    yield Case(
        "ops.softmax 4x4",
        normal((4, 4)),
        ops.softmax,
        softmax,
        {"torch": lambda x: torch.softmax(x, -1), "numpy": softmax},
        tolerance=1e-5,
    )
    yield Case(
        "ops.add 4x4",
        normal((4, 4), (4, 4)),
        ops.add,
        np.add,
        {"torch": torch.add if torch else np.add, "numpy": np.add},
        tolerance=1e-6,
    )
    yield Case(
        "ops.matmul 4x4",
        normal((4, 4), (4, 4)),
        ops.matmul,
        np.matmul,
        {"torch": torch.matmul if torch else np.matmul, "numpy": np.matmul},
        tolerance=1e-5,
    )
    yield Case(
        "Tensor + Tensor 4x4, with grad",
        normal((4, 4), (4, 4)),
        operator.add,
        np.add,
        {"torch": operator.add},
        tolerance=1e-6,
        prepare={"vectile": tensors, "torch": torch_tensors},
        summary=lambda y: y.detach().numpy(),
    )
    yield Case(
        "add and backward 4x4",
        normal((4, 4), (4, 4)),
        add_and_backward,
        lambda a, b: [np.ones_like(a), np.ones_like(b)],
        {"torch": add_and_backward},
        tolerance=0,
        prepare={"vectile": tensors, "torch": torch_tensors},
        summary=lambda leaves: [leaf.grad for leaf in leaves],
    )


# Resident memory is read from /proc: the peak that getrusage knows is inherited from the parent.
IMPORT = """
import os, time
start = time.process_time()
{line}
seconds = time.process_time() - start
pages = int(open("/proc/self/statm").read().split()[1]) if os.path.exists("/proc/self/statm") else 0
print(seconds, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
"""


def imported(line: str, runs: int) -> tuple[float, float]:
    """Median CPU seconds and megabytes of a fresh interpreter that runs `line`."""
    package = str(Path(vectile.__file__).parents[1])
    found = [
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"import sys; sys.path.insert(0, {package!r})" + IMPORT.format(line=line),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(runs)
    ]
    seconds, megabytes = zip(*((float(a), float(b)) for a, b in found), strict=True)
    return statistics.median(seconds), statistics.median(megabytes)


def figures(options: Options) -> Iterator[Row]:
    runs = 3 if options.quick else 11
    lines = ["import numpy", "import vectile"] + (["import torch"] if torch else [])
    costs = {line.split()[1]: imported(line, runs) for line in lines}
    base = imported("pass", runs)
    for i, (name, unit) in enumerate((("import, CPU time", "s"), ("memory after import", "MB"))):
        for peer in [n for n in costs if n != "vectile"]:
            yield figure("overhead", name, unit, costs["vectile"][i], peer, costs[peer][i])
    yield figure("overhead", "memory of a bare interpreter", "MB", base[1])
