"""The prompts of specification 3 as token ids with placeholders; the vocabulary stays as it is.

A prompt is joined from pieces that are tokenised once: fixed texts, numbers, dates, titles. A placeholder is a
negative id whose token vector is replaced by another vector.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from llmsrec.core.errors import ConfigError
from llmsrec.data.sequences import Sequences, from_rows, ranges

HIST, UREP, UOUT, IOUT = -1, -2, -3, -4  # an item's vector, the user's vector, the two soft tokens
USER_VECTOR = ("A recommender describes this shopper as", ". ")
USER_START = "Purchases of one shopper, oldest first: "
USER_END = ". Compress this shopper's purchases into one vector:"
ITEM_START = "Product: "
ITEM_END = ". Compress this product into one vector:"
DATE_TOKENS = 11  # upper bound: a date and a space are 11 bytes, and a byte is at most one token

PromptKind = Literal["full", "lean"]
Row = tuple[list[int], list[int], list[int]]  # tokens, positions, segments


@runtime_checkable  # tests check types at every call
class Tokenizer(Protocol):
    """The methods of a Hugging Face tokenizer that prompts need."""

    bos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...


@dataclass(frozen=True)
class Prompts:
    """Ragged token ids, each row with one read-out or several.

    A row with several joins the prompts of a growing history. The text of a read-out follows its purchase in a segment
    of its own, which no later token sees, at the positions that it has in a prompt that ends there."""

    offsets: Int[np.ndarray, "bounds"]
    tokens: Int[np.ndarray, "n"]
    positions: Int[np.ndarray, "n"]
    segments: Int[np.ndarray, "n"]  # 0: visible to all later tokens; s > 0: within the segment only
    items: Int[np.ndarray, "m"]  # of the item placeholders, in order
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
    """The sizes of prompts, in purchases and tokens, and what they hold.

    `lean` prompts have neither numbers and dates of purchases nor the sentences before read-outs."""

    window: int
    title_tokens: int
    max_prompt_tokens: int
    user_vector: bool = False
    item_vectors: bool = True
    lean: bool = False


class PromptBuilder:
    """Tokenises the titles of a catalog once and joins pieces into prompts.

    Raises ConfigError if the longest possible prompt exceeds `shape.max_prompt_tokens`."""

    def __init__(self, tokenizer: Tokenizer, titles: list[str], shape: PromptShape) -> None:
        self.tokenizer, self.shape, self.window = tokenizer, shape, shape.window
        self.start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.titles = [
            self.encode(f'"{title}')[: shape.title_tokens] + self.encode('"') for title in titles
        ]
        self._numbers = [self.encode(f"[{number}] ") for number in range(1, shape.window + 1)]
        self._placeholder = [*self.encode(" "), HIST] if shape.item_vectors else []
        self._separator = self.encode("; ")
        self._date = lru_cache(maxsize=None)(lambda day: self.encode(day_text(day) + " "))
        user_end, item_end = ("", "") if shape.lean else (USER_END, ITEM_END)
        self._user_start, self._end = self.encode(USER_START), [*self.encode(user_end), UOUT]
        self._item_start, self._item_end = self.encode(ITEM_START), self.encode(item_end)
        self._user_vector = [self.encode(text) for text in USER_VECTOR]
        self._check_length()

    def text_only(self) -> "PromptBuilder":
        """A builder of the same prompts without the teacher's vectors."""
        builder = copy.copy(self)
        builder.shape = replace(self.shape, user_vector=False, item_vectors=False)
        builder._placeholder = []
        return builder

    def user(self, items: Int[np.ndarray, "n"], times: Int[np.ndarray, "n"]) -> list[int]:
        """The prompt of the last `window` purchases, which are numbered from 1."""
        return [*self.history(items[-self.window :], times[-self.window :]), *self._end]

    def history(self, items: Int[np.ndarray, "n"], times: Int[np.ndarray, "n"]) -> list[int]:
        """The start of a user prompt with all of these purchases; `times` in ms."""
        return [*self._opening(), *chain.from_iterable(self._purchases(items, times))]

    def item_list(self, items: list[int]) -> list[int]:
        """Titles with their placeholders, separated."""
        tokens: list[int] = []
        for number, item in enumerate(items):
            separator = self._separator if number else []
            tokens += [*separator, *self.titles[item], *self._placeholder]
        return tokens

    def item(self, item: int) -> list[int]:
        """The prompt of one item."""
        return [*self.item_prefix(item), *self.item_suffix]

    def item_prefix(self, item: int) -> list[int]:
        """The text before the placeholder."""
        return [*self.start, *self._item_start, *self.titles[item], *self._placeholder[:-1]]

    @property
    def item_suffix(self) -> list[int]:
        """The tokens from the placeholder on, the same for all items."""
        return [*self._placeholder[-1:], *self._item_end, IOUT]

    @property
    def num_end_tokens(self) -> int:
        """How many tokens follow the last purchase, the soft token included."""
        return len(self._end)

    def users(self, histories: Sequences) -> Prompts:
        """A prompt per history, with one read-out at its end."""
        tails = histories.last(self.window)
        rows = [self.user(tails[row], tails.times(row)) for row in range(len(tails))]
        return self.join([_plain(row) for row in rows], tails)

    def growing_users(self, histories: Sequences, skipped: Int[np.ndarray, "rows"]) -> Prompts:
        """A prompt per history of at most `window` purchases, with a read-out after each but its first `skipped`."""
        places = range(len(histories))
        rows = [self._growing(histories[r], histories.times(r), int(skipped[r])) for r in places]
        return self.join(rows, histories)

    def join(self, rows: list[Row], placeholder_items: Sequences) -> Prompts:
        """Rows as one batch; `placeholder_items` are ignored if the prompts hold no item vectors."""
        none = from_rows([[]] * len(rows))
        return _prompts(rows, placeholder_items if self.shape.item_vectors else none)

    def _growing(
        self, items: Int[np.ndarray, "n"], times: Int[np.ndarray, "n"], skipped: int
    ) -> Row:
        assert len(items) <= self.window, "a longer history has another window at each purchase"
        tokens = self._opening()
        positions, segments = list(range(len(tokens))), [0] * len(tokens)
        position = len(tokens)
        for number, purchase in enumerate(self._purchases(items, times), start=1):
            tokens += purchase
            positions += range(position, position + len(purchase))
            segments += [0] * len(purchase)
            position += len(purchase)
            if number > skipped:
                tokens += self._end
                positions += range(position, position + len(self._end))
                segments += [number] * len(self._end)
        return tokens, positions, segments

    def _opening(self) -> list[int]:
        tokens = list(self.start)
        if self.shape.user_vector:
            before, after = self._user_vector
            tokens += [*before, UREP, *after]
        return tokens + self._user_start

    def _purchases(
        self, items: Int[np.ndarray, "n"], times: Int[np.ndarray, "n"]
    ) -> Iterator[list[int]]:
        """The tokens of each purchase: number and date, unless lean; title, placeholder."""
        days = (times // 86_400_000).tolist()
        for number, (item, day) in enumerate(zip(items.tolist(), days, strict=True)):
            separator = self._separator if number else []
            label = [] if self.shape.lean else [*self._numbers[number], *self._date(day)]
            yield [*separator, *label, *self.titles[item], *self._placeholder]

    def items(self, item_indices: Int[np.ndarray, "n"]) -> Prompts:
        """A prompt per item index."""
        rows = [_plain(self.item(item)) for item in item_indices.tolist()]
        return self.join(rows, from_rows([[item] for item in item_indices.tolist()]))

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _check_length(self) -> None:
        """Titles are cut, so the longest prompt is known: no read-out is cut off (specification 6.9)."""
        marks = len([*self.encode('"'), *self._placeholder, *self._separator])
        label = 0 if self.shape.lean else max(map(len, self._numbers)) + DATE_TOKENS
        purchase = label + self.shape.title_tokens + marks
        fixed = [*self.start, *self._user_start, *self._end, *chain(*self._user_vector)]
        longest = len(fixed) + 1 + self.window * purchase
        if longest > self.shape.max_prompt_tokens:
            raise ConfigError(
                f"a prompt of {self.window} purchases may need {longest} tokens, more than student.max_prompt_tokens "
                f"{self.shape.max_prompt_tokens}: lower student.title_tokens or student.window"
            )


def day_text(day: int) -> str:
    """Days since 1970 as YYYY/MM/DD, UTC."""
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y/%m/%d")


def plain_prompts(rows: list[list[int]]) -> Prompts:
    """Rows of token ids without placeholders as one batch."""
    return _prompts([_plain(row) for row in rows], from_rows([[]] * len(rows)))


def _plain(row: list[int]) -> Row:
    return row, list(range(len(row))), [0] * len(row)


def _prompts(rows: list[Row], items: Sequences) -> Prompts:
    offsets = np.concatenate([[0], np.cumsum([len(row[0]) for row in rows])]).astype(np.int64)
    tokens, positions, segments = (
        np.fromiter(chain.from_iterable(row[part] for row in rows), np.int64, count=offsets[-1])
        for part in range(3)
    )
    return Prompts(offsets, tokens, positions, segments, items.items, items.offsets)
