"""Words as people type them: folding, cutting, and that one text and many are read alike."""

from __future__ import annotations

import random
import sys
from collections.abc import Collection

import polars as pl
import pytest

from pr2_jax.data.logs import text as text_rules
from pr2_jax.data.logs.text import Lexicon, Match, normalise, normalised, tokens_of

TEXTS = [
    None,
    "space",
    "comedy",
    "喜剧",
    "电影",
    "New York",
    "喜剧电影院",
    "T恤",
    "Sci-Fi",
    "20",
    "SPACE",
    "กิน",
    None,
    "!",
]
RAW = {70: 1, 80: 2, 120: 12}  # row 12 has no text


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(TEXTS, lambda raw: RAW.get(raw, 0))


@pytest.mark.parametrize(
    ("typed", "folded"),
    [
        ("Space Comedy!", "space comedy"),
        ("  space\t\n comedy ", "space comedy"),
        ("space-comedy_night/x.y", "space comedy night x y"),
        ("ｓｐａｃｅ　ﾈｺ", "space ネコ"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("ΣΟΦΟΣ", "σοφοσ"),
        ("Don't DON’T don´t donʼt", "dont dont dont dont"),
        ("rock'n'roll 'quoted'", "rocknroll quoted"),
        ("#搞笑#日常 @name", "搞笑 日常 name"),
        ("c++ & C#", "c c"),
        ("love❤\ufe0f👩\u200d🚀x", "love x"),
        ("1\ufe0f\u20e32", "1 2"),
        ("co\u00adop zero\u200bwidth", "coop zero width"),
        ("e\u0301té", "été"),
        ("हिन्दी", "हिन्दी"),
        ("Æ ﬁ Ⅳ ½", "æ fi iv 1 2"),
        ("!!! …", ""),
        ("", ""),
        ("\ud800x\x00y", "x y"),
    ],
)
def test_folding(typed, folded):
    assert normalise(typed) == folded


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("喜剧电影", [("喜剧", 3), ("电影", 4)]),
        ("喜剧电影院线", [("喜剧电影院", 6), ("线", 0)]),
        ("大片喜剧好", [("大片", 0), ("喜剧", 3), ("好", 0)]),
        ("大 片", [("大", 0), ("片", 0)]),
        ("电 影", [("电", 0), ("影", 0)]),
        ("space-comedy", [("space", 1), ("comedy", 2)]),
        ("Space Comedy!", [("space", 1), ("comedy", 2)]),
        ("ｓｐａｃｅ", [("space", 1)]),
        ("new york new", [("New York", 5), ("new", 0)]),
        ("看new-york", [("看", 0), ("New York", 5)]),
        ("sci fi", [("Sci-Fi", 8)]),
        ("买t恤衫", [("买", 0), ("T恤", 7), ("衫", 0)]),
        ("iphone手机壳", [("iphone", 0), ("手机壳", 0)]),
        ("spaceman spa", [("spaceman", 0), ("spa", 0)]),
        ("กินกิ", [("กิน", 11), ("กิ", 0)]),
        ("กิ", [("กิ", 0)]),
        ("20", [("20", 9)]),
        ("70 80", [("space", 1), ("comedy", 2)]),
        ("７０", [("space", 1)]),
        ("20 99", [("20", 9), ("99", 0)]),
        ("[70, 80]", [("space", 1), ("comedy", 2)]),
        ("[20]", [("20", 0)]),
        ("120 space", [("120", 12), ("space", 1)]),
        ("70 nights", [("70", 0), ("nights", 0)]),
        ("7.0", [("7", 0), ("0", 0)]),
        ("9" * 30, [("9" * 30, 0)]),
        ("[space]", [("space", 1)]),
        ("!", []),
        (" ", []),
    ],
)
def test_words_of_a_query(lexicon, typed, words):
    assert lexicon.match(typed) == [Match(text, row) for text, row in words]


def test_words_by_id(lexicon):
    assert [lexicon.of_id(raw) for raw in (70, 120, 5)] == [Match("space", 1), Match("120", 12), Match("5", 0)]


def test_an_empty_lexicon_knows_nothing():
    assert Lexicon([None]).match("Space 喜剧 5") == [Match("space", 0), Match("喜剧", 0), Match("5", 0)]


