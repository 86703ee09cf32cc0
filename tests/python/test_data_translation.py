"""Catalogues written byte by byte and read back, each cleaning rule, and splits that keep apart."""

from __future__ import annotations

import struct
from collections import Counter

import numpy as np
import pytest

from vectile.data import subwords, translation
from vectile.data.translation import Pair

FRENCH = "Content-Type: text/plain; charset={}\nPlural-Forms: nplurals=2; plural=(n > 1);\n"
POLISH = (
    "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=3; plural=(n==1 ? 0 : "
    "n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);\n"
)


def write_mo(path, messages, header=FRENCH, charset="UTF-8", order="<", revision=0):
    """What msgfmt writes: head, table of keys, table of texts, the strings with their final zeros."""
    entries = sorted({"": header.format(charset), **messages}.items())
    rows = [[text.encode(charset) for text in column] for column in zip(*entries, strict=True)]
    tables, strings = [], b""
    start = 28 + 16 * len(entries)
    for column in rows:
        for text in column:
            tables += [len(text), start + len(strings)]
            strings += text + b"\0"
    head = [0x950412DE, revision, len(entries), 28, 28 + 8 * len(entries), 0, 0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f"{order}{len(head) + len(tables)}I", *head, *tables) + strings)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("charset", ["UTF-8", "ISO-8859-15"])
def test_a_catalogue_is_read_in_either_byte_order_and_its_charset(tmp_path, order, charset):
    messages = {"cancel": "annulé à l'été", "coeur": "cœur"}
    path = write_mo(tmp_path / "a.mo", messages, charset=charset, order=order)
    assert dict(translation.read_mo(path)) == messages


def test_the_stdlib_reads_what_the_test_writes(tmp_path):
    gettext = pytest.importorskip("gettext")
    path = write_mo(tmp_path / "a.mo", {"%d file\0%d files": "%d fichier\0%d fichiers", "a": "b"})
    with path.open("rb") as file:
        catalogue = gettext.GNUTranslations(file)
    assert catalogue.gettext("a") == "b"
    assert catalogue.ngettext("%d file", "%d files", 0) == "%d fichier"


def test_contexts_and_plural_forms(tmp_path):
    messages = {
        "menu\x04Open": "Ouvrir",
        "a\0b": "un\0des",
        "ctx\x04%d file\0%d files": "%d fichier\0%d fichiers",
    }
    assert set(translation.read_mo(write_mo(tmp_path / "a.mo", messages))) == {
        ("Open", "Ouvrir"),
        ("a", "un"),
        ("b", "des"),
        ("%d file", "%d fichier"),
        ("%d files", "%d fichiers"),
    }
    polish = {"%d file\0%d files": "%d plik\0%d pliki\0%d plików"}
    assert list(translation.read_mo(write_mo(tmp_path / "b.mo", polish, POLISH))) == [
        ("%d file", "%d plik"),
        ("%d files", "%d plików"),  # the form for 5
    ]
    japanese = "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=1; plural=0;\n"
    one = {"%d file\0%d files": "%d個"}
    assert [p.target for p in translation.read_mo(write_mo(tmp_path / "c.mo", one, japanese))] == [
        "%d個",
        "%d個",
    ]


def test_files_that_are_no_catalogue_are_named(tmp_path):
    good = write_mo(tmp_path / "good.mo", {"a": "b"}).read_bytes()
    word = struct.Struct("<I")
    broken = {
        "empty": b"",
        "text": b"msgid",
        "head": good[:10],
        "tables": good[:40],
        "strings": good[:-20],
        "count": good[:8] + word.pack(2**31) + good[12:],
        "place": good[:12] + word.pack(2**32 - 8) + good[16:],
        "revision": good[:4] + word.pack(2 << 16) + good[8:],
        "charset": write_mo(tmp_path / "c.mo", {"a": "b"}, "charset=none-such;\n").read_bytes(),
        "plural": write_mo(tmp_path / "p.mo", {"a": "b"}, "plural=import os;\n").read_bytes(),
        "bytes": good.replace(b"b\0", b"\xff\0"),
    }
    for name, content in broken.items():
        path = tmp_path / f"{name}.mo"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.mo: expected a gettext catalogue"):
            list(translation.read_mo(path))


