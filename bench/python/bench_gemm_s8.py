"""INT8 products, exact in int32; requantised; and linear on a quantised weight."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from harness import Case, int8_op, torch
from vectile import ops

try:
    import onnx
    import onnxruntime
except ImportError:
    onnxruntime = None

Array = np.ndarray


def integers(*shapes: tuple[int, ...], dtypes: tuple[type, ...] = (np.int8, np.int8)) -> Any:
    return lambda rng: tuple(
        rng.integers(np.iinfo(t).min, np.iinfo(t).max + 1, s, t)
        for s, t in zip(shapes, dtypes, strict=True)
    )


def normal(*shapes: tuple[int, ...]) -> Any:
    return lambda rng: tuple(rng.standard_normal(s, np.float32) for s in shapes)


def exact(a: Array, b: Array) -> Array:
    """float64 holds these sums exactly, and its product is fast."""
    return np.rint(a.astype(np.float64) @ b.astype(np.float64)).astype(np.int32)


def qlinear(a: Array, b: Array) -> Array:
    return ops.qlinear_matmul(
        a,
        np.float32(0.02),
        np.uint8(120),
        b,
        np.float32(0.01),
        np.int8(0),
        np.float32(0.5),
        np.uint8(128),
    )


def qlinear_exact(a: Array, b: Array) -> Array:
    y = np.rint(exact(a.astype(np.int32) - 120, b) * (0.02 * 0.01 / 0.5)) + 128
    return y.clip(0, 255).astype(np.uint8)


def in_torch(x: Array, w: Array) -> tuple[Any, ...]:
    """Dynamically quantised linear, weight per output channel, of the faster of torch's engines."""
    scale = np.abs(w).max(1) / 127
    best: tuple[float, Any] = (np.inf, None)
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        q = torch.quantize_per_channel(
            torch.from_numpy(w),
            torch.from_numpy(scale),
            torch.zeros(len(w), dtype=torch.int64),
            0,
            torch.qint8,
        )
        x = torch.from_numpy(x)
        for engine in {"fbgemm", "onednn"} & set(torch.backends.quantized.supported_engines):
            torch.backends.quantized.engine = engine
            packed = torch.ops.quantized.linear_prepack(q, None)
            seconds = []
            for _ in range(7):
                start = time.thread_time()
                torch.ops.quantized.linear_dynamic(x, packed, True)
                seconds.append(time.thread_time() - start)
            best = min(best, (sorted(seconds)[3], packed), key=lambda pair: pair[0])
    torch.backends.quantized.engine = before
    return x, best[1]


def in_onnxruntime(x: Array, w: Array) -> tuple[Any, ...]:
    """A session of one dynamically quantised product, weight per output channel, on one thread.

    Weights have 7 bits (its quantiser's reduce_range): where the CPU has no VNNI it lets sums of two
    products saturate, 9% off with 8.
    """
    scale = np.abs(w).max(1) / 63
    constants = {
        "q": np.ascontiguousarray(np.rint(w / scale[:, None]).astype(np.int8).T),
        "scale": scale.astype(np.float32),
        "zero": np.zeros(len(w), np.int8),
    }
    sides = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [len(x), n])
        for name, n in (("x", x.shape[1]), ("y", len(w)))
    ]
    node = onnx.helper.make_node(
        "DynamicQuantizeMatMul", ["x", *constants], ["y"], domain="com.microsoft"
    )
    graph = onnx.helper.make_graph(
        [node],
        "linear",
        sides[:1],
        sides[1:],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    versions = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=versions, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return x, onnxruntime.InferenceSession(model.SerializeToString(), options)


def cases(quick: bool) -> Iterator[Case]:
    products = [(32, 96, 64), (33, 65, 127)]
    linears = list(products)
    if not quick:
        products = [(128, 3072, 768), (512, 512, 512), (1024, 1024, 1024), (8, 3072, 768)]
        linears = [(m, n, k) for n, k in ((3072, 768), (4096, 4096)) for m in (1, 8, 32, 128, 512)]
    for m, n, k in products:
        size, work = f"{m}x{n}x{k}", int8_op(2 * m * n * k)
        # _int_mm wants more than 16 rows and multiples of 8; without VNNI it takes seconds.
        in_range = m > 16 and n % 8 == 0 and k % 8 == 0 and m * n * k <= 512**3
        yield Case(
            f"matmul_integer s8 s8 {size}",
            integers((m, k), (k, n)),
            ops.matmul_integer,
            exact,
            {"torch": lambda a, b: torch._int_mm(a, b)} if in_range else {},
            tolerance=0,
            work=work,
        )
        yield Case(
            f"matmul_integer u8 s8 {size}",
            integers((m, k), (k, n), dtypes=(np.uint8, np.int8)),
            ops.matmul_integer,
            exact,
            {},
            tolerance=0,
            work=work,
        )
        yield Case(
            f"qlinear_matmul {size}",
            integers((m, k), (k, n), dtypes=(np.uint8, np.int8)),
            qlinear,
            qlinear_exact,
            {},
            tolerance=1 / 128,  # a tie may round either way in float32
            work=work,
        )
    m, n, k = products[0]
    yield Case(
        f"quantized_linear static scale {m}x{n}x{k}",
        normal((m, k), (n, k)),
        lambda x, w: ops.quantized_linear(x, w, x_scale=np.float32(0.04), symmetric=True),
        lambda x, w: x @ w.T,
        {},
        tolerance=0.03,
        work=int8_op(2 * m * n * k),
        prepare={"vectile": lambda x, w: (x, ops.quantize_weight(w))},
    )
    for m, n, k in linears:
        yield Case(
            f"linear int8 weight {m}x{n}x{k}",
            normal((m, k), (n, k)),
            ops.linear,
            lambda x, w: x @ w.T,
            {"torch": lambda x, w: torch.ops.quantized.linear_dynamic(x, w, True)}
            | ({"onnxruntime": lambda x, s: s.run(None, {"x": x})[0]} if onnxruntime else {}),
            tolerance=0.03,  # two 8-bit roundings, relative to the largest result
            work=int8_op(2 * m * n * k),
            prepare={
                "vectile": lambda x, w: (x, ops.quantize_weight(w)),
                "torch": in_torch,
                "onnxruntime": in_onnxruntime,
            },
        )
