"""The prompts of SPEC 3 as token ids with slots: nothing is added to the vocabulary.

A prompt is built of pieces, each tokenised once: fixed texts, running numbers, dates, titles. A slot is a
negative id; the model writes a vector there.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

import numpy as np
from jaxtyping import Int

from llmsrec.data.sequences import Sequences
from llmsrec.errors import ConfigError

HIST, UREP, UOUT, IOUT = -1, -2, -3, -4  # what a slot holds; see model.py

USER_REPRESENTATION = ("A recommender describes this shopper as", ". ")
USER_START = "Purchases of one shopper, oldest first: "
USER_END = ". Compress this shopper's purchases into one vector:"
ITEM_START = "Product: "
ITEM_END = ". Compress this product into one vector:"


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    bos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...


@dataclass(frozen=True)
class Prompts:
    """Ragged token ids; the soft items of prompt r, in order, are items[item_offsets[r]:item_offsets[r + 1]]."""

    offsets: Int[np.ndarray, "rows+1"]
    tokens: Int[np.ndarray, "n"]
    items: Int[np.ndarray, "m"]
    item_offsets: Int[np.ndarray, "rows+1"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int[np.ndarray, "rows"]:
        return np.diff(self.offsets)

    def row(self, row: int) -> Int[np.ndarray, "length"]:
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    def row_items(self, row: int) -> Int[np.ndarray, "soft"]:
        return self.items[self.item_offsets[row] : self.item_offsets[row + 1]]


class PromptBuilder:
    """Tokenises a catalogue's titles once, then writes prompts by joining pieces."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        titles: list[str],
        *,
        window: int,
        title_tokens: int,
        max_prompt_tokens: int,
        with_user_rep: bool,
    ) -> None:
        self.tokenizer, self.window, self.with_user_rep = tokenizer, window, with_user_rep
        self.max_prompt_tokens = max_prompt_tokens
        self.start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.titles = [
            self._encode(f'"{title}')[:title_tokens] + self._encode('"') for title in titles
        ]
        self.title_tokens = title_tokens
        self._numbers = [self._encode(f"[{number}] ") for number in range(1, window + 1)]
        self._space, self._next = self._encode(" "), self._encode("; ")
        self._date = lru_cache(maxsize=None)(lambda day: self._encode(day_text(day) + " "))
        self._user_start, self._user_end = self._encode(USER_START), self._encode(USER_END)
        self._item_start, self._item_end = self._encode(ITEM_START), self._encode(ITEM_END)
        self._representation = [self._encode(text) for text in USER_REPRESENTATION]
        self._check_room()

    def user(self, items: Int[np.ndarray, "n"], times: Int[np.ndarray, "n"]) -> list[int]:
        """The prompt of the last `window` purchases; numbers restart at 1 inside the window."""
        tokens = list(self.start)
        if self.with_user_rep:
            before, after = self._representation
            tokens += [*before, UREP, *after]
        tokens += self._user_start
        for number, (item, time) in enumerate(
            zip(items[-self.window :].tolist(), times[-self.window :].tolist(), strict=True)
        ):
            if number:
                tokens += self._next
            tokens += self._numbers[number]
            tokens += self._date(time // 86_400_000)
            tokens += self.titles[item]
            tokens += [*self._space, HIST]
        return [*tokens, *self._user_end, UOUT]

    def item(self, item: int) -> list[int]:
        tokens = [*self.start, *self._item_start, *self.titles[item], *self._space, HIST]
        return [*tokens, *self._item_end, IOUT]

    def users(self, histories: Sequences) -> Prompts:
        tails = histories.last(self.window)
        rows = [self.user(tails[row], tails.times(row)) for row in range(len(tails))]
        return _ragged(rows, tails.items, tails.offsets)

    def items(self, item_indices: Int[np.ndarray, "n"]) -> Prompts:
        rows = [self.item(item) for item in item_indices.tolist()]
        return _ragged(rows, item_indices, np.arange(len(rows) + 1))

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _check_room(self) -> None:
        """Titles are capped, so the longest prompt is known beforehand: no read-out slot is ever cut off (SPEC 6.9)."""
        longest_title = [0] * (self.title_tokens + len(self._encode('"')))
        entry = [
            *self._numbers[-1],
            *self._date(16_000),
            *longest_title,
            *self._space,
            HIST,
            *self._next,
        ]
        fixed = [
            *self.start,
            *self._user_start,
            *self._user_end,
            *self._representation[0],
            *self._representation[1],
        ]
        longest = len(fixed) + 2 + self.window * len(entry)
        if longest > self.max_prompt_tokens:
            raise ConfigError(
                f"a prompt of {self.window} purchases may need {longest} tokens, more than "
                f"student.max_prompt_tokens {self.max_prompt_tokens}: lower student.title_tokens "
                "or student.window"
            )


def day_text(day: int) -> str:
    """Days since 1970 -> YYYY/MM/DD, UTC."""
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y/%m/%d")


def _ragged(
    rows: list[list[int]], items: Int[np.ndarray, "m"], item_offsets: Int[np.ndarray, "rows+1"]
) -> Prompts:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    tokens = np.fromiter((token for row in rows for token in row), np.int64, count=offsets[-1])
    return Prompts(offsets, tokens, items, item_offsets)
