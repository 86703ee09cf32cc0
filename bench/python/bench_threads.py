"""What a second thread gives: to products, and to a training step beside a busy process.

Wall time. Only meaningful on a machine with two free cores and nothing else running.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from bench_step import GPT, STEPS, Step
from harness import Options, Row, figure, set_threads, torch
from vectile import _core, ops

PRODUCTS = (64, 128, 192, 256, 512, 1024)  # n of n x n x n
DECODED = (1024, 2048, 4096)  # keys of one query, with 12 heads of 64


def median_seconds(step: Step, seconds: float) -> float:
    for _ in range(3):
        step()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextmanager
def busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.3)
        yield
    finally:
        process.kill()
        process.wait()


def beside_busy(make: Callable[[], Step], seconds: float) -> tuple[float, float]:
    """Seconds of a step on one thread alone, and on two beside a busy process."""
    set_threads(1)
    alone = median_seconds(make(), seconds)
    set_threads(2)
    with busy_process():
        return alone, median_seconds(make(), seconds)


def gain(call: Callable[[], float], rounds: int) -> float:
    """Median of one thread's seconds over two threads', measured in turns."""
    ratios = []
    for _ in range(rounds):
        set_threads(1)
        one = call()
        set_threads(2)
        ratios.append(one / call())
    return statistics.median(ratios)


def seconds_of(work: Callable[[], object], calls: int) -> Callable[[], float]:
    def run() -> float:
        work()
        start = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - start) / calls

    return run


def gains(options: Options) -> Iterator[Row]:
    """The bare FMA loop's gain is what the machine has to give, in the same run."""
    rounds = 5 if options.quick else 15
    name = "gain of a second thread, {}"
    yield figure("threads", name.format("FMA loop"), "", gain(lambda: 1 / _core.fma_rate(), rounds))
    rng = np.random.default_rng(0)
    for n in PRODUCTS[:4] if options.quick else PRODUCTS:
        a, b, out = (rng.random((n, n), np.float32) for _ in range(3))
        calls = max(1, 2**27 // n**3)
        mine = gain(seconds_of(lambda a=a, b=b, out=out: ops.matmul(a, b, out=out), calls), rounds)
        other = float("nan")
        if torch is not None:
            x, y, z = (torch.from_numpy(v) for v in (a, b, out))
            other = gain(seconds_of(lambda x=x, y=y, z=z: torch.mm(x, y, out=z), calls), rounds)
        peer = "torch" if torch is not None else ""
        yield figure("threads", name.format(f"matmul {n}x{n}x{n}"), "", mine, peer, other)
    for n in DECODED[:1] if options.quick else DECODED:
        query = rng.random((1, 12, 1, 64), np.float32)
        keys, values = rng.random((2, 1, 12, n, 64), np.float32)
        given = query, keys, values, np.zeros((1, 1), np.int64), np.full(1, n)
        mine = gain(seconds_of(lambda x=given: ops.decode_attention(*x), 2**14 // n), rounds)
        yield figure("threads", name.format(f"decode H12 L1/{n} D64"), "", mine)


def figures(options: Options) -> Iterator[Row]:
    try:
        yield from gains(options)
    finally:
        set_threads(options.threads)
    training = STEPS[GPT]
    batch = training.inputs(np.random.default_rng(0))
    seconds = 1.0 if options.quick else 4.0
    try:
        mine = beside_busy(lambda: training.ours(*batch), seconds)
        other = beside_busy(lambda: training.theirs(*batch), seconds) if torch is not None else None
    finally:
        set_threads(options.threads)
    peer = "torch" if other else ""
    rows = (
        ("GPT step, 1 thread alone", "s", lambda t: t[0]),
        ("GPT step, 2 threads beside a busy process", "s", lambda t: t[1]),
        ("the second over the first", "", lambda t: t[1] / t[0]),
    )
    for name, unit, of in rows:
        yield figure("threads", name, unit, of(mine), peer, of(other) if other else float("nan"))
