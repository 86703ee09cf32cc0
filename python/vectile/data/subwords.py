"""Subword units learnt by byte-pair encoding, and padded batches of their ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectile.extras import require

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
SPACE = "▁"
"""Stands for the space at the head of a token that begins a word."""

_PIECE = rf"{SPACE}?(%[sd]|\p{{L}}[\p{{L}}\p{{M}}]*|\p{{N}}|[^{SPACE}\p{{L}}\p{{N}}])"
"""Merges stay within a placeholder, a word, a digit or a sign, each with the space before it."""

Ids = NDArray[np.int64]


class Subwords:
    """Text <-> ids by byte-pair encoding (Sennrich et al., arXiv 1508.07909); ids 0 to 3 are `SPECIAL`.

    `Subwords.train(texts, size)` learns one, `str(subwords)` and `Subwords(text)` store and restore it.
    """

    def __init__(self, text: str) -> None:
        tokenizers = require("tokenizers", "splitting text into subwords", "recipes")
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the package raises its base class
            raise ValueError(f"Subwords: text: expected what str() gave ({error})") from error

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> Subwords:
        """Merges learnt on `texts` until there are `size` ids, or no pair of symbols occurs twice."""
        tokenizers = require("tokenizers", "splitting text into subwords", "recipes")
        if size <= len(SPECIAL):
            raise ValueError(f"Subwords: size: expected more than {len(SPECIAL)}, got {size}")
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=SPECIAL[UNK]))
        tokenizer.normalizer = tokenizers.normalizers.NFC()
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [
                tokenizers.pre_tokenizers.Metaspace(SPACE, "always"),
                tokenizers.pre_tokenizers.Split(tokenizers.Regex(_PIECE), "isolated"),
            ]
        )
        tokenizer.decoder = tokenizers.decoders.Metaspace(SPACE, "always")
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(SPECIAL), show_progress=False, min_frequency=2
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str())

    def __str__(self) -> str:
        text: str = self._tokenizer.to_str()
        return text

    def __len__(self) -> int:
        size: int = self._tokenizer.get_vocab_size()
        return size

    def encode(self, texts: Sequence[str], bos: bool = False, eos: bool = False) -> list[list[int]]:
        """The ids of each text, between `BOS` and `EOS` if wanted."""
        before, after = [BOS] * bos, [EOS] * eos
        encoded = self._tokenizer.encode_batch(list(texts))
        return [[*before, *found.ids, *after] for found in encoded]

    def decode(self, sequences: Iterable[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids; special tokens are left out."""
        texts: list[str] = self._tokenizer.decode_batch([list(map(int, ids)) for ids in sequences])
        return texts

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The subword of each id. IndexError for an id outside of the vocabulary."""
        found = [self._tokenizer.id_to_token(int(i)) for i in ids]
        if None in found:
            raise IndexError(f"Subwords: ids: expected in [0, {len(self)}), got {list(ids)}")
        return found


def padded(sequences: Sequence[Sequence[int]], pad: int = PAD) -> Ids:
    """Sequences as rows of one array (rows, longest), filled up with `pad`; at least one column."""
    width = max(1, max(map(len, sequences), default=1))
    out = np.full((len(sequences), width), pad, np.int64)
    for row, ids in zip(out, sequences, strict=True):
        row[: len(ids)] = ids
    return out


def token_batches(
    sizes: Sequence[int] | NDArray[np.int64], tokens: int, generator: np.random.Generator
) -> Iterator[Ids]:
    """The indices of sequences in batches of at most `tokens` tokens with padding, without end.

    Sequences of like size stand together, so that little is padded; every epoch draws them and the order
    of the batches anew. A sequence longer than `tokens` is a batch of its own. ValueError for no sequence.
    """
    lengths = np.asarray(sizes, np.int64)
    if lengths.ndim != 1 or len(lengths) == 0:
        raise ValueError(f"token_batches: sizes shape: expected (n > 0,), got {lengths.shape}")
    if tokens < 1:
        raise ValueError(f"token_batches: tokens: expected >= 1, got {tokens}")
    while True:
        shuffled = generator.permutation(len(lengths))
        order = shuffled[np.argsort(lengths[shuffled], kind="stable")]
        batches, start = [], 0
        for end, size in enumerate(lengths[order].tolist()):  # never falls: the batch's longest
            if end > start and size * (end + 1 - start) > tokens:
                batches.append(order[start:end])
                start = end
        batches.append(order[start:])
        for index in generator.permutation(len(batches)):
            yield batches[index]
