"""Networks from the files that recipes write."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from vectile import checkpoint, nn
from vectile.models.bert import BERT, BERTClassifier, BERTConfig, BERTMaskedLM
from vectile.models.char_rnn import CharRNN, CharRNNConfig
from vectile.models.gpt import GPT, GPTConfig
from vectile.models.seq2seq import Seq2Seq, Seq2SeqConfig
from vectile.models.transformer import TransformerConfig, TranslationTransformer

_CONFIGS: dict[str, tuple[Any, Any]] = {
    "CharRNN": (CharRNN, CharRNNConfig),
    "GPT": (GPT, GPTConfig),
    "Seq2Seq": (Seq2Seq, Seq2SeqConfig),
    "TranslationTransformer": (TranslationTransformer, TransformerConfig),
}


def load(path: str | PathLike[str]) -> nn.Module:
    """The network in a file that `vectile train --recipe` wrote, in evaluation mode.

    Its `network` names a class or function of `vectile.models` or `vectile.nn`, and its `model` the keyword
    arguments. ValueError for another file; OSError for one that cannot be read.
    """
    return load_with(path)[0]


def load_with(path: str | PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """`load`, and what the recipe left beside the weights: subwords, words, names of classes."""
    tensors, about = checkpoint.load(path)
    name, settings = about.get("network"), about.get("model")
    if not isinstance(name, str) or not isinstance(settings, dict):
        raise ValueError(f"{path}: expected a network that a recipe wrote, got other contents")
    with checkpoint.understanding(path):
        model = _build(name, settings)
        model.load_state_dict(tensors)
        return model.eval(), dict(about["beside"])


def _build(name: str, settings: Mapping[str, Any]) -> nn.Module:
    if name in _CONFIGS:
        build, config = _CONFIGS[name]
        model: nn.Module = build(config(**settings))
    elif name == "BERTMaskedLM":
        model = BERTMaskedLM(BERT(BERTConfig(**settings)))
    elif name == "BERTClassifier":
        classes = settings["classes"]
        config = BERTConfig(**{k: v for k, v in settings.items() if k != "classes"})
        model = BERTClassifier(BERT(config), classes)
    else:
        from vectile import models

        home: Any = models if name in models.__all__ else nn
        if name not in home.__all__:
            raise ValueError(f"network: expected one of vectile.models or vectile.nn, got {name!r}")
        model = getattr(home, name)(**settings)
    return model
