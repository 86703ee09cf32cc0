"""A recurrent encoder and decoder translate from English through one fixed vector."""

from __future__ import annotations

from typing import Annotated, Literal

from vectile import models, optim
from vectile.recipes import Run, recipe
from vectile.recipes import _translation as translation


@recipe(
    "translate-rnn",
    "why attention came: English into French through one vector, which long sentences do not fit",
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
) -> None:
    """The picture of BLEU also shows the other translators whose folders lie beside this one's."""
    corpus = translation.load(run, lang, pairs)
    config = models.Seq2SeqConfig(
        len(corpus.subwords), hidden=hidden, cell=cell, attention=None, dropout=dropout
    )
    model = models.Seq2Seq(config)
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    steps = run.pick(3000, 40)
    schedule = optim.lr_scheduler.WarmupCosineLR(optimizer, run.pick(400, 10), steps)
    translation.fit(run, corpus, model, optimizer, schedule, steps, told=told)

    translation.score(run, corpus, model)
