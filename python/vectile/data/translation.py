"""Sentence pairs for translation: from the gettext catalogues of a Linux system, or from a file.

Programs ship their messages in English and translated, as `LOCALE/xx/LC_MESSAGES/*.mo`: tens of thousands of
pairs for a well-served language, on the disk already and the same wherever the same packages are.
"""

from __future__ import annotations

import re
import struct
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from gettext import c2py
from os import PathLike
from pathlib import Path
from typing import NamedTuple

LOCALE_FOLDERS = tuple(
    dict.fromkeys(Path(prefix, "share", "locale") for prefix in ("/usr", "/usr/local", sys.prefix))
)

NAME_LISTS = ("iso_", "xkeyboard-config")
"""Catalogues of names (of countries, languages, keyboards): thousands of entries, hardly a sentence."""

Roots = Iterable[str | PathLike[str]]


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str


def load_pairs(lang: str = "fr", file: str | PathLike[str] | None = None) -> list[Pair]:
    """Clean pairs, each source once: of `file` (`read_pairs`), else of the system's catalogues for `lang`.

    FileNotFoundError where the system has no catalogue of that language.
    """
    if file is not None:
        return prepare(read_pairs(file))
    files = catalogues(lang)
    if not files:
        raise FileNotFoundError(
            f"no gettext catalogue */{lang}/LC_MESSAGES/*.mo in "
            f"{', '.join(map(str, LOCALE_FOLDERS))}: install packages that ship some (Debian: apt install "
            "libc-l10n git gettext binutils gnupg-l10n postgresql-client; trimmed images first remove "
            "the path-exclude line from /etc/dpkg/dpkg.cfg.d/), or give a file with --pairs"
        )
    return prepare(pair for path in files for pair in read_mo(path))


def catalogues(lang: str = "fr", folders: Roots | None = None) -> list[Path]:
    """The .mo files of language `lang`, sorted by name; each once, and without lists of names."""
    found: dict[Path, Path] = {}
    for folder in LOCALE_FOLDERS if folders is None else folders:
        for path in sorted(Path(folder, lang, "LC_MESSAGES").glob("*.mo")):
            if not path.name.startswith(NAME_LISTS):
                found.setdefault(path.resolve(), path)  # an alias is a link to the same file
    return sorted(found.values(), key=lambda path: (path.name, str(path)))


def read_mo(path: str | PathLike[str]) -> Iterator[Pair]:
    """The messages of a binary catalogue (GNU gettext manual, "The Format of GNU MO Files"), as they are.

    Contexts are left out. A message with plural forms gives two pairs: the singular with the form for 1, the
    plural with the form for 5, by the catalogue's own rule. ValueError for a file that is no catalogue.
    """
    content = Path(path).read_bytes()
    try:
        messages = _messages(content)
        header = dict(messages).get(b"", b"").decode("ascii", "replace")
        charset = re.search(r"charset=([\w.:-]+)", header)
        encoding = charset[1] if charset and charset[1] != "CHARSET" else "utf-8"
        rule = re.search(r"plural\s*=\s*([^;\n]+)", header)
        form = c2py(rule[1].strip() if rule else "n != 1")
        decoded = [(key.decode(encoding), text.decode(encoding)) for key, text in messages if key]
    except (struct.error, LookupError, ValueError) as error:
        raise ValueError(f"{path}: expected a gettext catalogue ({error})") from error
    for key, text in decoded:
        singular, *plural = key.rpartition("\x04")[2].split("\0")
        forms = text.split("\0")
        for source, number in zip((singular, *plural), (1, 5), strict=False):
            yield Pair(source, forms[min(form(number), len(forms) - 1)])


def _messages(content: bytes) -> list[tuple[bytes, bytes]]:
    """Keys and texts: two tables of (size, start), whose places the file's head gives."""
    orders = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}
    order = orders.get(content[:4])
    if order is None:
        raise struct.error("it does not start with the magic number")
    revision, count, sources, targets = struct.unpack_from(f"{order}4I", content, 4)
    if revision >> 16 > 1:
        raise struct.error(f"its major revision is {revision >> 16}")
    if 8 * count > len(content):
        raise struct.error("it is shorter than its tables")

    def strings(table: int) -> Iterator[bytes]:
        spans = struct.unpack_from(f"{order}{2 * count}I", content, table)
        for size, start in zip(spans[::2], spans[1::2], strict=True):
            if start + size > len(content):
                raise struct.error("a message ends beyond its end")
            yield content[start : start + size]

    return list(zip(strings(sources), strings(targets), strict=True))


