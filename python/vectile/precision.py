"""Which precision is the fastest for given Linear layers on this machine: measured, with its error."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import index
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

from vectile import ops
from vectile.autograd import no_grad
from vectile.nn.layers import Linear
from vectile.nn.module import Module
from vectile.runtime import config

Array = NDArray[Any]
Call = Callable[[], Array]
Clock = Callable[[], float]


class Shape(NamedTuple):
    """x (rows, in_features) times a weight (out_features, in_features), transposed."""

    rows: int
    in_features: int
    out_features: int

    def __str__(self) -> str:
        return f"{self.rows} x {self.in_features} -> {self.out_features}"


class Candidate(NamedTuple):
    """`make(x, weight)` prepares both, float32, and returns the call to time."""

    name: str
    make: Callable[[Array, Array], Call]


def _weight(**options: Any) -> Callable[[Array, Array], Call]:
    return lambda x, w: partial(ops.linear, x, ops.quantize_weight(w, **options))


def _stored(dtype: DTypeLike) -> Callable[[Array, Array], Call]:
    return lambda x, w: partial(ops.linear, x.astype(dtype), w.astype(dtype))


def _computed(compute: ops.Compute) -> Callable[[Array, Array], Call]:
    def make(x: Array, w: Array) -> Call:
        if compute not in config()["arithmetic_16"]:
            raise ValueError(f"no {compute} arithmetic here that is faster than float32")
        return partial(ops.linear, x, ops.pack(w, compute=compute))

    return make


BASE = "float32"
CANDIDATES = (
    Candidate(BASE, lambda x, w: partial(ops.linear, x, w)),
    Candidate("float32 packed", lambda x, w: partial(ops.linear, x, ops.pack(w))),
    Candidate("bfloat16", _stored(ml_dtypes.bfloat16)),
    Candidate("float16", _stored(np.float16)),
    Candidate("fp16 arithmetic", _computed("fp16")),
    Candidate("bf16 arithmetic", _computed("bf16")),
    Candidate("float8", _weight(dtype="float8_e4m3fn")),
    Candidate("int8", _weight()),
    Candidate("int4", _weight(bits=4)),
)
"""A precision is a row. One that refuses a shape or is not built is left out, with its reason."""

_CLEAR = 1.03  # nearer to each other than this, two candidates are equally fast
_ROUNDS = 5  # at least
_BURST = 2e-4  # seconds of one sample
_COPIES = 64 << 20  # bytes: a layer that a model has many times is not timed out of a cache


@dataclass(frozen=True)
class Timing:
    """One precision: median seconds, times float32's speed, error relative to float64's result."""

    name: str
    seconds: float
    ratio: float
    error: float


@dataclass(frozen=True)
class Advice:
    """What `advise` measured; `str()` is a table with a verdict.

    `timings` begin with the fastest; `contenders` are the names that the noise does not tell from it.
    `skipped` says why a precision has no timing. `parts` are the layers one by one, where they differ.
    """

    layers: tuple[tuple[Shape, int], ...]
    timings: tuple[Timing, ...]
    contenders: tuple[str, ...]
    skipped: Mapping[str, str]
    machine: str
    parts: tuple[Advice, ...] = ()

    @property
    def fastest(self) -> str | None:
        """Name of the fastest precision; None where there is no clear winner."""
        return self.contenders[0] if len(self.contenders) == 1 else None

    @property
    def times(self) -> dict[str, float]:
        """Seconds of all layers together."""
        return {t.name: t.seconds for t in self.timings}

    @property
    def ratios(self) -> dict[str, float]:
        """Times the speed of float32 as it comes."""
        return {t.name: t.ratio for t in self.timings}

    @property
    def errors(self) -> dict[str, float]:
        """Root mean square of the error over that of the result; of several layers the largest."""
        return {t.name: t.error for t in self.timings}

    @property
    def title(self) -> str:
        what = [f"{n} of " * (n > 1) + str(s) for s, n in self.layers]
        more = f" and {len(what) - 3} more" if len(what) > 3 else ""
        return f"linear {', '.join(what[:3])}{more} on {self.machine}"

    @property
    def verdict(self) -> str:
        """The advice in one line."""
        first = self.timings[0]
        if self.fastest is None:
            names = " and ".join((", ".join(self.contenders[:-1]), self.contenders[-1]))
            return (
                f"no clear winner between {names}: within noise or {_CLEAR - 1:.0%} of each other"
            )
        if len(self.timings) == 1:
            return f"only {first.name} can do this here"
        second = self.timings[1]
        base = "" if BASE in (first.name, second.name) else f", {first.ratio:.2f}x {BASE}"
        return f"{first.name} is the fastest: {second.seconds / first.seconds:.2f}x {second.name}{base}"

    def cells(self) -> list[tuple[str, ...]]:
        """The table's lines as text, below `HEADINGS`."""
        return [
            (t.name, _time(t.seconds), f"{t.ratio:.2f}x", f"{t.error:.1e}") for t in self.timings
        ]

    def __str__(self) -> str:
        lines = [HEADINGS, *self.cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
        form = f"{{:{widths[0]}}}" + "".join(f"  {{:>{w}}}" for w in widths[1:])
        return "\n".join([self.title, *(form.format(*line) for line in lines), *self.notes()])

    def notes(self) -> list[str]:
        """The verdict, that of each part, and what was left out."""
        parts = [f"  {p.layers[0][0]}: {p.verdict}" for p in self.parts]
        left_out = [f"not measured: {name} ({reason})" for name, reason in self.skipped.items()]
        return [self.verdict, *parts, *left_out]


HEADINGS = ("precision", "time", f"times {BASE}", "error")


def advise(
    work: Module | Sequence[int] | Iterable[Sequence[int]],
    *,
    rows: int = 1,
    example: Any = None,
    seconds: float = 1.0,
    candidates: Sequence[Candidate] = CANDIDATES,
    clock: Clock = time.perf_counter,
) -> Advice:
    """Measure which precision is the fastest for Linear layers on this machine, with their threads.

    Every candidate is called in turns on normal data and compared by medians; the time to pack or quantise
    weights is not counted, the time to quantise activations is.

    Args:
        work: (rows, in_features, out_features) of one layer; a list of those, repeated for layers that a
            model has several times; or a Module, whose Linear layers are measured.
        rows: of every layer's input (batch times length), for a Module without `example`.
        example: what the Module is called with once to see its layers' rows; a tuple holds all arguments.
        seconds: to measure, about; at least five rounds are.
        candidates: what to compare; a row `Candidate(name, make)` adds a precision.
        clock: seconds now.

    Raises:
        TypeError: `work` is none of these.
        ValueError: a size below 1, no layer, or no candidate that can do them all.
    """
    shapes = _shapes(work, rows, example)
    if not seconds > 0:
        raise ValueError(f"advise: seconds value: expected > 0, got {seconds}")
    now = config()
    machine = (
        f"{now['cpu'].strip()}, {now['isa']}, {now['threads']} thread{'s'[: now['threads'] > 1]}"
    )
    parts, samples = [], []
    for shape, count in shapes.items():
        found = _measure(shape, count, seconds / len(shapes), candidates, clock)
        samples.append({name: [count * s for s in taken] for name, taken in found.samples.items()})
        one = {name: list(taken) for name, taken in found.samples.items()}
        parts.append(_judge(((shape, count),), one, found.errors, found.skipped, machine))
    if len(parts) == 1 and parts[0].layers[0][1] == 1:
        return parts[0]
    names = [c.name for c in candidates if all(c.name in s for s in samples)]
    total = {n: [sum(t) for t in zip(*(s[n] for s in samples), strict=False)] for n in names}
    errors = {n: max(p.errors[n] for p in parts) for n in names}
    skipped = {k: v for p in parts for k, v in p.skipped.items()}
    whole = tuple(shapes.items())
    return _judge(whole, total, errors, skipped, machine, tuple(parts) if len(parts) > 1 else ())


# ---- what to measure -------------------------------------------------------------------------------


def _shapes(work: Any, rows: int, example: Any) -> Counter[Shape]:
    """How many layers of each shape."""
    if isinstance(work, Module):
        found = _of_model(work, rows, example)
    else:
        listed = list(work) if isinstance(work, Iterable) else [work]
        listed = [listed] if listed and not isinstance(listed[0], Iterable) else listed
        if not all(isinstance(s, Sequence) and len(s) == 3 for s in listed):
            raise TypeError(
                "advise: work: expected (rows, in_features, out_features), a list of them or a Module, "
                f"got {work!r}"
            )
        found = [Shape(*(index(n) for n in s)) for s in listed]
    if not found:
        raise ValueError("advise: work: expected a Linear layer at least, got none")
    for shape in found:
        if min(shape) < 1:
            raise ValueError(f"advise: work sizes: expected at least 1, got {tuple(shape)}")
    return Counter(found)


def _of_model(model: Module, rows: int, example: Any) -> list[Shape]:
    layers = [m for m in model.modules() if isinstance(m, Linear)]
    if example is None:
        return [Shape(rows, m.in_features, m.out_features) for m in layers]
    seen: list[Shape] = []

    def watch(layer: Linear) -> Callable[..., Any]:
        def forward(x: Any, *args: Any, **kwargs: Any) -> Any:
            count = math.prod(np.shape(x)[:-1])
            seen.append(Shape(count, layer.in_features, layer.out_features))
            return type(layer).forward(layer, x, *args, **kwargs)

        return forward

    try:
        for layer in layers:
            layer.__dict__["forward"] = watch(layer)
        with no_grad():
            model(*example) if isinstance(example, tuple) else model(example)
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)
    return seen


