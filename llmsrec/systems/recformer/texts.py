"""Items as keys and values, users as their items' texts, latest first (specification 4.4).

Every item is tokenised once. Ragged arrays hold the type of each token, the item of the row that it belongs to
(0: the leading special token; 1: the latest purchase) and whether it begins a word.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences, ranges

ATTRIBUTES = ("title", "brand", "category")
SPECIAL, KEY, VALUE, PAD = range(4)  # token types
NUM_TYPES = 4


@dataclass(frozen=True)
class Vocabulary:
    """The rows of an encoder's table: token t of the tokenizer is row t + `shift`."""

    shift: int
    pad: int
    start: int
    mask: int
    size: int


@dataclass(frozen=True)
class Limits:
    """The limits of the texts of items and users."""

    attribute_tokens: int
    max_items: int
    max_tokens: int

    def __post_init__(self) -> None:
        item = len(ATTRIBUTES) * self.attribute_tokens
        if self.max_tokens < 1 + item:
            raise ValueError(
                f"max_tokens is {self.max_tokens}, but an item may need {item} and the start one more"
            )


@dataclass(frozen=True)
class Texts:
    """Ragged rows of tokens: row r is offsets[r]..offsets[r + 1] of the other arrays."""

    offsets: Int[np.ndarray, "bounds"]
    tokens: Int[np.ndarray, "n"]
    types: Int[np.ndarray, "n"]
    places: Int[
        np.ndarray, "n"
    ]  # the item's position in the row, 1 is the latest; 0 is the start token
    begins: Bool[np.ndarray, "n"]  # the token begins a word

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int[np.ndarray, "rows"]:
        return np.diff(self.offsets)

    def take(self, rows: Int[np.ndarray, "m"]) -> "Texts":
        where, offsets = ranges(self.offsets[rows], self.lengths[rows])
        return Texts(
            offsets, self.tokens[where], self.types[where], self.places[where], self.begins[where]
        )


class TextBuilder:
    """Builds the texts of users and of single items."""

    def __init__(
        self, tokenizer: Any, catalog: Catalog, vocabulary: Vocabulary, limits: Limits
    ) -> None:
        self.vocabulary, self.limits = vocabulary, limits
        self.entries = _entries(tokenizer, catalog, vocabulary, limits.attribute_tokens)

    def users(self, histories: Sequences) -> Texts:
        """The texts of histories, latest item first; oldest items that do not fit are left out completely."""
        shown, offsets = self._fitting(histories)
        where, ends = ranges(self.entries.offsets[shown], self.entries.lengths[shown])
        places = np.arange(len(shown)) - np.repeat(offsets[:-1], np.diff(offsets))
        return Texts(
            ends[offsets],
            self.entries.tokens[where],
            self.entries.types[where],
            np.repeat(places, self.entries.lengths[shown]),
            self.entries.begins[where],
        )

    def items(self, item_indices: Int[np.ndarray, "n"]) -> Texts:
        """The text of each item: that of a user who bought only this item."""
        offsets = np.arange(len(item_indices) + 1)
        return self.users(Sequences(offsets, item_indices, np.zeros_like(item_indices)))

    def _fitting(
        self, histories: Sequences
    ) -> tuple[Int[np.ndarray, "entries"], Int[np.ndarray, "bounds"]]:
        """The entries of each row: the start token, then items, latest first."""
        tails = histories.last(self.limits.max_items)
        rows = np.repeat(np.arange(len(tails)), tails.lengths)
        newest_first = np.lexsort((-np.arange(len(rows)), rows))
        items = tails.items[newest_first]
        read = np.concatenate([[0], np.cumsum(self.entries.lengths[items])])
        used = 1 + read[1:] - read[tails.offsets[rows]]
        fits = used <= self.limits.max_tokens
        counts = np.bincount(rows[fits], minlength=len(tails))
        offsets = np.concatenate([[0], np.cumsum(1 + counts)]).astype(np.int64)
        entries = np.zeros(
            offsets[-1], dtype=np.int64
        )  # 0, the index of padding, is the start token
        behind = np.ones(len(entries), dtype=bool)
        behind[offsets[:-1]] = False
        entries[behind] = items[fits]
        return entries, offsets


def _entries(tokenizer: Any, catalog: Catalog, vocabulary: Vocabulary, most: int) -> Texts:
    """The text of each item by its index; that of 0 (padding) is the leading special token."""
    values = catalog.items[list(ATTRIBUTES)].to_numpy().tolist()
    pairs = [
        [(key, value) for key, value in zip(ATTRIBUTES, row, strict=True) if value.strip()]
        for row in values
    ]
    keys = _tokenised(tokenizer, list(ATTRIBUTES))
    key_of = dict(zip(ATTRIBUTES, keys, strict=True))
    value_of = iter(_tokenised(tokenizer, [value for row in pairs for _, value in row]))
    tokens, types, begins = [vocabulary.start], [SPECIAL], [True]
    ends = [0, 1]
    for row in pairs:
        for key, _ in row:
            (name, name_begins), (value, value_begins) = key_of[key], next(value_of)
            both = [token + vocabulary.shift for token in [*name, *value]]
            tokens += both[:most]
            types += [*[KEY] * len(name), *[VALUE] * len(value)][:most]
            begins += [*name_begins, *value_begins][:most]
        ends.append(len(tokens))
    return Texts(
        np.array(ends),
        np.array(tokens),
        np.array(types),
        np.ones(len(tokens), np.int64),
        np.array(begins),
    )


def _tokenised(tokenizer: Any, texts: list[str]) -> list[tuple[list[int], list[bool]]]:
    """Token ids and where words begin; each text starts with a space, so that a word has the same tokens everywhere."""
    if not texts:
        return []
    encoded = tokenizer([f" {text.strip()}" for text in texts], add_special_tokens=False)
    rows = []
    for row, tokens in enumerate(encoded["input_ids"]):
        words = encoded.word_ids(row)
        rows.append((tokens, [at == 0 or word != words[at - 1] for at, word in enumerate(words)]))
    return rows
