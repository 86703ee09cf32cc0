"""Text as bytes: the built-in corpus, files, the train/validation split and reproducible batches."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_EXCLUDED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}

Bytes = NDArray[np.uint8]


def stdlib_files() -> list[Path]:
    """The running Python's own library modules, sorted; tests and installed packages are left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / file for file in sorted(files) if not _EXCLUDED.intersection(file.parts)]


def read_bytes(files: Iterable[str | PathLike[str]], limit: int | None = None) -> Bytes:
    """The files' bytes, one after another, as a uint8 array of at most `limit` bytes.

    Raises OSError for a file that cannot be read and ValueError when there is no byte in them.
    """
    chunks: list[bytes] = []
    size = 0
    for file in files:
        chunks.append(Path(file).read_bytes())
        size += len(chunks[-1])
        if limit is not None and size >= limit:
            break
    if size == 0:
        raise ValueError("read_bytes: files: expected at least one byte of text, got none")
    return np.frombuffer(b"".join(chunks), dtype=np.uint8)[:limit]


def stdlib_corpus(limit: int = 16 << 20) -> Bytes:
    """The standard library's source (about 12 MB for Python 3.11), at most `limit` bytes.

    ValueError where Python was installed without its library's source.
    """
    files = stdlib_files()
    if not files:
        raise ValueError(
            f"stdlib_corpus: expected *.py files in {sysconfig.get_paths()['stdlib']}, found none"
        )
    return read_bytes(files, limit)


def split(text: Bytes, validation: float = 0.1) -> tuple[Bytes, Bytes]:
    """Cut the last part off for validation: (train, validation), both views of `text`."""
    if not 0.0 < validation < 1.0:
        raise ValueError(f"split: validation: expected a fraction in (0, 1), got {validation}")
    cut = len(text) - max(1, int(len(text) * validation))
    return text[:cut], text[cut:]


def windows(
    text: Bytes, starts: Sequence[int] | NDArray[np.int64], length: int
) -> NDArray[np.int64]:
    """`length` consecutive bytes from each start: int64 (len(starts), length)."""
    index = np.asarray(starts, dtype=np.int64)[:, None] + np.arange(length)
    out: NDArray[np.int64] = text[index].astype(np.int64)
    return out


def batch(
    text: Bytes, size: int, context: int, seed: int, step: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs and next-byte targets, each (size, context), of training step `step`.

    The windows depend on (seed, step) only, so a resumed run sees the very batches it would have seen.
    """
    _require_length(text, context)
    generator = np.random.Generator(np.random.Philox(key=[seed, step]))
    starts = generator.integers(0, len(text) - context, size=size)
    block = windows(text, starts, context + 1)
    return block[:, :-1], block[:, 1:]


def validation_batches(
    text: Bytes, size: int, context: int, count: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """`count` fixed batches of windows spread evenly over `text` (fewer when it is short)."""
    _require_length(text, context)
    available = (len(text) - 1) // context
    total = max(1, min(size * count, available))
    starts = np.linspace(0, len(text) - context - 1, total).astype(np.int64)
    blocks = [
        windows(text, part, context + 1) for part in np.array_split(starts, -(-total // size))
    ]
    return [(block[:, :-1], block[:, 1:]) for block in blocks]


def _require_length(text: Bytes, context: int) -> None:
    if len(text) <= context:
        raise ValueError(
            f"batch: text length: expected more than the context of {context} bytes, got {len(text)}"
        )
