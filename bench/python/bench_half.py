"""Row-wise ops on bfloat16: the cases of their families, whose names they keep, beside torch's."""

from __future__ import annotations

from collections.abc import Iterator

import bench_elementwise
import bench_norm
import bench_softmax
from harness import Case, bfloat16

FAMILIES = {
    bench_softmax: {"softmax", "log_softmax", "softmax_backward"},
    bench_norm: {"layer_norm", "rms_norm"},
    bench_elementwise: {"exp", "gelu", "silu", "add", "multiply", "gelu_backward"},
}


def cases(quick: bool) -> Iterator[Case]:
    for module, names in FAMILIES.items():
        for case in module.cases(quick):
            if case.name.split()[0] in names and "torch" in case.peers:
                yield bfloat16(case)