def read_pairs(file: str | PathLike[str]) -> Iterator[Pair]:
    """Pairs from UTF-8 text: source, tab, target on each line; further columns and empty lines do not count.

    ValueError names the line that has no tab.
    """
    with open(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            source, *rest = line.rstrip("\r\n").split("\t")
            if not rest:
                raise ValueError(f"{file}: line {number}: expected source, tab, target, got no tab")
            yield Pair(source, rest[0])


# ---- cleaning ------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(
    r"%(?:\d+\$)?(?:\(\w+\))?[-+#0']*(?:\*|\d+)?(?:\.(?:\*|\d+)?)?(?:hh|h|ll|l|q|j|z|t|L|I)?"
    r"[diouxXeEfFgGaAcCsSpm%]"
)
_OPTION = re.compile(r"\s*-\S.*?(?:\s{2,}|\t)")
_SHORTCUT = re.compile(r"\s*\([_&]\w\)")
_WORD = re.compile(r"[^\W\d_]{2,}")
_PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "‑": "-"})


def prepare(
    pairs: Iterable[Pair], max_words: int = 25, max_characters: int = 160, max_ratio: float = 3.0
) -> list[Pair]:
    """Cleaned pairs, each source once with its most frequent target (the first among equals).

    Left out: what `clean` drops, pairs with more than `max_words` or `max_characters` on a side, and pairs of
    which one side has over `max_ratio` times the other's characters (10 aside): seldom a translation.
    """
    found: dict[str, Counter[str]] = {}
    for pair in pairs:
        kept = clean(pair)
        if kept is None:
            continue
        short, long = sorted(map(len, kept))
        if (
            long <= max_characters
            and long <= max_ratio * short + 10
            and max(len(text.split()) for text in kept) <= max_words
        ):
            found.setdefault(kept.source, Counter())[kept.target] += 1
    return [Pair(source, targets.most_common(1)[0][0]) for source, targets in found.items()]


def clean(pair: Pair) -> Pair | None:
    """The pair as plain text on one line each, or None where there is nothing to learn from it.

    Printf placeholders become %s (text) or %d (numbers), and a pair whose sides hold different ones is
    dropped. Accelerator marks (`_File`, `E_xit`, `&File`), the option at the head of a usage line,
    typographic quotes and runs of white space are normalised. Pairs of equal sides, or with a side that has
    no word, are dropped.
    """
    source, target = pair
    options = _OPTION.match(source), _OPTION.match(target)
    if options[0] and options[1]:
        source, target = source[options[0].end() :], target[options[1].end() :]
    source, target = (_PLACEHOLDER.sub(_placeholder, text) for text in (source, target))
    if Counter(re.findall("%[sd]", source)) != Counter(re.findall("%[sd]", target)):
        return None
    for mark in "_&":
        source, target = _without_accelerator(source, target, mark)
    source, target = (
        " ".join(unicodedata.normalize("NFC", text).translate(_PLAIN).split())
        for text in (source, target)
    )
    target = re.sub(r"« ?(.*?) ?»", r"« \1 »", target)
    if source.casefold() == target.casefold():
        return None
    if not (_WORD.search(source) and _WORD.search(target)):
        return None
    return Pair(source, target)


def _placeholder(match: re.Match[str]) -> str:
    kind = match[0][-1]
    return "%" if kind == "%" else "%s" if kind in "cCsSm" else "%d"


def _without_accelerator(source: str, target: str, mark: str) -> tuple[str, str]:
    """Take out the one mark that either side has before a letter, at words that differ.

    A word that stands in both, such as `max_files` or `AT&T`, is a name. Japanese and Chinese put the letter
    behind the text, in parentheses.
    """
    marked = [re.findall(rf"\w*{mark}(?=[^\W\d_])\w*", text) for text in (source, target)]
    if [len(words) for words in marked] != [1, 1]:
        return source, target
    here, there = marked[0][0], marked[1][0]
    if here == there or here.count(mark) > 1 or there.count(mark) > 1:
        return source, target
    source = source.replace(here, here.replace(mark, ""))
    if _SHORTCUT.search(target):
        return source, _SHORTCUT.sub("", target)
    return source, target.replace(there, there.replace(mark, ""))


# ---- splitting -----------------------------------------------------------------------------------------


class Split(NamedTuple):
    """Pairs for training, for choosing, and for the final score."""

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]


def split_pairs(pairs: Iterable[Pair], validation: float = 0.02, test: float = 0.03) -> Split:
    """Parts that share no source, not even up to case, digits, punctuation and placeholders.

    A pair's part follows from its source alone (a checksum of its words), so it stays the same when other
    pairs come and go. ValueError for fractions outside of (0, 1) or that leave no training part.
    """
    if not (0.0 < validation < 1.0 and 0.0 < test < 1.0 and validation + test < 1.0):
        raise ValueError(
            "split_pairs: validation, test: expected fractions in (0, 1) of sum < 1, "
            f"got {validation}, {test}"
        )
    parts = Split([], [], [])
    for pair in pairs:
        words = " ".join(_WORD.findall(pair.source.replace("%s", " ").replace("%d", " ")))
        place = zlib.crc32(words.casefold().encode()) / 2**32
        parts[1 + (place >= validation) if place < validation + test else 0].append(pair)
    return parts
