"""Data that trains: text as bytes, handwritten digits, and the order in which a run sees them."""

from vectile.data.digits import Digits, digits, shifted
from vectile.data.order import shuffled
from vectile.data.text import (
    VOCABULARY,
    Bytes,
    batch,
    read_bytes,
    split,
    stdlib_corpus,
    stdlib_files,
    validation_batches,
    windows,
)

__all__ = [
    "VOCABULARY",
    "Bytes",
    "Digits",
    "batch",
    "digits",
    "read_bytes",
    "shifted",
    "shuffled",
    "split",
    "stdlib_corpus",
    "stdlib_files",
    "validation_batches",
    "windows",
]
