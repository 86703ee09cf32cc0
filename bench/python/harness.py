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
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np

import vectile
from vectile import _core, machine, ops
from vectile.kernel_table import SETTLE
from vectile.runtime import is_floating

try:
    import torch
except ImportError:
    torch = None

Function = Callable[..., Any]


@dataclass(frozen=True)
class Work:
    """What one call does at least: ``amount`` of ``unit``.

    The units are "flop", "int8 op", and "byte", whose ceiling is reading, or "copied byte".
    """

    unit: str
    amount: float


def flop(amount: float) -> Work:
    return Work("flop", amount)


def int8_op(amount: float) -> Work:
    return Work("int8 op", amount)


def byte(*arrays: Any) -> Work:
    """Bytes of the given arrays, or byte counts: every input once and every output once."""
    return Work("byte", sum(a if isinstance(a, int) else a.nbytes for a in arrays))


def copied(*arrays: Any) -> Work:
    """The same for a call that writes about as much as it reads: its ceiling is copying."""
    return Work("copied byte", byte(*arrays).amount)


def _everything(result: Any) -> Any:
    return result


@dataclass(frozen=True)
class Case:
    """One call to compare. Every side is called with the same fresh inputs.

    ``inputs(rng)`` makes the arrays; ``prepare[side]`` turns them into that side's arguments outside
    the timed part (torch: tensors on the same memory, unless it says otherwise). ``exact`` gets the
    inputs in float64 and returns what every side must reach within ``tolerance`` times the largest
    magnitude; with tolerance 0 the inputs keep their dtypes and the results must be equal. Where a
    side is random or its result large, ``summary`` reduces it to what can be compared.

    A peer with several calls for the work has several names that begin with its own ("torch mm",
    "torch mv"); all are checked and timed, and the fastest is the one compared with. ``group`` names
    the part of the family that has a mean of its own.
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
    group: str = ""


@dataclass(frozen=True)
class Options:
    """How to measure."""

    threads: int = 1
    peer: str | None = None
    quick: bool = False
    case: str = ""  # only the cases whose name contains this

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
    def budget(self) -> float:
        """Seconds for one case, as far as two rounds of three samples allow."""
        return 2.0 if self.quick else 20.0

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
    group: str = ""  # within the family
    amount: float = math.nan  # operations, or bytes where the rate is in GB/s
    traffic: float = math.nan  # bytes read and written at least


def working_set(traffic: float) -> int:
    """What to read or copy beside a call: its bytes to a quarter of their power of two (25 MB and
    16 may be in different caches), from 16 KiB to 256 MiB."""
    if math.isnan(traffic):
        return 1 << 14
    size = min(1 << 28, max(1 << 14, int(traffic)))
    step = 1 << (size.bit_length() - 3)
    return round(size / step) * step


class Ceiling:
    """This run's measured maxima: a roofline, with the bandwidth of reading the call's working set,
    or of copying it by the faster of plain and streaming stores.

    It is measured again at every use and the best is kept, since a neighbour may take its share.
    """

    def __init__(self) -> None:
        self.base = machine.ceilings()
        self.reads: dict[int, float] = {}
        self.copies: dict[int, float] = {}

    def bandwidth(self, size: int) -> float:
        now = _core.read_rate(size) / 1e9
        self.reads[size] = max(now, self.reads.get(size, 0.0))
        return self.reads[size]

    def copy_bandwidth(self, size: int) -> float:
        now = max(_core.copy_rate(size, stream) for stream in (False, True)) / 1e9
        self.copies[size] = max(now, self.copies.get(size, 0.0))
        return self.copies[size]

    def of(self, work: Work, traffic: float) -> tuple[float, str]:
        """The most that the work can reach in 10⁹ of its unit a second, and that rate's name.

        ``traffic`` are the bytes that it reads and writes at least; nan: not known.
        """
        size = working_set(traffic)
        if work.unit == "byte":
            return self.bandwidth(size), "GB/s"
        if work.unit == "copied byte":
            return self.copy_bandwidth(size), "GB/s"
        top, name = {
            "flop": (self.base.fma_gflops, "GF/s"),
            "int8 op": (self.base.int8_gops, "GOP/s"),
        }[work.unit]
        intensity = work.amount / traffic if traffic else math.inf
        if intensity * min(self.base.read_gbs.values()) < top:
            top = min(top, intensity * self.bandwidth(size))
        return top, name

    def __str__(self) -> str:
        c = self.base
        reads = ", ".join(f"{n >> 10:,} KiB {rate:.0f}" for n, rate in c.read_gbs.items())
        return (
            f"ceilings now: FMA {c.fma_gflops:.0f} GF/s, int8 {c.int8_gops:.0f} GOP/s, read (GB/s) "
            f"{reads}; a call that writes beside reading may pass 100% of the read ceiling in a cache"
        )


def bfloat16(case: Case) -> Case:
    """The same case on bfloat16 operands, for which torch is the only peer."""
    return replace(
        case,
        name=f"{case.name} bfloat16",
        inputs=lambda rng: _in_bfloat16(case.inputs(rng)),
        peers={name: f for name, f in case.peers.items() if name == "torch"},
        tolerance=max(case.tolerance, 2.0**-7),
        work=case.work and replace(case.work, amount=case.work.amount / 2),
    )


def _in_bfloat16(a: Any) -> Any:
    if isinstance(a, (tuple, list)):
        return type(a)(_in_bfloat16(v) for v in a)
    return ops.cast(a, "bfloat16") if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a


def _flatten(value: Any) -> list[np.ndarray]:
    if isinstance(value, (tuple, list)):
        return [a for v in value for a in _flatten(v)]
    if value is None:
        return []
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
    return [np.asarray(value)]


def _in_float64(a: Any) -> Any:
    if isinstance(a, (tuple, list)):
        return type(a)(_in_float64(v) for v in a)
    return a.astype(np.float64) if isinstance(a, np.ndarray) and is_floating(a.dtype) else a


def _copy(a: Any) -> Any:
    if isinstance(a, (tuple, list)):
        return type(a)(_copy(v) for v in a)
    return a.copy(order="K") if isinstance(a, np.ndarray) else a  # transposed stays transposed


def _tensors(a: Any) -> Any:
    if isinstance(a, (tuple, list)):
        return type(a)(_tensors(v) for v in a)
    if isinstance(a, np.ndarray) and a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a) if isinstance(a, np.ndarray) else a


def is_of(peer: str, name: str) -> bool:
    """Whether the name of a call is that of the peer."""
    return name == peer or name.startswith(peer + " ")


def _arguments(case: Case, side: str, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    if side in case.prepare:
        prepared = case.prepare[side](*inputs)
        return prepared if isinstance(prepared, tuple) else (prepared,)
    return _tensors(inputs) if is_of("torch", side) else inputs


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


def _calls(function: Function, arguments: tuple[Any, ...], options: Options) -> tuple[int, float]:
    """How many calls fill a sample, and the seconds of one."""
    calls = 1
    while True:
        seconds = _sample(function, arguments, calls, options.clock)
        if seconds * calls >= options.seconds / 2 or calls >= 1 << 20:
            return max(1, math.ceil(options.seconds / max(seconds, 1e-9))), seconds
        calls *= 4


def traffic(value: Any, counted: set[int] | None = None) -> float:
    """Bytes of all arrays and packed weights in a value, each once; nan beside what has no size."""
    counted = set() if counted is None else counted
    if isinstance(value, (tuple, list)):
        return sum(traffic(v, counted) for v in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return 0
    if isinstance(value, vectile.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        address = value.__array_interface__["data"][0]
        if address in counted:
            return 0
        counted.add(address)
    return getattr(value, "nbytes", math.nan)


def choose_peers(available: Mapping[str, Any], wanted: str | None) -> list[str]:
    """The calls of the wanted peer, else of torch where installed, else of NumPy, else the first."""
    names = [n for n in available if torch is not None or not is_of("torch", n)]
    preference = [p for p in (wanted, "torch", "numpy", *names) if p]
    return next((c for p in preference if (c := [n for n in names if is_of(p, n)])), [])


def _plan(once: float, options: Options) -> tuple[int, int]:
    """Rounds, and samples in each, when every side's sample together take ``once`` seconds."""
    if once * options.rounds * (options.samples + 1) <= options.budget:
        return options.rounds, options.samples
    return 2, 3


