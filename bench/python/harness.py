"""Measure vectile beside its peers: checked first, interleaved, medians, with this run's ceilings.

A benchmark file defines ``cases(quick)``, an iterable of :class:`Case`, and where a comparison is
not a function call ``figures(options)``, an iterable of :class:`Row`.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

import vectile
from vectile import _core, machine
from vectile.kernel_table import SETTLE

try:
    import torch
except ImportError:
    torch = None

Function = Callable[..., Any]


@dataclass(frozen=True)
class Work:
    """What one call does at least: ``amount`` of ``unit`` ("flop", "int8 op" or "byte")."""

    unit: str
    amount: float


def flop(amount: float) -> Work:
    return Work("flop", amount)


def int8_op(amount: float) -> Work:
    return Work("int8 op", amount)


def byte(*arrays: Any) -> Work:
    """Bytes of the given arrays, or byte counts: every input once and every output once."""
    return Work("byte", sum(a if isinstance(a, int) else a.nbytes for a in arrays))


def _everything(result: Any) -> Any:
    return result


@dataclass(frozen=True)
class Case:
    """One call to compare. Every side is called with the same fresh inputs.

    ``inputs(rng)`` makes the arrays; ``prepare[side]`` turns them into that side's arguments outside
    the timed part (torch: tensors on the same memory, unless it says otherwise). ``exact`` gets the
    inputs in float64 and returns what every side must reach within ``tolerance`` times the largest
    magnitude; with tolerance 0 the inputs keep their dtypes and the results must be equal. Where a
    side is random, ``summary`` reduces its result to what can be compared.
    """

    name: str
    inputs: Callable[[np.random.Generator], tuple[Any, ...]]
    ours: Function
    exact: Function
    peers: Mapping[str, Function]
    tolerance: float
    work: Work | None = None
    prepare: Mapping[str, Function] = field(default_factory=dict)
    summary: Function = _everything


@dataclass(frozen=True)
class Options:
    """How to measure."""

    threads: int = 1
    peer: str | None = None
    quick: bool = False

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 5

    @property
    def samples(self) -> int:
        return 3 if self.quick else 7

    @property
    def seconds(self) -> float:
        """Length of one sample: many calls where one is shorter."""
        return 0.001 if self.quick else 0.004

    @property
    def clock(self) -> Callable[[], float]:
        """One thread is timed by its own CPU time, which a busy neighbour does not change."""
        return time.thread_time if self.threads == 1 else time.perf_counter


@dataclass(frozen=True)
class Row:
    """One line of the report; ``ratio`` above 1 means that vectile is the better one."""

    family: str
    name: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float = math.nan
    ratio: float = math.nan
    rate: float = math.nan  # GFLOP/s, GOP/s or GB/s
    rate_unit: str = ""
    fraction: float = math.nan  # of the ceiling measured in this run
    error: float = math.nan  # of ours against float64, relative to the largest magnitude


class Ceiling:
    """This run's measured maxima; bandwidth is that of reading a working set of the call's size.

    It is measured again at every use and the best is kept, since a neighbour may take its share.
    """

    def __init__(self) -> None:
        self.base = machine.ceilings()
        self.reads: dict[int, float] = {}

    def bandwidth(self, log2_bytes: int) -> float:
        now = _core.read_rate(1 << log2_bytes) / 1e9
        self.reads[log2_bytes] = max(now, self.reads.get(log2_bytes, 0.0))
        return self.reads[log2_bytes]

    def of(self, work: Work) -> tuple[float, str]:
        if work.unit == "flop":
            return self.base.fma_gflops, "GF/s"
        if work.unit == "int8 op":
            return self.base.int8_gops, "GOP/s"
        return self.bandwidth(min(28, max(14, int(math.log2(work.amount))))), "GB/s"

    def __str__(self) -> str:
        c = self.base
        reads = ", ".join(f"{n >> 10:,} KiB {rate:.0f}" for n, rate in c.read_gbs.items())
        return (
            f"ceilings now: FMA {c.fma_gflops:.0f} GF/s, int8 {c.int8_gops:.0f} GOP/s, read (GB/s) "
            f"{reads}; a call that writes beside reading may pass 100% of the read ceiling in a cache"
        )


def _flatten(value: Any) -> list[np.ndarray]:
    if isinstance(value, (tuple, list)):
        return [a for v in value for a in _flatten(v)]
    if value is None:
        return []
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach()
    return [np.asarray(value)]


def _in_float64(a: Any) -> Any:
    if isinstance(a, (tuple, list)):
        return type(a)(_in_float64(v) for v in a)
    return a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a


def _copy(a: Any) -> Any:
    if isinstance(a, (tuple, list)):
        return type(a)(_copy(v) for v in a)
    return a.copy() if isinstance(a, np.ndarray) else a


def _tensors(a: Any) -> Any:
    if isinstance(a, (tuple, list)):
        return type(a)(_tensors(v) for v in a)
    return torch.from_numpy(a) if isinstance(a, np.ndarray) else a


def _arguments(case: Case, side: str, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    if side in case.prepare:
        prepared = case.prepare[side](*inputs)
        return prepared if isinstance(prepared, tuple) else (prepared,)
    return _tensors(inputs) if side == "torch" else inputs


def _error(case: Case, side: str, got: Any, exact: Any) -> float:
    """Largest error of all results relative to their largest magnitude; raises above the bound."""
    worst = 0.0
    results, expected = _flatten(case.summary(got)), _flatten(exact)
    if len(results) != len(expected):
        raise AssertionError(f"{case.name}: {side} returns {len(results)} arrays")
    for a, b in zip(results, expected, strict=True):
        if a.shape != b.shape:
            raise AssertionError(f"{case.name}: {side} has shape {a.shape}, expected {b.shape}")
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0)
        error = float(difference / (np.abs(b).max(initial=0) or 1))
        if not error <= case.tolerance:  # nan, too
            raise AssertionError(
                f"{case.name}: {side} is off by {error:.2e}, over {case.tolerance:.2e}"
            )
        worst = max(worst, error)
    return worst


def check(case: Case, side: str, function: Function, rng: np.random.Generator) -> float:
    """Compare one side with float64 on fresh inputs; returns its error."""
    inputs = case.inputs(rng)
    exact = case.exact(*(_copy(inputs) if case.tolerance == 0 else _in_float64(inputs)))
    return _error(case, side, function(*_arguments(case, side, _copy(inputs))), exact)


def _sample(function: Function, arguments: tuple[Any, ...], calls: int, clock: Any) -> float:
    start = clock()
    for _ in range(calls):
        function(*arguments)
    return (clock() - start) / calls


def _calls(function: Function, arguments: tuple[Any, ...], options: Options) -> int:
    """How many calls fill a sample."""
    calls = 1
    while True:
        seconds = _sample(function, arguments, calls, options.clock)
        if seconds * calls >= options.seconds / 2 or calls >= 1 << 20:
            return max(1, math.ceil(options.seconds / max(seconds, 1e-9)))
        calls *= 4


def choose_peer(available: Mapping[str, Any], wanted: str | None) -> str | None:
    """The wanted peer, else torch where installed, else NumPy; None when the case has none."""
    names = [n for n in available if n != "torch" or torch is not None]
    preference = [wanted, "torch", "numpy", *names]
    return next((n for n in preference if n in names), None)


def measure(family: str, case: Case, options: Options, ceiling: Ceiling) -> Row:
    """Check both sides, then time them in turns on fresh inputs."""
    peer = choose_peer(case.peers, options.peer)
    sides = {"vectile": case.ours} | ({peer: case.peers[peer]} if peer else {})
    rng = np.random.default_rng(0)
    errors = {name: check(case, name, f, rng) for name, f in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    calls: dict[str, int] = {}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(options.rounds):
            inputs = case.inputs(rng)
            arguments = {name: _arguments(case, name, _copy(inputs)) for name in sides}
            for name, f in sides.items():
                f(*arguments[name])
                calls[name] = calls.get(name) or _calls(f, arguments[name], options)
            for _ in range(options.samples):
                for name, f in sides.items():
                    if options.threads > 1:
                        time.sleep(SETTLE)
                        f(*arguments[name])
                    seconds[name].append(_sample(f, arguments[name], calls[name], options.clock))
            gc.collect()
    finally:
        if was_enabled:
            gc.enable()
    ours = statistics.median(seconds["vectile"])
    row: dict[str, Any] = {"ours": ours, "error": errors["vectile"]}
    if peer:
        pairs = zip(seconds[peer], seconds["vectile"], strict=True)
        row |= {
            "peer": peer,
            "theirs": statistics.median(seconds[peer]),
            "ratio": statistics.median(b / a for b, a in pairs),
        }
    if case.work:
        top, unit = ceiling.of(case.work)
        rate = case.work.amount / ours / 1e9
        row |= {"rate": rate, "rate_unit": unit, "fraction": rate / top}
    return Row(family, case.name, "s", **row)


def figure(
    family: str, name: str, unit: str, ours: float, peer: str = "", theirs: float = math.nan
) -> Row:
    """A row measured elsewhere: less is better, and a number without a unit has no ratio."""
    return Row(family, name, unit, ours, peer, theirs, theirs / ours if unit and ours else math.nan)


def geometric_mean(ratios: Sequence[float]) -> float:
    known = [math.log(r) for r in ratios if math.isfinite(r) and r > 0]
    return math.exp(sum(known) / len(known)) if known else math.nan


def set_threads(threads: int) -> None:
    """Give every side the same number of threads (NumPy's is set by run.py before its import)."""
    vectile.set_num_threads(threads)
    if torch is not None:
        torch.set_num_threads(threads)


def run_module(
    family: str, module: ModuleType, options: Options, ceiling: Ceiling
) -> Iterator[Row]:
    """All rows of one benchmark file."""
    for case in getattr(module, "cases", lambda quick: ())(options.quick):
        yield measure(family, case, options, ceiling)
    yield from getattr(module, "figures", lambda options: ())(options)


def report(rows: Sequence[Row], options: Options, ceiling: Ceiling) -> dict[str, Any]:
    """Everything a reader needs to judge the rows, ready for JSON."""
    return {
        "config": vectile.config(),
        "peers": {"numpy": np.__version__} | ({"torch": torch.__version__} if torch else {}),
        "options": asdict(options),
        "clock": "thread CPU time" if options.threads == 1 else "wall time",
        "ceilings": ceiling.base._asdict(),
        "rows": [
            {k: v for k, v in asdict(r).items() if v == v and v != ""}  # NaN is not JSON
            for r in rows
        ],
    }


def use_isa(name: str) -> None:
    """Force a tier; ValueError lists the supported ones."""
    _core.set_isa(name)
