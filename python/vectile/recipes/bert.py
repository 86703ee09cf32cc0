"""BERT on Python's library: guess masked subwords, then tell from few labels which module a line is from."""

from __future__ import annotations

import sysconfig
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectile import Tensor, data, models, nn, no_grad, optim, viz
from vectile.data.subwords import BOS, EOS, PAD, SPACE, UNK
from vectile.models.bert import BERTConfig, mask_tokens
from vectile.nn import functional as F
from vectile.nn.utils import clip_grad_norm_
from vectile.optim.lr_scheduler import WarmupCosineLR
from vectile.recipes import Run, recipe

Ids = NDArray[np.int64]
MODULES = (
    "argparse asyncio ctypes datetime doctest email http inspect "
    "logging multiprocessing pickle statistics tarfile turtle typing xml"
).split()
LENGTH = 24  # tokens that the network sees at once
NEAR = 200  # tokens within which two stretches are neighbours
PAIRS = 32  # of neighbours in a batch
SHORTEST = 25  # characters: shorter lines could be from anywhere


class Corpus(NamedTuple):
    """Lines to read, lines held out of everything, and (line, number of its module) from either."""

    text: list[str]
    held_out: list[str]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]


@recipe(
    "bert",
    "pre-training: guess masked words of Python's library, then classify its lines from few labels",
    needs=("tokenizers",),
    falls=("masked", "neighbour", "fine-tuned", "from nothing"),
)
def train(
    run: Run,
    *,
    width: Annotated[int, "features of a token (d_model), a multiple of 4 heads"] = 128,
    layers: Annotated[int, "encoder layers"] = 3,
    steps: Annotated[int, "steps of pre-training"] = 3000,
    labels: Annotated[int, "labelled lines of each module"] = 50,
) -> None:
    labels, steps = run.pick((labels, steps), (8, 40))
    corpus = load(labels, run.pick(1, 8), run.generator)
    subwords = data.Subwords.train(corpus.text, run.pick(2000, 400))
    mask = len(subwords)  # one id more than there are subwords
    run.say(f"{len(corpus.text):,} lines to read, {len(corpus.train):,} of them with a label")
    width, layers = run.pick((width, layers), (32, 1))
    config = BERTConfig(
        mask + 1, LENGTH, layers, 4, width, 4 * width, segments=0, dropout=0.0, norm_first=True
    )
    encoder = models.BERT(config)
    reader = models.BERTMaskedLM(encoder)
    classifier = models.BERTClassifier(encoder, len(MODULES))
    read, unread = (
        np.array([token for ids in subwords.encode(part) for token in (*ids, EOS)])
        for part in (corpus.text, corpus.held_out)
    )

    def examples(stream: Ids, generator: np.random.Generator) -> tuple[Ids, Ids]:
        """PAIRS stretches of the stream, then one from near each, with some of their tokens masked."""
        starts = generator.integers(1, len(stream) - NEAR, PAIRS)
        near = starts + generator.integers(LENGTH, NEAR - LENGTH, PAIRS)
        ids = stream[np.concatenate([starts, near])[:, None] + np.arange(-1, LENGTH - 1)]
        ids[:, 0] = BOS
        return mask_tokens(ids, mask, mask + 1, generator, (PAD, BOS, EOS, UNK))

    def heads(ids: Ids) -> tuple[Tensor, Tensor]:
        """Hidden states, and how well each stretch goes with each of those from near another."""
        hidden = encoder(ids)
        pooled = classifier.pool(hidden)
        return hidden, pooled[:PAIRS] @ pooled[PAIRS:].T

    parameters = {id(p): p for head in (reader, classifier) for p in head.parameters()}
    optimizer = optim.AdamW(parameters.values(), 2e-3, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = WarmupCosineLR(optimizer, steps // 20, steps, 0.02)
    for _ in run.steps(steps, label="pre-training"):
        ids, targets = examples(read, run.generator)
        hidden, matches = heads(ids)
        loss = reader.loss(hidden, targets)
        neighbour = F.cross_entropy(matches, np.arange(PAIRS))
        update(optimizer, schedule, loss + neighbour)
        run.log(masked=loss, neighbour=neighbour)

    told, paired = [], []
    with no_grad():
        for seed in range(run.pick(32, 2)):
            ids, targets = examples(unread, np.random.default_rng(seed))
            hidden, matches = heads(ids)
            likeliest = reader.logits(hidden).numpy().argmax(-1)
            told.append((likeliest == targets)[targets >= 0].mean())
            paired.append(np.mean(matches.numpy().argmax(-1) == np.arange(PAIRS)))
    run.score("masked tokens told, held out", np.mean(told), better="higher")
    run.score(f"neighbours told among {PAIRS}, held out", np.mean(paired), better="higher")
    beside: dict[str, Any] = {"subwords": str(subwords)}
    run.checkpoint(reader, asdict(config), "pretrained", beside=beside)
    pictures(run, reader, subwords, corpus.held_out)

    lines, wanted = zip(*corpus.test, strict=True)
    fresh = models.BERTClassifier(models.BERT(config), len(MODULES))
    for name, model in (("fine-tuned", classifier), ("from nothing", fresh)):
        fit(run, name, model, subwords, corpus.train)
        guesses = predict(model, subwords, lines)
        run.score(f"held-out lines told, {name}", np.mean(guesses == wanted), better="higher")
        if name == "fine-tuned":
            settings = {**asdict(config), "classes": len(MODULES)}
            run.checkpoint(model, settings, beside={**beside, "classes": MODULES})
            title = "From which module is this line?"
            run.figure("confusion", viz.confusion_matrix(wanted, guesses, MODULES, title=title))


def load(labels: int, every: int, generator: np.random.Generator) -> Corpus:
    """The library's lines; the last quarter of each of MODULES is held out.

    Labelled lines occur once in the whole library: `labels` of each module, and 100 held out. Of the modules
    without labels, one file in `every` is read.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    modules: dict[str, list[str]] = {name: [] for name in MODULES}
    for number, file in enumerate(data.stdlib_files()):
        name = file.relative_to(root).parts[0].removesuffix(".py")
        if name in MODULES or (number % every == 0 and name not in ("encodings", "pydoc_data")):
            text = file.read_text("utf-8", "ignore").split("\n")
            modules.setdefault(name, []).extend(line.strip() for line in text if line.strip())
    seen = Counter(line for lines in modules.values() for line in lines)
    corpus = Corpus([], [], [], [])
    for name, lines in modules.items():
        cut = 3 * len(lines) // 4 if name in MODULES else len(lines)
        for part, whole in ((lines[:cut], corpus.text), (lines[cut:], corpus.held_out)):
            whole += part
        if name not in MODULES:
            continue
        for part, chosen, count in (
            (lines[:cut], corpus.train, labels),
            (lines[cut:], corpus.test, 100),
        ):
            telling = [line for line in part if len(line) >= SHORTEST and seen[line] == 1]
            rows = generator.permutation(len(telling))[:count]
            chosen += [(telling[i], MODULES.index(name)) for i in rows]
    return corpus


def update(optimizer: optim.Optimizer, schedule: WarmupCosineLR, loss: Any) -> None:
    """One step down the loss."""
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    schedule.step()


def as_input(subwords: data.Subwords, lines: Sequence[str]) -> tuple[Ids, NDArray[np.bool_]]:
    """Ids with the first token and padding, and where the padding is."""
    ids = data.padded([[BOS, *found[: LENGTH - 2], EOS] for found in subwords.encode(lines)])
    return ids, ids == PAD


def fit(
    run: Run,
    name: str,
    classifier: models.BERTClassifier,
    subwords: data.Subwords,
    examples: Sequence[tuple[str, int]],
) -> None:
    """Learns the labels, with dropout against learning them by heart."""
    for module in classifier.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    lines, labels = [line for line, _ in examples], np.array([label for _, label in examples])
    steps = run.pick(15 * len(lines) // 32, 40)
    optimizer = optim.AdamW(classifier.parameters(), run.pick(1e-3, 3e-3), weight_decay=0.05)
    schedule = WarmupCosineLR(optimizer, steps // 10, steps)
    batches = data.shuffled(len(lines), 32, run.generator)
    for _ in run.steps(steps, label="classification"):
        rows = next(batches)
        ids, padding = as_input(subwords, [lines[i] for i in rows])
        loss = classifier(ids, labels[rows], padding)
        update(optimizer, schedule, loss)
        run.log(**{name: loss})
    classifier.eval()


def predict(
    classifier: models.BERTClassifier, subwords: data.Subwords, lines: Sequence[str]
) -> Ids:
    """The likeliest module of each line."""
    found = []
    with no_grad():
        for start in range(0, len(lines), 100):
            ids, padding = as_input(subwords, lines[start : start + 100])
            found.append(classifier(ids, padding=padding).numpy().argmax(-1))
    return np.concatenate(found)


def visible(token: str) -> str:
    """A subword without the space at its head; a space alone stays."""
    return token.removeprefix(SPACE) or "␣"


def pictures(
    run: Run, reader: models.BERTMaskedLM, subwords: data.Subwords, lines: Sequence[str]
) -> None:
    """Attention over a held-out line, and guesses for a masked token in some."""
    shown: list[str] = []
    mask = len(subwords)
    for i in run.generator.permutation(len(lines)):
        ids, _ = as_input(subwords, [lines[i]])
        if not 8 <= ids.shape[1] <= 18:
            continue
        place = int(run.generator.integers(2, ids.shape[1] - 1))
        hidden = ids.copy()
        hidden[0, place] = mask
        with no_grad():
            best = np.argsort(-reader(hidden).numpy()[0, place, :mask])[:4]
        tokens = subwords.tokens(ids[0, 1:-1])
        answer = tokens[place - 1]
        tokens[place - 1] = (SPACE if answer.startswith(SPACE) else "") + "[?]"
        guessed = ", ".join(visible(token) for token in subwords.tokens(best))
        right = "✓" if best[0] == ids[0, place] else " "
        line = "".join(tokens).replace(SPACE, " ").strip()
        shown.append(f"{right} {visible(answer):<12} {guessed:<40} {line}")
        if len(shown) == 24:
            break
    figure = viz.passages(
        {f"  {'masked':<12} {'likeliest guesses':<40} line": "\n".join(shown)},
        title="What stood behind the mask?",
        subtitle="lines that were never trained on",
        width=116,
    )
    run.figure("guesses", figure)
    names = ["[first]", *map(visible, subwords.tokens(ids[0, 1:-1])), "[end]"]
    figure = viz.attention_heads(
        reader.bert.attention_weights(ids)[:, 0],
        names,
        title="Where each subword looks after pre-training",
        subtitle=f"{lines[i]!r}; rows attend to columns",
    )
    run.figure("heads", figure)