@pytest.mark.sanitize
def test_no_bytes_crash_the_reader(tmp_path):
    good = write_mo(tmp_path / "good.mo", {"ab\0cd": "ef\0gh", "x": "y"}).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "bad.mo"
    for _ in range(150):
        content = bytearray(good)
        for place in rng.integers(0, len(good), rng.integers(1, 6)):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content[: rng.integers(0, len(good) + 1)])
        try:
            list(translation.read_mo(path))
        except ValueError as error:
            assert "bad.mo: expected a gettext catalogue" in str(error)


def test_catalogues_are_found_once_and_without_lists_of_names(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name in ((one, "b"), (one, "iso_639-3"), (two, "a"), (two, "b")):
        write_mo(folder / "fr/LC_MESSAGES" / f"{name}.mo", {"x": "y"})
    write_mo(one / "de/LC_MESSAGES/c.mo", {"x": "y"})
    (one / "fr/LC_MESSAGES/link.mo").symlink_to("b.mo")
    found = translation.catalogues("fr", (one, two, tmp_path / "none"))
    assert [path.relative_to(tmp_path).parts[::3] for path in found] == [
        ("two", "a.mo"),
        ("one", "b.mo"),
        ("two", "b.mo"),
    ]
    assert [path.name for path in translation.catalogues("de", [one])] == ["c.mo"]


def test_no_catalogue_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(translation, "LOCALE_FOLDERS", (tmp_path,))
    with pytest.raises(FileNotFoundError, match=r"xx/LC_MESSAGES.*apt install.*--pairs") as error:
        translation.load_pairs("xx")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("  two\nlines\t here ", "deux lignes\xa0ici", ("two lines here", "deux lignes ici")),
        ("open %-10s: %ld", "ouvrir %2$10s : %1$'lu", ("open %s: %d", "ouvrir %s : %d")),
        ("%(count)d files", "%(count)d fichiers", ("%d files", "%d fichiers")),
        ("100%% sure", "sûr à 100%%", ("100% sure", "sûr à 100%")),
        ("100% of it", "100% du total", ("100% of it", "100% du total")),
        ("%s and %s", "seulement %s", None),
        ("%s file", "%d fichier", None),
        ("_File", "_Fichier", ("File", "Fichier")),
        ("E_xit now", "_Quitter maintenant", ("Exit now", "Quitter maintenant")),
        ("&Open file", "Ouvrir le &fichier", ("Open file", "Ouvrir le fichier")),
        ("_File", "ファイル(_F)", ("File", "ファイル")),
        ("set max_size first", "d'abord max_size", ("set max_size first", "d'abord max_size")),
        ("AT&T line", "ligne AT&T", ("AT&T line", "ligne AT&T")),
        ("this && that", "ceci && cela", ("this && that", "ceci && cela")),
        (
            "  -v, --verbose   say more",
            "  -v, --verbose   en dire plus",
            ("say more", "en dire plus"),
        ),
        ("“open” it’s…", "«ouvrir» l’été…", ('"open" it\'s...', "« ouvrir » l'été...")),
        ("OK fine", "ok Fine", None),
        ("%s: %d", "%s : %d", None),
        ("a word", "12", None),
        ("", "", None),
    ],
)
def test_cleaning(source, target, expected):
    assert translation.clean(Pair(source, target)) == expected


def test_sources_come_once_with_their_most_frequent_target_and_within_limits():
    pairs = [
        Pair("open it", "l'ouvrir"),
        Pair("open  it", "ouvrez-le"),
        Pair("open it", "ouvrez-le"),
        Pair("close it", "le fermer"),
        Pair("close it", "fermez-le"),
        Pair("word " * 30, "mot " * 30),
        Pair("a" * 200, "b" * 200),
        Pair("short one", "une explication qui n'est pas une traduction"),
    ]
    assert translation.prepare(pairs) == [("open it", "ouvrez-le"), ("close it", "le fermer")]


