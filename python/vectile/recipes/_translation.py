"""What the translation recipes share: sentence pairs as subwords, the training loop, BLEU and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from vectile import data, models, no_grad, optim, terminal, viz
from vectile.data.subwords import PAD, SPACE
from vectile.extras import require
from vectile.models.seq2seq import linear_decay
from vectile.nn import functional as F
from vectile.nn.utils import clip_grad_norm_
from vectile.recipes import Run
from vectile.recipes.registry import COURSE

NEEDS = ("tokenizers", "sacrebleu")
Lang = Annotated[str, "language of the catalogues, as in LOCALE/xx/LC_MESSAGES"]
Told = Annotated[float, "share of target tokens that it still reads at the end of training"]
Dropout = Annotated[float, "probability of a feature to be left out"]
Pairs = Annotated[Path | None, "source, tab, target on each line, in place of the catalogues"]

LENGTHS = ((1, 4), (5, 8), (9, 12), (13, 99))
"""Words in a source sentence, by which the scores are broken up."""

Ids = NDArray[np.int64]
Sentences = tuple[list[list[int]], list[list[int]]]


@dataclass
class Corpus:
    """Pairs as ids: a source ends with eos, a target begins with bos and ends with eos."""

    lang: str
    subwords: data.Subwords
    train: Sentences
    validation: Sentences
    test: list[data.Pair]

    def batches(self, tokens: int, generator: np.random.Generator) -> Iterator[tuple[Ids, Ids]]:
        """Training pairs of like length, about `tokens` tokens in all, padded; without end."""
        sources, targets = self.train
        sizes = [len(s) + len(t) for s, t in zip(sources, targets, strict=True)]
        for rows in data.token_batches(sizes, tokens, generator):
            yield data.padded([sources[i] for i in rows]), data.padded([targets[i] for i in rows])


def load(run: Run, lang: str, pairs: Path | None) -> Corpus:
    """Pairs split by source, and one vocabulary of subwords learnt on both sides of the training part."""
    vocabulary = run.pick(4000, 500)
    parts = data.split_pairs(data.load_pairs(lang, pairs))
    if not all(parts):
        raise ValueError(
            f"expected pairs for training, validation and test, got {list(map(len, parts))}"
        )
    train = run.pick(parts.train, parts.train[:2000])
    subwords = data.Subwords.train((text for pair in train for text in pair), vocabulary)
    test = run.pick(parts.test, parts.test[:20])
    run.say(f"{len(train):,} pairs to train on, {len(test):,} held out; {len(subwords):,} subwords")
    validation = sorted(parts.validation[: run.pick(None, 20)], key=lambda pair: len(pair.target))
    return Corpus(
        lang,
        subwords,
        _ids(subwords, train),
        _ids(subwords, validation),
        test,
    )


def _ids(subwords: data.Subwords, pairs: Sequence[data.Pair]) -> Sentences:
    sources, targets = zip(*pairs, strict=True)
    return subwords.encode(sources, eos=True), subwords.encode(targets, bos=True, eos=True)


def fit(
    run: Run,
    corpus: Corpus,
    model: Any,
    optimizer: optim.Optimizer,
    schedule: Any,
    steps: int,
    tokens: int = 1000,
    label_smoothing: float = 0.1,
    told: float = 1.0,
) -> None:
    """Teacher forcing: at every place the likelihood of the next token, given the source and those before.

    With `told` below 1 a recurrent model reads less and less of the target's own tokens, down to that share,
    and more of what it would have written itself; such steps take the target token by token.
    """
    if not 0.0 <= told <= 1.0:
        raise ValueError(f"told: expected a share in [0, 1], got {told}")
    batches = corpus.batches(run.pick(tokens, 600), run.generator)
    for step in run.steps(steps):
        source, target = next(batches)
        forcing = {} if told == 1.0 else {"teacher_forcing": linear_decay(step, steps, told)}
        logits = model(source, target[:, :-1], **forcing)
        loss = cross_entropy(logits, target[:, 1:], label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(list(model.parameters()), 1.0)
        optimizer.step()
        schedule.step()
        run.log(loss=loss)
        if (step + 1) % 500 == 0:
            run.log(validation=validate(model, corpus, label_smoothing))


def cross_entropy(logits: Any, labels: Ids, label_smoothing: float = 0.0) -> Any:
    """Mean over the tokens that are no padding, in nats."""
    flat = logits.reshape((-1, logits.shape[-1]))
    return F.cross_entropy(
        flat, labels.reshape(-1), ignore_index=PAD, label_smoothing=label_smoothing
    )


def validate(model: Any, corpus: Corpus, label_smoothing: float) -> float:
    """The loss on the validation pairs, without dropout."""
    sources, targets = corpus.validation
    losses, weights = [], []
    model.eval()
    with no_grad():
        for i in range(0, len(sources), 32):
            source, target = data.padded(sources[i : i + 32]), data.padded(targets[i : i + 32])
            logits = model(source, target[:, :-1])
            losses.append(cross_entropy(logits, target[:, 1:], label_smoothing).item())
            weights.append((target[:, 1:] != PAD).sum())
    model.train()
    return float(np.average(losses, weights=weights))


# ---- scores ------------------------------------------------------------------------------------------


def score(run: Run, corpus: Corpus, model: Any, width: int = 4) -> list[str]:
    """BLEU of greedy and of beam search on held-out pairs, and by source length; some translations.

    Writes the checkpoint too. Returns the translations of beam search, in the order of `corpus.test`.
    """
    bleu, longest = _bleu(corpus), run.pick(80, 20)
    sources, references = zip(*corpus.test, strict=True)
    translator = models.Translator(model, corpus.subwords)
    run.checkpoint(model, asdict(model.config), beside={"subwords": str(corpus.subwords)})
    greedy = translator(sources, 1, max_length=longest)
    beam = translator(sources, width, max_length=longest)
    run.score("BLEU, greedy", bleu(greedy, references), "higher")
    run.score(f"BLEU, beam of {width}", bleu(beam, references), "higher")
    words = np.array([len(source.split()) for source in sources])
    for low, high in LENGTHS:
        rows = np.flatnonzero((words >= low) & (words <= high))
        if len(rows):
            name = f"{low} to {high}" if high < 99 else f"{low} and more"
            value = bleu([beam[i] for i in rows], [references[i] for i in rows])
            run.score(f"BLEU, {name} words ({len(rows)} sentences)", value, "higher")
    compare(run, len(beam))
    for i in np.linspace(0, len(beam) - 1, 6).astype(int):
        run.say(f"\n  {sources[i]}\n  = {references[i]}\n  > {beam[i]}")
    return beam


def compare(run: Run, count: int) -> None:
    """Table and picture of BLEU by length: this recipe, and the translators whose reports lie beside its own.

    Of a run into a/translate-rnn-2 those are a/translate-attention-2 and a/translate-transformer-2, as far as
    they scored the same sentences.
    """
    reports = {}
    for name in (name for name in COURSE if name.startswith("translate-")):
        path = run.out.with_name(run.out.name.replace(run.recipe.name, name)) / "report.json"
        if name == run.recipe.name:
            reports[name] = run.scores
        elif path != run.out / "report.json" and path.exists():
            reports[name] = json.loads(path.read_text("utf-8"))["scores"]
    found = {
        name: {score["name"]: score["value"] for score in scores if "sentences)" in score["name"]}
        for name, scores in reports.items()
    }
    mine = found[run.recipe.name]
    columns = {name: list(by.values()) for name, by in found.items() if by.keys() == mine.keys()}
    groups = [re.sub(r"BLEU, (.*) words.*", r"\1", name) for name in mine]
    if len(columns) > 1:
        table = terminal.table("BLEU", *(name.removeprefix("translate-") for name in columns))
        for group, *row in zip(groups, *columns.values(), strict=True):
            table.add_row(f"{group} words", *(f"{value:.1f}" for value in row))
        run.screen.print(table)
    figure = viz.bar_chart(
        groups,
        columns,
        title="Translation quality by sentence length",
        subtitle=f"recipe {run.recipe.name}: BLEU of beam search on {count:,} held-out sentences",
        xlabel="words in the source sentence",
        ylabel="BLEU",
    )
    run.figure("bleu", figure)


def _bleu(corpus: Corpus) -> Callable[[Sequence[str], Sequence[str]], float]:
    """sacrebleu's corpus BLEU with the tokens that suit the language."""
    sacrebleu = require("sacrebleu", "scoring translations", "recipes")
    language = corpus.lang[:2]
    tokenize = "zh" if language == "zh" else "char" if language in ("ja", "ko", "th") else "13a"
    return lambda found, wanted: float(
        sacrebleu.corpus_bleu(found, [wanted], tokenize=tokenize, force=True).score
    )


