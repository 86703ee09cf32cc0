"""A translation model together with its subwords: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from vectile.data.subwords import Subwords, padded
from vectile.models.saved import load_with
from vectile.models.search import beam_search, greedy_search
from vectile.models.seq2seq import Seq2Seq
from vectile.models.transformer import TranslationTransformer


class Translator:
    """`Translator.load("model.safetensors")(["file not found"])` gives the translations.

    A source is read with `eos` at its end.
    """

    def __init__(self, model: Seq2Seq | TranslationTransformer, subwords: Subwords) -> None:
        self.model, self.subwords = model, subwords

    def __call__(
        self,
        texts: Sequence[str],
        width: int = 4,
        alpha: float = 1.0,
        max_length: int | None = None,
        batch: int = 64,
    ) -> list[str]:
        """A translation of each text, in order, of at most `max_length` subwords (as in `greedy_search`).

        `width` 1 is greedy, else that of the beam, with length penalty `alpha`; `batch` texts of like length
        at once.
        """
        sources = self.subwords.encode(texts, eos=True)
        order = np.argsort([len(ids) for ids in sources], kind="stable")
        found = [""] * len(sources)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            source = padded([sources[row] for row in rows])
            written: list[Any]
            if width == 1:
                written = greedy_search(self.model, source, max_length)
            else:
                beams = beam_search(self.model, source, width, alpha, max_length)
                written = [best.ids for best, *_ in beams]
            for row, text in zip(rows, self.subwords.decode(written), strict=True):
                found[row] = text
        return found

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Translator:
        """The translator that a recipe wrote; ValueError for another checkpoint."""
        model, beside = load_with(path)
        if not isinstance(model, (Seq2Seq, TranslationTransformer)) or "subwords" not in beside:
            raise ValueError(
                f"{path}: expected a translation model with its subwords, got {type(model).__name__}"
            )
        return cls(model, Subwords(beside["subwords"]))