# ---- measuring -------------------------------------------------------------------------------------


class _Measured(NamedTuple):
    samples: dict[str, list[float]]  # seconds of one layer, a number each round
    errors: dict[str, float]
    skipped: dict[str, str]


def _measure(
    shape: Shape, count: int, seconds: float, candidates: Sequence[Candidate], clock: Clock
) -> _Measured:
    """Time one layer in every precision, in turns that begin from either end."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((shape.rows, shape.in_features), np.float32)
    w = rng.standard_normal((shape.out_features, shape.in_features), np.float32)
    copies = max(1, min(count, _COPIES // w.nbytes))
    calls: dict[str, list[Call]] = {}
    repeats: dict[str, int] = {}
    errors, skipped = {}, {}
    for name, make in candidates:
        try:
            made = [make(x, w if i == 0 else w.copy()) for i in range(copies)]
            result = made[0]()
        except (TypeError, ValueError, AttributeError) as error:
            skipped[name] = str(error)
            continue
        calls[name], errors[name] = made, _error(x, w, result)
        start = clock()
        _run(made, 1)
        repeats[name] = max(1, min(1000, math.ceil(_BURST / max(clock() - start, 1e-9))))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    begin = clock()
    while calls and (len(samples[order[0]]) < _ROUNDS or clock() - begin < seconds):
        for name in order:
            start = clock()
            _run(calls[name], repeats[name])
            samples[name].append((clock() - start) / (repeats[name] * copies))
        order.reverse()
    return _Measured(samples, errors, skipped)


def _run(calls: list[Call], times: int) -> None:
    for _ in range(times):
        for call in calls:
            call()


def _error(x: Array, w: Array, result: Array) -> float:
    """Root mean square of the error over that of the exact result, in at most 64 x 256 places."""
    rows = np.linspace(0, len(x) - 1, min(len(x), 64)).astype(np.intp)
    columns = np.linspace(0, len(w) - 1, min(len(w), 256)).astype(np.intp)
    exact = x[rows].astype(np.float64) @ w[columns].astype(np.float64).T
    off = result[np.ix_(rows, columns)].astype(np.float64) - exact
    return float(np.sqrt(np.mean(off**2) / np.mean(exact**2)))


# ---- judging ---------------------------------------------------------------------------------------


def _judge(
    layers: tuple[tuple[Shape, int], ...],
    samples: Mapping[str, Sequence[float]],
    errors: Mapping[str, float],
    skipped: Mapping[str, str],
    machine: str,
    parts: tuple[Advice, ...] = (),
) -> Advice:
    if not samples:
        reasons = "; ".join(f"{k}: {v}" for k, v in skipped.items())
        raise ValueError(f"advise: candidates: expected one that can do this, got none ({reasons})")
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    names = sorted(medians, key=medians.__getitem__)
    base = medians.get(BASE, math.nan)
    timings = (Timing(n, medians[n], base / medians[n], errors[n]) for n in names)
    equal = [n for n in names[1:] if not _clearly_faster(samples[names[0]], samples[n])]
    return Advice(layers, tuple(timings), (names[0], *equal), skipped, machine, parts)


def _clearly_faster(first: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `other` takes longer by more than a few percent, and in three rounds of four at all."""
    ratios = sorted(b / a for a, b in zip(first, other, strict=False))
    return statistics.median(ratios) > _CLEAR and ratios[len(ratios) // 4] > 1


def _time(seconds: float) -> str:
    scale, unit = next(
        (s, u) for s, u in ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s")) if seconds < 1e3 * s or u == "s"
    )
    return f"{seconds / scale:.3g} {unit}"
