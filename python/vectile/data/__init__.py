"""Data that trains: text, digits, patients, sentence pairs, and the order in which a run sees them."""

from vectile.data.diabetes import Patients, diabetes
from vectile.data.digits import Digits, digits, shifted, warped
from vectile.data.order import shuffled
from vectile.data.subwords import Subwords, padded, token_batches
from vectile.data.text import (
    Bytes,
    batch,
    read_bytes,
    split,
    stdlib_corpus,
    stdlib_files,
    validation_batches,
    windows,
)
from vectile.data.translation import Pair, load_pairs, split_pairs

__all__ = [
    "Bytes",
    "Digits",
    "Pair",
    "Patients",
    "Subwords",
    "batch",
    "diabetes",
    "digits",
    "load_pairs",
    "padded",
    "read_bytes",
    "shifted",
    "shuffled",
    "split",
    "split_pairs",
    "stdlib_corpus",
    "stdlib_files",
    "token_batches",
    "validation_batches",
    "warped",
    "windows",
]
