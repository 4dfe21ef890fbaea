"""The prompts of SPEC 3 as token ids with slots: nothing is added to the vocabulary.

A prompt is built of pieces, each tokenised once: fixed texts, running numbers, dates, titles. A slot is a
negative id; the model writes a vector there.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from llmsrec.core.errors import ConfigError
from llmsrec.data.sequences import Sequences, ranges

HIST, UREP, UOUT, IOUT = -1, -2, -3, -4  # what a slot holds; see model.py

USER_REPRESENTATION = ("A recommender describes this shopper as", ". ")
USER_START = "Purchases of one shopper, oldest first: "
USER_END = ". Compress this shopper's purchases into one vector:"
ITEM_START = "Product: "
ITEM_END = ". Compress this product into one vector:"

DATE_TOKENS = 11  # at most: a date and a space are 11 bytes, and no tokenizer needs more than one token for a byte


Row = tuple[list[int], list[int], list[int]]  # tokens, positions, segments


@runtime_checkable  # tests check types at every call
class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    bos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...


@dataclass(frozen=True)
class Prompts:
    """Ragged token ids, each row with one read-out or several.

    A prompt with several is the prompts of a growing history in one: after a purchase comes the read-out's text, in a
    segment of its own that no later token sees, at the positions it would have if the prompt ended there."""

    offsets: Int[np.ndarray, "bounds"]
    tokens: Int[np.ndarray, "n"]
    positions: Int[np.ndarray, "n"]
    segments: Int[np.ndarray, "n"]  # 0: seen by all that follows; s > 0: by its own segment alone
    items: Int[np.ndarray, "m"]  # of the soft item slots, in order
    item_offsets: Int[np.ndarray, "bounds"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int[np.ndarray, "rows"]:
        return np.diff(self.offsets)

    def row(self, row: int) -> Int[np.ndarray, "length"]:
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    def take(self, rows: Int[np.ndarray, "m"]) -> "Prompts":
        where, offsets = ranges(self.offsets[rows], self.lengths[rows])
        items, item_offsets = ranges(self.item_offsets[rows], np.diff(self.item_offsets)[rows])
        return Prompts(
            offsets,
            self.tokens[where],
            self.positions[where],
            self.segments[where],
            self.items[items],
            item_offsets,
        )


@dataclass(frozen=True)
class PromptShape:
    """How much is shown, and which slots there are."""

    window: int
    title_tokens: int
    max_prompt_tokens: int
    user_vector_in_prompt: bool = False
    item_vectors: bool = True


class PromptBuilder:
    """Tokenises a catalogue's titles once, then writes prompts by joining pieces."""

    def __init__(self, tokenizer: Tokenizer, titles: list[str], shape: PromptShape) -> None:
        self.tokenizer, self.shape, self.window = tokenizer, shape, shape.window
        self.start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.titles = [
            self.encode(f'"{title}')[: shape.title_tokens] + self.encode('"') for title in titles
        ]
        self._numbers = [self.encode(f"[{number}] ") for number in range(1, shape.window + 1)]
        self._slot = [*self.encode(" "), HIST] if shape.item_vectors else []
        self._next = self.encode("; ")
        self._date = lru_cache(maxsize=None)(lambda day: self.encode(day_text(day) + " "))
        self._user_start, self._end = self.encode(USER_START), [*self.encode(USER_END), UOUT]
        self._item_start, self._item_end = self.encode(ITEM_START), self.encode(ITEM_END)
        self._representation = [self.encode(text) for text in USER_REPRESENTATION]
        self._check_room()

    def text_only(self) -> "PromptBuilder":
        """The same prompts without the teacher's vectors."""
        found = copy.copy(self)
        found.shape = replace(self.shape, user_vector_in_prompt=False, item_vectors=False)
        found._slot = []
        return found

    def user(self, items: Int[np.ndarray, "n"], times: Int[np.ndarray, "n"]) -> list[int]:
        """The prompt of the last `window` purchases; numbers restart at 1 inside the window."""
        return [*self.history(items[-self.window :], times[-self.window :]), *self._end]

    def history(self, items: Int[np.ndarray, "n"], times: Int[np.ndarray, "n"]) -> list[int]:
        """A prompt up to its last purchase; all are shown."""
        return [*self._user_head(), *chain.from_iterable(self._entries(items, times))]

    def listed(self, items: list[int]) -> list[int]:
        """Titles with their slots, one after another."""
        found: list[int] = []
        for number, item in enumerate(items):
            found += [*(self._next if number else []), *self.titles[item], *self._slot]
        return found

    def item(self, item: int) -> list[int]:
        return [*self.item_prefix(item), *self.item_suffix]

    def item_prefix(self, item: int) -> list[int]:
        """What comes before the first soft slot: text alone."""
        return [*self.start, *self._item_start, *self.titles[item], *self._slot[:-1]]

    @property
    def item_suffix(self) -> list[int]:
        return [*self._slot[-1:], *self._item_end, IOUT]

    @property
    def num_end_tokens(self) -> int:
        """Of what stands behind the last purchase, the read-out included."""
        return len(self._end)

    def users(self, histories: Sequences) -> Prompts:
        """A prompt for each history, read at its end."""
        tails = histories.last(self.window)
        rows = [self.user(tails[row], tails.times(row)) for row in range(len(tails))]
        return self.together([_plain(row) for row in rows], tails)

    def growing_users(self, histories: Sequences, first: Int[np.ndarray, "rows"]) -> Prompts:
        """Histories of at most `window` purchases, read after each purchase but the `first` ones of each."""
        rows = [
            self._growing(histories[row], histories.times(row), int(first[row]))
            for row in range(len(histories))
        ]
        return self.together(rows, histories)

    def together(self, rows: list[Row], shown: Sequences) -> Prompts:
        """`shown` are the items of the slots, where there are any."""
        return _prompts(rows, shown if self.shape.item_vectors else _nothing(len(rows)))

    def _growing(self, items: Int[np.ndarray, "n"], times: Int[np.ndarray, "n"], first: int) -> Row:
        assert len(items) <= self.window, "a longer history has another window at each purchase"
        tokens = self._user_head()
        positions, segments = list(range(len(tokens))), [0] * len(tokens)
        place = len(tokens)
        for number, entry in enumerate(self._entries(items, times), start=1):
            tokens += entry
            positions += range(place, place + len(entry))
            segments += [0] * len(entry)
            place += len(entry)
            if number > first:
                tokens += self._end
                positions += range(place, place + len(self._end))
                segments += [number] * len(self._end)
        return tokens, positions, segments

    def _user_head(self) -> list[int]:
        tokens = list(self.start)
        if self.shape.user_vector_in_prompt:
            before, after = self._representation
            tokens += [*before, UREP, *after]
        return tokens + self._user_start

    def _entries(
        self, items: Int[np.ndarray, "n"], times: Int[np.ndarray, "n"]
    ) -> Iterator[list[int]]:
        """One purchase each: number, date, title and its slot."""
        days = (times // 86_400_000).tolist()
        for number, (item, day) in enumerate(zip(items.tolist(), days, strict=True)):
            before = self._next if number else []
            date, title = self._date(day), self.titles[item]
            yield [*before, *self._numbers[number], *date, *title, *self._slot]

    def items(self, item_indices: Int[np.ndarray, "n"]) -> Prompts:
        rows = [self.item(item) for item in item_indices.tolist()]
        alone = Sequences(np.arange(len(rows) + 1), item_indices, np.zeros_like(item_indices))
        return self.together([_plain(row) for row in rows], alone)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _check_room(self) -> None:
        """Titles are capped, so the longest prompt is known beforehand: no read-out slot is ever cut off (SPEC 6.9)."""
        entry = (
            max(len(number) for number in self._numbers)
            + DATE_TOKENS
            + self.shape.title_tokens
            + len([*self.encode('"'), *self._slot, *self._next])
        )
        fixed = [
            *self.start,
            *self._user_start,
            *self._end,
            *self._representation[0],
            *self._representation[1],
        ]
        longest = len(fixed) + 1 + self.window * entry
        if longest > self.shape.max_prompt_tokens:
            raise ConfigError(
                f"a prompt of {self.window} purchases may need {longest} tokens, more than "
                f"student.max_prompt_tokens {self.shape.max_prompt_tokens}: lower student.title_tokens "
                "or student.window"
            )


def day_text(day: int) -> str:
    """Days since 1970 -> YYYY/MM/DD, UTC."""
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y/%m/%d")


def plain_prompts(rows: list[list[int]]) -> Prompts:
    """Rows without slots."""
    return _prompts([_plain(row) for row in rows], _nothing(len(rows)))


def _plain(row: list[int]) -> Row:
    return row, list(range(len(row))), [0] * len(row)


def _nothing(rows: int) -> Sequences:
    return Sequences(np.zeros(rows + 1, np.int64), *(np.zeros(0, np.int64) for _ in range(2)))


def _prompts(rows: list[Row], histories: Sequences) -> Prompts:
    offsets = np.concatenate([[0], np.cumsum([len(row[0]) for row in rows])]).astype(np.int64)
    tokens, positions, segments = (
        np.fromiter(chain.from_iterable(row[part] for row in rows), np.int64, count=offsets[-1])
        for part in range(3)
    )
    return Prompts(offsets, tokens, positions, segments, histories.items, histories.offsets)
