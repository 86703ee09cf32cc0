"""The recurrent translator of `translate-rnn`, whose decoder looks back at every source word."""

from __future__ import annotations

from typing import Annotated, Literal

from vectile import models, optim
from vectile.models.seq2seq import Score
from vectile.recipes import Run, recipe
from vectile.recipes import _translation as translation


@recipe(
    "translate-attention",
    "attention: the same recurrent translator looks back at the source at every word it writes",
    needs=translation.NEEDS,
)
def train(
    run: Run,
    *,
    lang: translation.Lang = "fr",
    pairs: translation.Pairs = None,
    cell: Annotated[Literal["lstm", "gru"], "the recurrent cell"] = "lstm",
    hidden: Annotated[int, "units of the decoder, and of both directions of the encoder"] = 256,
    dropout: translation.Dropout = 0.0,
    told: translation.Told = 1.0,
    score: Annotated[Score, "how a decoder state is compared with a source state"] = "additive",
) -> None:
    """The picture of BLEU also shows the other translators whose folders lie beside this one's."""
    corpus = translation.load(run, lang, pairs)
    config = models.Seq2SeqConfig(
        len(corpus.subwords), hidden=hidden, cell=cell, attention=score, dropout=dropout
    )
    model = models.Seq2Seq(config)
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    steps = run.pick(3000, 40)
    schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, run.pick(400, 10), steps)
    translation.fit(run, corpus, model, optimizer, schedule, steps, told=told)

    found = translation.score(run, corpus, model)
    for number, example in enumerate(translation.examples(corpus, found), 1):
        weights = model.attention_weights(example.source, example.target)[0]
        translation.alignment(run, f"attention-{number}", example, weights)