def measure(family: str, case: Case, options: Options, ceiling: Ceiling) -> Row:
    """Check every side, then time them in turns on fresh inputs."""
    sides = {"vectile": case.ours} | {
        name: case.peers[name] for name in choose_peers(case.peers, options.peer)
    }
    rng = np.random.default_rng(0)
    errors = {name: check(case, name, f, rng) for name, f in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    calls: dict[str, int] = {}
    rounds, samples = options.rounds, options.samples
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        done, least = 0, math.nan
        while done < rounds:
            inputs = case.inputs(rng)
            arguments = {name: _arguments(case, name, _copy(inputs)) for name in sides}
            once = 0.0
            for name, f in sides.items():
                f(*arguments[name])
                if name not in calls:
                    calls[name], one = _calls(f, arguments[name], options)
                    once += calls[name] * one
            if done == 0:
                rounds, samples = _plan(once, options)
                result = case.ours(*arguments["vectile"])
                least = traffic((*arguments["vectile"], result))
                del result
            for _ in range(samples):
                for name, f in sides.items():
                    if options.threads > 1:
                        time.sleep(SETTLE)
                        f(*arguments[name])
                    seconds[name].append(_sample(f, arguments[name], calls[name], options.clock))
            done += 1
            gc.collect()
    finally:
        if was_enabled:
            gc.enable()
    ours = statistics.median(seconds["vectile"])
    row: dict[str, Any] = {"ours": ours, "error": errors["vectile"], "group": case.group}
    if theirs := {name: statistics.median(v) for name, v in seconds.items() if name != "vectile"}:
        peer = min(theirs, key=theirs.__getitem__)
        pairs = zip(seconds[peer], seconds["vectile"], strict=True)
        row |= {
            "peer": peer,
            "theirs": theirs[peer],
            "ratio": statistics.median(b / a for b, a in pairs),
        }
    if case.work:
        if case.work.unit in ("byte", "copied byte"):
            least = case.work.amount
        top, unit = ceiling.of(case.work, least)
        rate = case.work.amount / ours / 1e9
        row |= {"rate": rate, "rate_unit": unit, "fraction": rate / top, "traffic": least}
        row["amount"] = case.work.amount
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
        if options.case in case.name:
            yield measure(family, case, options, ceiling)
    if not options.case:
        yield from getattr(module, "figures", lambda options: ())(options)


def report(rows: Sequence[Row], options: Options, ceiling: Ceiling, command: str) -> dict[str, Any]:
    """Everything a reader needs to judge the rows, ready for JSON."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": command,
        "config": vectile.config(),
        "peers": {"numpy": np.__version__} | ({"torch": torch.__version__} if torch else {}),
        "options": asdict(options),
        "clock": "thread CPU time" if options.threads == 1 else "wall time",
        "ceilings": ceiling.base._asdict() | {"reads": ceiling.reads},
        "rows": [
            {k: v for k, v in asdict(r).items() if v == v}  # NaN is not JSON
            for r in rows
        ],
    }


def use_isa(name: str) -> None:
    """Force a tier; ValueError lists the supported ones."""
    _core.set_isa(name)
