"""Draw docs/attention.png: the weights that each option of attention leaves, from the kernel itself.

python docs/attention_maps.py [PATH]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from vectile import ops, viz

LENGTH, DIM, BLOCK = 64, 16, 8


def big_bird(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Neighbours, the first block for all and from all, and one random block a row (arXiv 2007.14062)."""
    at = np.arange(LENGTH // BLOCK)
    blocks = abs(at[:, None] - at) <= 1
    blocks[0] = blocks[:, 0] = True
    blocks[at, rng.integers(0, len(at), len(at))] = True
    return blocks


def options(rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    documents = np.repeat([0, 1, 0, 2], [14, 18, 12, 20])
    return {
        "no option": {},
        "is_causal": {"is_causal": True},
        "window=(12, 0)": {"window": (12, 0)},
        "window=(6, 6)": {"window": (6, 6)},
        "block_mask": {"block_mask": big_bird(rng)},
        "key_lengths=44": {"key_lengths": 44},
        "cu_seqlens_q, is_causal": {"cu_seqlens_q": [0, 14, 40, 64], "is_causal": True},
        "document_ids": {"document_ids": documents},
        "softcap=1": {"softcap": 1.0},
        "alibi_slopes=0.2": {"alibi_slopes": np.float32([0.2]), "is_causal": True},
        "sinks=4": {"sinks": np.float32([4.0]), "is_causal": True},
        "dropout_p=0.5": {"dropout_p": 0.5, "seed": 1, "is_causal": True},
    }


def weights(q: Any, k: Any, chosen: dict[str, Any]) -> np.ndarray[Any, Any]:
    """(LENGTH, LENGTH): what multiplies the values, read off by giving them the unit vectors."""
    unit = np.eye(LENGTH, dtype=np.float32)
    out: np.ndarray[Any, Any] = ops.scaled_dot_product_attention(q, k, unit[None], **chosen)
    return out[0]


def main() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1, LENGTH, DIM), np.float32)
    maps = {name: weights(q, k, chosen) for name, chosen in options(rng).items()}
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("attention.png")
    picture = viz.attention_grid(
        maps,
        title="What each option keeps",
        subtitle=f"{LENGTH} random queries (down) and keys (across), one head; dark is a weight of 0",
    )
    print(viz.save(picture, path))


if __name__ == "__main__":
    main()
