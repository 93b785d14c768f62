"""Words as people type them: one rule for words.csv, captions and queries given as text, requests, search and demo.

1. `normalise` folds width, case and punctuation.
2. A text falls into atoms: a run of letters and digits between blanks, and each character (with its marks) of a script
   that is written without blanks. Atoms end where such a script begins or ends: "iphone手机壳" has iphone, 手, 机, 壳.
3. From the left, the longest run of atoms that is a known word is one word: "喜剧电影" is 喜剧 and 电影 where words.csv
   has both, "new york" is one word where it has that, "space comedy" two.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import polars as pl

BLANKLESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # 々 〆 〇
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana for Ainu
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),  # Myanmar
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),  # Han
    (0x1B000, 0x1B16F),  # Hiragana, Katakana
    (0x20000, 0x3FFFF),  # Han
)
"""Blocks of the scripts that are written without blanks between words; their digits count as any others."""
HAN_FROM = 0x20000
STACKED = "\u17d2\u1039"  # of Khmer and Myanmar: the next letter is written below
LENGTHENED = "\u30fc"  # ー belongs to the character before it

UNSEEN = (
    "\u00ad\u034f\u061c\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff"
)
"""Invisible characters, as a character class: joiners, direction marks, emoji variants. Not U+200B, a word break."""
APOSTROPHES = "'’‘ʼ`"
OPEN, CLOSE = "\x01", "\x02"  # around an atom; no normalised text holds them
BLOCK = 100_000
"""Texts that are normalised as one."""

NUMBERS = re.compile(r"\s*\d+(?:\s+\d+)*\s*")
NUMBER_LIST = re.compile(r"\s*\[\s*-?\d+(?:[\s,]+-?\d+)*\s*\]\s*")


def _characters(ranges: Iterable[tuple[int, int]]) -> str:
    """The inside of a character class, for Python and for Polars."""
    return "".join(chr(first) if first == last else f"{chr(first)}-{chr(last)}" for first, last in ranges)


def _ranges(codes: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def _blankless() -> tuple[str, str]:
    """Letters, and the marks that go with them."""
    small = [code for first, last in BLANKLESS if last < HAN_FROM for code in range(first, last + 1)]
    of = {code: unicodedata.category(chr(code)) for code in small}
    marks = [code for code in small if of[code] in ("Mn", "Mc") or chr(code) in LENGTHENED]
    letters = [code for code in small if of[code] != "Nd" and code not in set(marks)]
    accents = range(0x0300, 0x0370)
    large = [(first, last) for first, last in BLANKLESS if last >= HAN_FROM]
    return _characters([*_ranges(letters), *large]), _characters(_ranges([*accents, *marks]))


LETTERS, MARKS = _blankless()
ATOM = rf"[{LETTERS}](?:[{STACKED}][{LETTERS}]|[{MARKS}])*|[^ {LETTERS}]+"
_ATOM, _LETTER = re.compile(ATOM), re.compile(f"[{LETTERS}]")
_UNSEEN = re.compile(f"[{UNSEEN}]")
_INNER = re.compile(rf"[{APOSTROPHES}](?<=\w.)(?=\w)")


class _Kept(dict[int, int]):
    """A table for `str.translate`: letters, marks, numbers stay, anything else becomes a blank."""

    def __missing__(self, code: int) -> int:
        kind = unicodedata.category(chr(code))
        self[code] = code if kind[0] in "LN" or kind in ("Mn", "Mc") else 32
        return self[code]


_KEPT = _Kept({ord("\n"): 10, ord("ʼ"): 32})


def normalise(text: str) -> str:
    """Folds a text so that what people type alike is alike. Idempotent.

    As search engines do: NFKC (full-width "ｓｐａｃｅ"), case folding ("STRASSE" = "straße"); accents stay.
    Letters, marks and numbers are kept; all else is a blank, and blanks are one. So:

    - hyphens, underscores, dots, slashes part words: "space-comedy" is "space comedy", "3.5" is "3 5";
    - an apostrophe within a word is left out: "don't", "don’t" and "dont" are the same;
    - signs say nothing: "#tag" is "tag", "@name" is "name", "c++" is "c", emoji are blanks, "!!!" has no word;
    - characters that show nothing (joiners, direction marks, soft hyphens) are left out; U+200B is a blank.
    """
    return " ".join(_folded(text).split())


def _folded(text: str) -> str:
    """To the point where nothing changes any more: the second time, but for odd sequences of marks. Blanks stay as many
    as they are, line ends too."""
    while (folded := _folded_once(text)) != text:
        text = folded
    return folded


def _folded_once(text: str) -> str:
    text = unicodedata.normalize("NFKC", text.replace("´", "'")).casefold()
    text = _INNER.sub("", _UNSEEN.sub("", text)).translate(_KEPT)
    return unicodedata.normalize("NFKC", text)


def normalised(texts: pl.Series) -> pl.Series:
    """`normalise` of each text: of plain ASCII by expressions, of others many at once."""
    texts = texts.cast(pl.String)
    plain = (texts.str.len_bytes() == texts.str.len_chars()).fill_null(True)
    lower = texts.filter(plain).str.to_lowercase()
    for _ in range(2):  # a match takes the letter behind with it, so that every second one is left for the second time
        lower = lower.str.replace_all(r"(\w)['`](\w)", "${1}${2}")
    others = texts.filter(~plain).str.replace_all("\n", " ", literal=True).to_list()
    folded: list[str] = []
    for first in range(0, len(others), BLOCK):
        folded += _folded("\n".join(others[first : first + BLOCK])).split("\n")
    joined = pl.concat([lower.str.replace_all("[^a-z0-9]", " "), pl.Series(folded, dtype=pl.String)])
    back = pl.concat([plain.arg_true(), (~plain).arg_true()]).arg_sort()
    return joined.gather(back).str.replace_all(" {2,}", " ").str.strip_chars(" ").alias(texts.name)


class _Longer:
    """Finds known words of more than one atom."""

    def __init__(self, normal: Iterable[str]) -> None:
        """`normal`: normalised words."""
        self.words: set[str] = set()
        self._most: dict[str, int] = {}  # atoms, by the first atom
        for word in normal:
            atoms = _ATOM.findall(word)
            if len(atoms) > 1:
                self.words.add(word)
                self._most[atoms[0]] = max(len(atoms), self._most.get(atoms[0], 0))

    def spans(self, normal: str) -> Iterator[tuple[int, int]]:
        """Begin and end of each known word and of each other atom, from the left."""
        atoms = [found.span() for found in _ATOM.finditer(normal)]
        at = 0
        while at < len(atoms):
            begin, end = atoms[at]
            next_at = at + 1
            for last in range(min(at + self._most.get(normal[begin:end], 1), len(atoms)) - 1, at, -1):
                if normal[begin : atoms[last][1]] in self.words:
                    end, next_at = atoms[last][1], last + 1
                    break
            yield begin, end
            at = next_at


@dataclasses.dataclass(frozen=True)
class Match:
    """A word of a text. A known one has its text of words.csv, or its id; an unknown one is normalised."""

    text: str
    row: int  # 0 = unknown

    @property
    def known(self) -> bool:
        return self.row > 0


class Lexicon:
    """Finds words in texts. Of words with the same normal form, the lowest row counts."""

    def __init__(self, texts: Sequence[str | None], row_of_id: Callable[[int], int] = lambda raw: 0) -> None:
        """`texts` by word row, row 0 = unknown; None = a word without text. `row_of_id` gives 0 for unknown ids."""
        self._texts, self._row_of_id = texts, row_of_id
        rows = [row for row, text in enumerate(texts) if row and text]
        normal = normalised(pl.Series([texts[row] for row in rows], dtype=pl.String)).to_list()
        self._rows = {text: row for text, row in zip(reversed(normal), reversed(rows), strict=True) if text}
        self._longer = _Longer(self._rows)

    def match(self, text: str) -> list[Match]:
        """The words of a text in its order. Adjacent unknown characters of scripts without blanks are one word.

        A list such as "[20, 34]" holds word ids. So do numbers that no word has for its text, where there is nothing
        but numbers ("20 34") or where the id's word has no text that one could type instead.
        """
        if NUMBER_LIST.fullmatch(text):
            return [self.of_id(int(number)) for number in re.findall(r"-?\d+", text)]
        normal, only_numbers = normalise(text), NUMBERS.fullmatch(text) is not None
        found: list[Match] = []
        open_at = -1  # where the unknown word that may still grow ends
        for begin, end in self._longer.spans(normal):
            piece = normal[begin:end]
            row = self._rows.get(piece, 0)
            if row:
                found.append(Match(self._texts[row] or piece, row))
            elif piece.isdecimal() and _alone(normal, begin, end):
                by_id = self.of_id(int(piece)) if len(piece) < 19 else Match(piece, 0)  # ids have 64 bits
                can_be = only_numbers or not self._texts[by_id.row]
                found.append(by_id if can_be else Match(piece, 0))
            elif begin == open_at and _LETTER.match(piece):
                found[-1] = Match(found[-1].text + piece, 0)
            else:
                found.append(Match(piece, 0))
            open_at = end if not found[-1].known and _LETTER.match(piece) else -1
        return found

    def of_id(self, raw: int) -> Match:
        row = self._row_of_id(raw)
        return Match((self._texts[row] if row else None) or str(raw), row)


def _alone(normal: str, begin: int, end: int) -> bool:
    return (begin == 0 or normal[begin - 1] == " ") and (end == len(normal) or normal[end] == " ")


def tokens_of(texts: pl.Series, known: Collection[str] = ()) -> pl.Series:
    """list[str]: the normalised words of each caption or query, known ones and every other atom; none where missing."""
    distinct = texts.cast(pl.String).unique()
    cut = pl.DataFrame({"text": distinct, "words": _cut(normalised(distinct), _longer(known).words)})
    asked = pl.DataFrame({"text": texts.cast(pl.String)})
    joined = asked.join(cut, on="text", how="left", maintain_order="left", nulls_equal=True)
    return joined["words"].fill_null([]).alias(texts.name)


def _longer(known: Collection[str]) -> _Longer:
    return _Longer(normalised(pl.Series(list(known), dtype=pl.String)) if known else ())


def _cut(normal: pl.Series, longer: set[str]) -> pl.Series:
    """As `_Longer.spans`, by expressions: a search for many words at once prefers the leftmost, and the first given."""
    if not longer and not normal.str.contains(f"[{LETTERS}]").any():
        return normal.str.extract_all("[^ ]+")
    marked = normal.str.replace_all(ATOM, f"{OPEN}${{0}}{CLOSE}")
    if longer:
        ordered = pl.Series(sorted(longer, key=lambda word: (-len(word), word)))
        marks = ordered.str.replace_all(ATOM, f"{OPEN}${{0}}{CLOSE}").to_list()
        whole = (OPEN + ordered + CLOSE).to_list()
        marked = (
            pl.DataFrame({"text": marked})
            .select(pl.col("text").str.replace_many(marks, whole, leftmost=True))
            .to_series()
        )
    return marked.str.replace_all(f" ?{OPEN}", "").str.extract_all(f"[^{CLOSE}]+")