def test_pairs_from_a_file(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text(
        "hello there\tbonjour à vous\r\n\ngood night\tbonne nuit\tby someone\n", "utf-8"
    )
    expected = [("hello there", "bonjour à vous"), ("good night", "bonne nuit")]
    assert list(translation.read_pairs(path)) == expected == translation.load_pairs(file=path)
    path.write_text("hello there\tbonjour\nno tab here\n")
    with pytest.raises(ValueError, match=r"pairs\.tsv: line 2: expected source, tab, target"):
        translation.load_pairs(file=path)


def sentences(count=4000, seed=0):
    rng = np.random.default_rng(seed)
    words = ["open", "close", "file", "not", "found", "error", "in", "line", "user", "path"]
    found = {" ".join(rng.choice(words, rng.integers(2, 7))) for _ in range(count)}
    return [Pair(text, text.upper()) for text in sorted(found)]


def test_a_split_is_fixed_and_keeps_like_sources_together():
    pairs = sentences()
    parts = translation.split_pairs(pairs, 0.1, 0.2)
    assert Counter(pairs) == Counter(pair for part in parts for pair in part)
    for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        assert abs(len(part) / len(pairs) - share) < 0.03
    assert translation.split_pairs(pairs, 0.1, 0.2) == parts
    fewer = translation.split_pairs(pairs[::3], 0.1, 0.2)
    assert all(set(a) <= set(b) for a, b in zip(fewer, parts, strict=True))
    alike = [
        Pair(form.format(pair.source), "x")
        for pair in pairs
        for form in ("{}", "%s: {}.", "{} (%d)", "  {} 12!")
    ]
    for part in translation.split_pairs(alike, 0.1, 0.2):
        assert len(part) % 4 == 0
    for fractions in ((0.0, 0.1), (0.1, 1.0), (0.5, 0.5), (float("nan"), 0.1)):
        with pytest.raises(ValueError, match="expected fractions"):
            translation.split_pairs(pairs, *fractions)


def test_subwords_come_back_as_text():
    pytest.importorskip("tokenizers", reason="subwords need vectile[recipes]")
    texts = ["L'été, déjà : « %s »", "open %s: 12 files", "ouvrir le fichier %s", "x  y"] * 5
    units = subwords.Subwords.train(texts, 90)
    assert 4 < len(units) <= 90
    ids = units.encode(texts)
    assert units.decode(ids)[:3] == texts[:3]
    assert units.encode(texts, bos=True, eos=True) == [[1, *found, 2] for found in ids]
    assert units.encode(texts, eos=True) == [[*found, 2] for found in ids]
    assert units.decode([[1, *ids[1], 2, 0, 0]]) == [texts[1]]
    assert "▁%s" in units.tokens(ids[2])
    assert units.tokens([0, 1, 2, 3]) == list(subwords.SPECIAL)
    again = subwords.Subwords(str(units))
    assert again.encode(texts) == ids and len(again) == len(units)
    assert units.encode(["\N{SNOWMAN}"])[0][-1] == subwords.UNK
    assert units.encode([]) == [] and units.encode([""]) == [[]]
    with pytest.raises(IndexError, match="expected in"):
        units.tokens([len(units)])
    with pytest.raises(ValueError, match="size: expected more than 4, got 4"):
        subwords.Subwords.train(texts, 4)
    with pytest.raises(ValueError, match="expected what str"):
        subwords.Subwords("{}")


def test_learning_subwords_is_deterministic():
    pytest.importorskip("tokenizers", reason="subwords need vectile[recipes]")
    texts = [pair.source for pair in sentences(300)]
    assert str(subwords.Subwords.train(texts, 60)) == str(subwords.Subwords.train(texts, 60))


def test_padding():
    np.testing.assert_array_equal(
        subwords.padded([[5, 6, 7], [], [8]], 9), [[5, 6, 7], [9] * 3, [8, 9, 9]]
    )
    assert subwords.padded([[]]).shape == (1, 1) and subwords.padded([]).shape == (0, 1)


def test_token_batches_hold_every_index_once_within_their_size():
    sizes = np.random.default_rng(0).integers(1, 40, 503)
    sizes[7] = 300

    def epochs(seed):
        batches = subwords.token_batches(sizes, 200, np.random.default_rng(seed))
        found = []
        for _ in range(2):
            found.append([next(batches)])
            while sum(map(len, found[-1])) < len(sizes):
                found[-1].append(next(batches))
        return found

    first, second = epochs(3)
    for batches in (first, second):
        assert sorted(np.concatenate(batches)) == list(range(503))
        for batch in batches:
            assert len(batch) * sizes[batch].max() <= 200 or len(batch) == 1
        assert sum(sizes) / sum(len(batch) * sizes[batch].max() for batch in batches) > 0.9
    again, _ = epochs(3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    for bad, tokens in (([], 5), ([[1]], 5), ([1], 0)):
        with pytest.raises(ValueError, match="token_batches"):
            next(subwords.token_batches(bad, tokens, np.random.default_rng(0)))
