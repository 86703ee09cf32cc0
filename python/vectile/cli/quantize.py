"""`vectile quantize`: a smaller INT8 copy of a trained model."""

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
        "write an INT8 copy of a trained model",
        [
            "vectile quantize model.safetensors",
            "vectile quantize model.safetensors --out small.safetensors",
        ],
    )
    parser.add_argument("model", type=Path, help="checkpoint from vectile train")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: MODEL-int8.safetensors")


def run(arguments: argparse.Namespace) -> int:
    out = arguments.out or arguments.model.with_name(f"{arguments.model.stem}-int8.safetensors")
    common.require_parent(out)
    tensors, settings = checkpoint.load(arguments.model)
    if "quantized" in settings:
        raise ValueError(f"{arguments.model}: expected a float32 model, got a quantized one")
    model = model_from(tensors, settings, arguments.model)
    before = size_report(model)
    quantize_dynamic(model)
    after = size_report(model)
    save_quantized(out, model, {"kind": "gpt", "model": settings["model"]})
    print(
        f"{out}: {after.total / 1e6:.2f} MB of weights, {before.total / after.total:.2f}x smaller "
        f"than {before.total / 1e6:.2f} MB ({after.quantized_layers} layers in INT8)"
    )
    return 0