# ---- pictures ----------------------------------------------------------------------------------------


@dataclass
class Example:
    """A source and the model's translation: ids for the model, and their words for the pictures."""

    pair: data.Pair
    source: Ids  # (1, length)
    target: Ids  # (1, length): what the decoder reads, from bos on
    source_words: Words
    read: Words  # what the decoder reads
    written: Words  # what it writes at the same places, up to eos


@dataclass
class Words:
    """Words, and the tokens at which they begin."""

    texts: list[str]
    starts: list[int]

    @classmethod
    def of(cls, tokens: Sequence[str]) -> Words:
        """Tokens joined: a word begins at a space or a special token."""
        starts = [i for i, t in enumerate(tokens) if i == 0 or t.startswith((SPACE, "<"))]
        ends = [*starts[1:], len(tokens)]
        joined = ("".join(tokens[i:j]) for i, j in zip(starts, ends, strict=True))
        return cls([text.replace(SPACE, "") for text in joined], starts)


def examples(corpus: Corpus, found: Sequence[str], count: int = 2) -> list[Example]:
    """Held-out sentences of 7 to 12 words if there are any, the best translated first (by chrF)."""
    chrf = require("sacrebleu", "scoring translations", "recipes").sentence_chrf
    rows = []
    for i, (source, _) in enumerate(corpus.test):
        plain = re.fullmatch(r"[\w ',.()-]+", source)  # no placeholder, no quotation
        if plain and 7 <= len(source.split()) <= 12:
            rows.append(i)
    rows = rows or list(range(len(corpus.test)))
    rows.sort(key=lambda i: -chrf(found[i], [corpus.test[i].target]).score)
    made = []
    for i in rows[:count]:
        pair = data.Pair(corpus.test[i].source, found[i])
        (given,), (target,) = _ids(corpus.subwords, [pair])
        parts = (Words.of(corpus.subwords.tokens(ids)) for ids in (given, target[:-1], target[1:]))
        made.append(Example(pair, np.array([given]), np.array([target[:-1]]), *parts))
    return made


def by_words(weights: NDArray[Any], rows: Words, columns: Words) -> NDArray[Any]:
    """Weights (…, tokens, tokens) between words: the mean over a row's tokens, the sum over a column's."""
    summed = np.add.reduceat(weights, columns.starts, -1)
    counts = np.diff([*rows.starts, weights.shape[-2]])
    out: NDArray[Any] = np.add.reduceat(summed, rows.starts, -2) / counts[:, None]
    return out


def alignment(run: Run, name: str, example: Example, weights: NDArray[Any]) -> None:
    """The picture NAME: which source words are read, by `weights` (target, source), for each word written."""
    run.figure(
        name,
        viz.cross_attention(
            by_words(weights, example.written, example.source_words),
            example.source_words.texts,
            example.written.texts,
            subtitle=f"{example.pair.source!r} as {example.pair.target!r}, "
            "among the best translated of the held-out sentences",
        ),
    )
