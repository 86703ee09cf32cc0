"""`vectile generate`: text from a trained or quantised model."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from vectile.cli import common
from vectile.train import load_model


def add_to(commands: Any) -> None:
    parser = common.command(
        commands,
        "generate",
        run,
        "continue a prompt with a trained model",
        [
            "vectile generate model.safetensors --prompt 'def main(' --tokens 300",
            "vectile generate model-int8.safetensors --greedy",
            "vectile generate model.safetensors --temperature 0.7 --top-p 0.95 --seed 1",
        ],
    )
    parser.add_argument("model", type=Path, help="checkpoint from vectile train or quantize")
    parser.add_argument("--prompt", default="\n", help="text to continue (default: a new line)")
    parser.add_argument(
        "--tokens", type=common.positive, default=400, metavar="N", help="bytes to add"
    )
    parser.add_argument("--temperature", type=float, default=0.8, metavar="X", help="default: 0.8")
    parser.add_argument("--top-k", type=common.positive, metavar="N", help="only the N likeliest")
    parser.add_argument(
        "--top-p", type=float, metavar="X", help="only the nucleus of this probability"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="repeat the same text")
    parser.add_argument("--greedy", action="store_true", help="always the likeliest byte")
    parser.add_argument(
        "--cache-dtype",
        choices=("float32", "float16", "bfloat16", "int8"),
        metavar="TYPE",
        help="keys and values are kept in float32 (default), float16, bfloat16 or int8",
    )


def run(arguments: argparse.Namespace) -> int:
    model = load_model(arguments.model)
    if model.config.vocab_size != 256:
        raise ValueError(
            f"{arguments.model}: expected a model of bytes, got {model.config.vocab_size} tokens"
        )
    prompt = np.frombuffer(arguments.prompt.encode() or b"\n", np.uint8)
    start = time.perf_counter()
    out = model.generate(
        prompt,
        arguments.tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        greedy=arguments.greedy,
        cache_dtype=arguments.cache_dtype,
    )
    seconds = time.perf_counter() - start
    print(common.show_bytes(out.astype(np.uint8).tobytes()))
    print(f"[{arguments.tokens / seconds:,.0f} tokens/s]", file=sys.stderr)
    return 0
