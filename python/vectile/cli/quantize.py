"""`vectile quantize`: a smaller copy of a trained model, in 8 or 4 bits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vectile import checkpoint
from vectile.cli import common
from vectile.quant import quantize_dynamic, save_quantized, size_report
from vectile.train import model_from


def add_to(commands: Any) -> None:
    parser = common.command(
        commands,
        "quantize",
        run,
        "write a copy of a trained model in 8 or 4 bits",
        [
            "vectile quantize model.safetensors",
            "vectile quantize model.safetensors --out small.safetensors",
            "vectile quantize model.safetensors --bits 4 --group-size 32",
        ],
    )
    parser.add_argument("model", type=Path, help="checkpoint from vectile train")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: MODEL-intBITS.safetensors"
    )
    parser.add_argument(
        "--bits", type=int, choices=(8, 4), default=8, help="of a weight; default: 8"
    )
    parser.add_argument(
        "--group-size",
        type=int,
        choices=(32, 64, 128),
        help="weights that share a scale, with --bits 4; default: 128",
    )


def run(arguments: argparse.Namespace) -> int:
    bits, group = arguments.bits, arguments.group_size
    if bits != 4 and group is not None:
        raise ValueError(f"quantize: --group-size: expected --bits 4, got --bits {bits}")
    default = arguments.model.with_name(f"{arguments.model.stem}-int{bits}.safetensors")
    out = arguments.out or default
    common.require_parent(out)
    tensors, settings = checkpoint.load(arguments.model)
    if "quantized" in settings:
        raise ValueError(f"{arguments.model}: expected a float32 model, got a quantized one")
    model = model_from(tensors, settings, arguments.model)
    before = size_report(model)
    quantize_dynamic(model, bits=bits, **({} if group is None else {"group_size": group}))
    after = size_report(model)
    save_quantized(out, model, {"kind": "gpt", "model": settings["model"]})
    print(
        f"{out}: {after.total / 1e6:.2f} MB of weights, {before.total / after.total:.2f}x smaller "
        f"than {before.total / 1e6:.2f} MB ({after.quantized_layers} layers in INT{bits})"
    )
    return 0
