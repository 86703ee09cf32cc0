"""An encoder-decoder Transformer translates from English: all attention, no recurrence."""

from __future__ import annotations

from typing import Annotated

from vectile import models, optim, viz
from vectile.recipes import Run, recipe
from vectile.recipes import _translation as translation


@recipe(
    "translate-transformer",
    "attention alone: a Transformer translates English into French",
    needs=translation.NEEDS,
)
def train(
    run: Run,
    *,
    lang: translation.Lang = "fr",
    pairs: translation.Pairs = None,
    width: Annotated[int, "features of a token (d_model), a multiple of 4 heads"] = 128,
    layers: Annotated[int, "encoder layers, and decoder layers"] = 2,
    dropout: translation.Dropout = 0.0,
) -> None:
    """The picture of BLEU also shows the other translators whose folders lie beside this one's."""
    corpus = translation.load(run, lang, pairs)
    config = models.TransformerConfig(
        len(corpus.subwords), width, 4, layers, layers, 4 * width, dropout, norm_first=True
    )
    model = models.TranslationTransformer(config)
    optimizer = optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.98), eps=1e-9)
    steps = run.pick(3500, 40)  # about the time of translate-attention
    schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, run.pick(400, 10), steps)
    translation.fit(run, corpus, model, optimizer, schedule, steps)

    found = translation.score(run, corpus, model)
    for number, example in enumerate(translation.examples(corpus, found), 1):
        weights = model.attention_weights(example.source, example.target)
        last = weights.cross[-1, 0].mean(0)  # the last layer, over its heads
        translation.alignment(run, f"attention-{number}", example, last)
    heads = {
        "encoder": (weights.encoder, example.source_words, example.source_words),
        "decoder": (weights.decoder, example.read, example.read),
        "cross": (weights.cross, example.written, example.source_words),
    }
    for name, (maps, rows, columns) in heads.items():
        figure = viz.attention_heads(
            translation.by_words(maps[:, 0], rows, columns),
            rows.texts,
            columns.texts,
            causal=name == "decoder",
            title=f"Where each head looks: {name} attention",
            subtitle=f"{example.pair.source!r} as {example.pair.target!r}; rows attend to columns",
        )
        run.figure(f"heads-{name}", figure)