@pytest.mark.parametrize(
    ("text", "known", "words"),
    [
        ("Space, space!", (), ["space", "space"]),
        ("喜剧电影", (), ["喜", "剧", "电", "影"]),
        ("喜剧大电影", ("喜剧", "电影"), ["喜剧", "大", "电影"]),
        ("iphone手机壳", ("手机",), ["iphone", "手机", "壳"]),
        ("iPhone手机壳", ("IPHONE手机",), ["iphone手机", "壳"]),
        ("in new  york", ("new york", "new"), ["in", "new york"]),
        ("コーヒー", (), ["コー", "ヒー"]),
        ("กินข้าว", ("กิน",), ["กิน", "ข้", "า", "ว"]),
        ("เขา ខ្មែរ မြန်", (), ["เ", "ข", "า", "ខ្មែ", "រ", "မြ", "န်"]),
        ("한국영화 hindi हिन्दी 2024年", (), ["한국영화", "hindi", "हिन्दी", "2024", "年"]),
        ("", (), []),
    ],
)
def test_tokens(text, known, words):
    assert tokens_of(pl.Series([text]), known).to_list() == [words] == [_spelt(text, known)]


def _spelt(text: str, known: Collection[str] = ()) -> list[str]:
    """The words of one text, from the left: what `tokens_of` finds by expressions."""
    normal = normalise(text)
    return [normal[begin:end] for begin, end in text_rules._longer(known).spans(normal)]


BLOCKS = [(0, 0x80)] * 4 + [
    *((0x80, 0x250), (0x2B0, 0x400), (0x400, 0x530), (0x590, 0x700), (0x900, 0x980), (0xE00, 0xF00), (0x1000, 0x1200)),
    *((0x1780, 0x1810), (0x1E00, 0x2070), (0x20D0, 0x2100), (0x2F00, 0x3100), (0x4E00, 0x4E20), (0xAC00, 0xAC10)),
    *((0xF900, 0xF920), (0xFE00, 0xFFF0), (0x1F300, 0x1F350), (0x20000, 0x20010), (0xE0100, 0xE0110)),
]


def _random_texts(count: int, most: int) -> list[str]:
    draw = random.Random(3)
    signs = [chr(draw.randrange(*draw.choice(BLOCKS))) for _ in range(2000)]
    return ["".join(draw.choices(signs, k=draw.randint(0, most))) for _ in range(count)]


def test_one_text_and_many_are_read_alike():
    """Random Unicode, with known words cut from the texts themselves."""
    texts = _random_texts(6000, 10)
    texts += [text + "'" + text for text in texts[:500]] + ["a'b'c'd", "a''b", "_'a`b_", "a\nb", "A\x1cB\x85C\u2028D"]
    known = [text[2:5] for text in texts[::3]] + [text[1:7] for text in texts[::7]]
    folded = [normalise(text) for text in texts]
    assert normalised(pl.Series(texts)).to_list() == folded
    lexicon = tokens_of(pl.Series("t", [*texts, None]), known)
    assert (lexicon.name, lexicon.dtype) == ("t", pl.List(pl.String))
    assert lexicon.to_list()[-1] == []
    some = range(0, len(texts), 250)
    assert [lexicon[at].to_list() for at in some] == [_spelt(texts[at], known) for at in some]
    assert tokens_of(pl.Series(texts)).to_list() == [_spelt(text) for text in texts]


def test_folding_twice_changes_nothing():
    for text in [*map(chr, range(0, sys.maxunicode, 17)), *_random_texts(4000, 6)]:
        folded = normalise(text)
        assert normalise(folded) == folded
        assert "  " not in folded
        assert folded.strip() == folded


def test_tokens_are_what_the_lexicon_finds():
    """A caption's words and the words of the same text typed as a query, where the log has read them all."""
    texts = _random_texts(400, 12)
    known = [text[1:4] for text in texts[::2]]
    cut = tokens_of(pl.Series(texts), known).to_list()
    lexicon = Lexicon([None, *dict.fromkeys([*known, *(word for words in cut for word in words)])])
    for text, words in zip(texts, cut, strict=True):
        found = lexicon.match(text)
        assert all(match.known for match in found)
        assert [normalise(match.text) for match in found] == words


def test_no_texts():
    for texts in (pl.Series("x", [], dtype=pl.String), pl.Series("x", [None, None], dtype=pl.String)):
        assert tokens_of(texts, ["a b"]).to_list() == [[]] * len(texts)
        assert tokens_of(texts).dtype == pl.List(pl.String)
