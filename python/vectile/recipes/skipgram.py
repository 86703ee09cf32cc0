"""Skip-gram word vectors of Python's library: words that stand in like places get like vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from vectile import data, models, no_grad, optim, viz
from vectile.extras import require
from vectile.models.skipgram import (
    Ids,
    NoiseSampler,
    Vocabulary,
    analogy,
    keep_probability,
    nearest,
    pairs,
)
from vectile.recipes import Run, recipe

ANALOGIES = """
min max lower upper | min max start end | lower upper min max | left right first last
x y row column | left right row column | width height column row | x y width height
old new src dst | source destination src dst | read write load dump | read write recv send
read write input output | input output stdin stdout | recvfrom sendto recv send
encode decode encoder decoder | encode decode compress decompress | encode decode dumps loads
encoder decoder encode decode | get set getattr setattr | key value keys values
argument arguments parameter parameters | argument arguments key keys
file files directory directories | method methods function functions
class classes method methods | exception exceptions error errors | return returns raise raises
return returned raise raised | call called return returned | is are was were
client server request response | push pop append remove | acquire release lock unlock
open close start stop | hour minute minute second | hour minute month day | year month month day
one two first second | two three second third | before after previous next
before after start end | begin end start stop | prefix suffix startswith endswith
red green green blue | horizontal vertical x y | parent child root node | int float long double
str bytes unicode ascii | windows linux nt posix | import export load save | true false yes no
__lt__ __gt__ __le__ __ge__ | __enter__ __exit__ acquire release
__getitem__ __setitem__ __getattr__ __setattr__ | __add__ __radd__ __sub__ __rsub__
"""
"""What is to the third word as the second is to the first? Written down before any training."""

GROUPS = {
    "types": "int float str bytes list tuple dict set",
    "exceptions": "valueerror typeerror keyerror indexerror oserror attributeerror",
    "files": "path directory filename read write seek readline",
    "network": "socket host port server connect recv request",
    "time": "year month hour second date timezone",
    "operators": "__add__ __sub__ __lt__ __gt__ __or__ __getitem__ __setitem__",
    "widgets": "width button canvas label menu font",
    "threads": "thread lock acquire release queue wait semaphore",
}


@recipe(
    "skipgram",
    "word vectors: skip-gram with negative sampling on the words of Python's library",
    needs=("sklearn",),
)
def train(
    run: Run,
    *,
    dim: Annotated[int, "numbers in a word's vector"] = 96,
    window: Annotated[int, "words to each side at most"] = 5,
    negatives: Annotated[int, "wrong contexts for each true one"] = 5,
    epochs: Annotated[int, "passes over the text"] = 10,
    size: Annotated[int, "pairs in a batch"] = 4096,
) -> None:
    training, held_out, vocabulary = words(run.pick(16 << 20, 1 << 19), run.pick(10, 20))
    run.say(f"{len(training):,} words to train on, {len(vocabulary):,} different ones")
    size = run.pick(size, 512)
    model = models.SkipGram(len(vocabulary), dim)
    noise = NoiseSampler(vocabulary.counts)
    keep = keep_probability(vocabulary.counts, 1e-4)
    optimizer = optim.Adam(model.parameters(), lr=run.pick(3e-3, 2e-2))
    first = pairs(training, window, run.generator, keep)
    steps = epochs * max(1, len(first[0]) // size)

    def batches() -> Iterator[tuple[Ids, Ids]]:
        """Every epoch thins the text and draws its windows anew."""
        centres, contexts = first
        while True:
            for start in range(0, max(1, len(centres) - size + 1), size):
                yield centres[start : start + size], contexts[start : start + size]
            centres, contexts = pairs(training, window, run.generator, keep)

    batch = batches()
    for step in run.steps(steps):
        centres, contexts = next(batch)
        wrong = noise((len(centres), negatives), run.generator)
        optimizer.param_groups[0]["lr"] *= 1 - 1 / (steps - step + 1)  # falls linearly to zero
        loss = model.loss(centres, contexts, wrong)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss)

    rng = np.random.default_rng(run.seed)
    true = [part[:20000] for part in pairs(held_out, window, rng, keep)]
    with no_grad():
        run.score(
            "held-out loss, nats",
            model.loss(true[0], true[1], noise((len(true[0]), negatives), rng)).item(),
            better="lower",
        )
        candidates = np.concatenate([true[1][:, None], noise((len(true[0]), 99), rng)], axis=1)
        scores = model(true[0], candidates).numpy()
    rank = 1 + (scores[:, 1:] >= scores[:, :1]).sum(1)
    run.score(
        "held-out: true context among the best 10 of 100 (chance 0.1)",
        (rank <= 10).mean(),
        better="higher",
    )
    settings = {"vocab_size": len(vocabulary), "dim": dim}
    run.checkpoint(model, settings, beside={"words": vocabulary.words})
    vectors = model.vectors()
    questions(run, vocabulary, vectors)
    pictures(run, vocabulary, vectors)


def words(limit: int, min_count: int) -> tuple[Ids, Ids, Vocabulary]:
    """(training, held-out) ids of the library's words and identifiers, and their vocabulary.

    Every twentieth stretch of 2,000 words is held out.
    """
    files = [
        file for file in data.stdlib_files() if "encodings" not in file.parts
    ]  # those are tables
    text = bytes(data.read_bytes(files, limit)).decode("utf-8", "ignore").lower()
    found = re.findall(r"[a-z_]\w*", text)
    part = np.arange(len(found)) // 2000 % 20 == 19
    seen = [word for word, kept in zip(found, ~part, strict=True) if kept]
    vocabulary = Vocabulary(seen, min_count)
    return vocabulary.encode(seen), vocabulary.encode(np.array(found)[part].tolist()), vocabulary


def questions(run: Run, vocabulary: Vocabulary, vectors: NDArray[Any]) -> None:
    """Scores the analogies whose words are known, and shows some."""
    lines, first, fifth, asked = [], 0, 0, 0
    for question in re.split(r"[|\n]", ANALOGIES.strip()):
        terms = question.split()
        if any(word not in vocabulary.index for word in terms):
            continue
        a, b, c, wanted = (vocabulary.index[word] for word in terms)
        near = [i for i, _ in analogy(vectors, a, b, c, count=5)]
        asked, first, fifth = asked + 1, first + (near[0] == wanted), fifth + (wanted in near)
        mark = "✓" if near[0] == wanted else "·" if wanted in near else " "
        instead = ", ".join(vocabulary.words[i] for i in near[:2])
        answer = terms[3] if near[0] == wanted else f"{terms[3]}   ← {instead}"
        lines.append(f"{mark} {terms[0]} : {terms[1]} = {terms[2]} : {answer}")
    if not asked:
        return
    run.score(f"analogies right, of {asked}", first / asked, better="higher")
    run.score("analogies with the answer among five", fifth / asked, better="higher")
    half = -(-len(lines) // 2)
    figure = viz.passages(
        {"  a : b = c : expected": "\n".join(lines[:half]), " ": "\n".join(lines[half:])},
        title="What is to c as b is to a?",
        subtitle=f"{first} of {asked} right (✓), {fifth} with the answer among the nearest five (·); "
        "after the arrow what came first instead",
        width=74,
    )
    run.figure("analogies", figure)


def pictures(run: Run, vocabulary: Vocabulary, vectors: NDArray[Any]) -> None:
    """A map of words by topic, and a table of nearest neighbours."""
    manifold = require("sklearn.manifold", "the map of words", "recipes")
    shown = [
        (w, group)
        for group, members in GROUPS.items()
        for w in members.split()
        if w in vocabulary.index
    ]
    rows = vectors[[vocabulary.index[w] for w, _ in shown]]
    plane = manifold.TSNE(
        perplexity=min(12.0, (len(rows) - 1) / 3),
        metric="cosine",
        init="random",
        random_state=run.seed,
    )
    figure = viz.embedding_map(
        plane.fit_transform(rows),
        [w for w, _ in shown],
        classes=[group for _, group in shown],
        title="Words that stand in like places lie together",
        subtitle="t-SNE of skip-gram vectors; the colours were not trained on",
    )
    run.figure("map", figure)
    lines = []
    for members in GROUPS.values():
        for word in members.split()[:4]:
            if word in vocabulary.index:
                i = vocabulary.index[word]
                near = [vocabulary.words[j] for j, _ in nearest(vectors, vectors[i], 6, (i,))]
                lines.append(f"{word:>16}   {'  '.join(near)}")
    figure = viz.passages(
        {"            word   nearest by cosine": "\n".join(lines)},
        title="Nearest neighbours",
        width=110,
    )
    run.figure("neighbours", figure)
