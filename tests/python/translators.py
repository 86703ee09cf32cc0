"""Small translation models of every kind, and a batch for them."""

from __future__ import annotations

import numpy as np
import pytest

from vectile import random
from vectile.models import Seq2Seq, Seq2SeqConfig, TransformerConfig, TranslationTransformer

VOCABULARY, PAD, BOS = 23, 0, 1


def transformer(seed=0, **options):
    random.manual_seed(seed)
    sizes = {"d_model": 16, "n_heads": 4, "d_feedforward": 24, "dropout": 0.3, "context": 12}
    return shaken(TranslationTransformer(TransformerConfig(VOCABULARY, **(sizes | options))))


def seq2seq(seed=0, **options):
    random.manual_seed(seed)
    sizes = {"width": 6, "hidden": 8, "dropout": 0.3}
    return shaken(Seq2Seq(Seq2SeqConfig(VOCABULARY, **(sizes | options))))


def shaken(model):
    """In float64, with parameters away from the initial zeros and ones."""
    for parameter in model.parameters():
        noise = 0.2 * random.generator().normal(size=parameter.shape)
        parameter.data = (parameter.data + noise).astype(parameter.dtype)
    return model.double().eval()


SCORES = ("dot", "scaled_dot", "general", "additive")


MODELS = {
    **{score: (lambda score=score: seq2seq(attention=score)) for score in SCORES},
    "fixed": lambda: seq2seq(attention=None),
    "fixed deep gru": lambda: seq2seq(attention=None, cell="gru", layers=2, bidirectional=False),
    "deep": lambda: seq2seq(layers=3, attention="general"),
    "input feeding": lambda: seq2seq(input_feeding=True, layers=2),
    "shared": lambda: seq2seq(shared=True, bidirectional=False, layers=2),
    "post-norm": lambda: transformer(),
    "pre-norm": lambda: transformer(norm_first=True),
    "one layer": lambda: transformer(n_encoder_layers=1, n_decoder_layers=3),
}


every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())


def batch(lengths=(7, 3, 1, 6), target=5, seed=0):
    """Sources of these lengths, padded, and targets that begin with bos."""
    rng = np.random.default_rng(seed)
    source = rng.integers(3, VOCABULARY, (len(lengths), max(lengths)))
    for row, length in zip(source, lengths, strict=True):
        row[length:] = PAD
    words = rng.integers(3, VOCABULARY, (len(lengths), target))
    words[:, 0] = BOS
    return source, words
