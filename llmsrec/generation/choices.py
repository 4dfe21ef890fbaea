"""The prompts of mode G (SPEC 3): a history and some candidates, and the title of one of them to be written."""

import copy
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from llmsrec.core.errors import ConfigError
from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.llm.prompts import DATE_TOKENS, PromptBuilder, Prompts, PromptShape, Row, Tokenizer

PICK = ". Pick the one product bought next from these: "
ANSWER = ". Title of the next product: "
LEAST = 4  # tokens of a title, or it says nothing


@dataclass(frozen=True)
class ChoicePrompts:
    """Prompts with answers behind them. `asked`: tokens after which an answer's next one is told; `answers`: those.

    An answer of n tokens is told by n of them, the last of the prompt first; `owners` says whose each one is."""

    prompts: Prompts
    asked: Bool[np.ndarray, "n"]
    answers: Int[np.ndarray, "told"]
    places: Int[np.ndarray, "told"]  # which of the asked states tells it
    owners: Int[np.ndarray, "told"]


class ChoiceBuilder:
    """`count` candidates and a window of purchases must fit a prompt: titles are cut for that, in it and in answers."""

    def __init__(
        self, tokenizer: Tokenizer, titles: list[str], shape: PromptShape, count: int
    ) -> None:
        cap = self._room(PromptBuilder(tokenizer, titles[:1], shape), count)
        self.shape = replace(shape, title_tokens=min(shape.title_tokens, cap))
        self.prompts = PromptBuilder(tokenizer, titles, self.shape)
        end = getattr(tokenizer, "eos_token_id", None)
        if end is None:
            raise ConfigError("the language model's tokenizer has no end-of-text token to stop at")
        self.end = int(end)
        self.titles = [
            [*self.prompts.encode(title)[: self.shape.title_tokens], self.end] for title in titles
        ]
        self._pick, self._answer = self.prompts.encode(PICK), self.prompts.encode(ANSWER)

    def text_only(self) -> "ChoiceBuilder":
        """The same prompts without the teacher's vectors."""
        found = copy.copy(self)
        found.prompts = self.prompts.text_only()
        found.shape = found.prompts.shape
        return found

    def choices(self, histories: Sequences, candidates: Int[np.ndarray, "rows columns"]) -> Prompts:
        """Up to where the title is to be written."""
        return self._together(self._rows(histories, candidates), histories, candidates)

    def with_choices(
        self,
        histories: Sequences,
        candidates: Int[np.ndarray, "rows columns"],
        answers: Int[np.ndarray, "rows answers"],
    ) -> ChoicePrompts:
        """With the titles of these items behind each prompt, each unseen by the others."""
        rows, told, places, owners, asked = [], [], [], [], []
        count = 0  # of the asked states
        for number, (tokens, positions, segments) in enumerate(self._rows(histories, candidates)):
            last, place = count, len(tokens)
            flags = [False] * (place - 1) + [True]
            count += 1
            for answer, item in enumerate(answers[number].tolist()):
                title = self.titles[item]
                tokens += title[:-1]
                positions += range(place, place + len(title) - 1)
                segments += [answer + 1] * (len(title) - 1)
                flags += [True] * (len(title) - 1)
                told += title
                places += [last, *range(count, count + len(title) - 1)]
                owners += [number * answers.shape[1] + answer] * len(title)
                count += len(title) - 1
            rows.append((tokens, positions, segments))
            asked += flags
        if answers.shape[1] == 1:  # one answer needs no wall: plain causal attention is faster
            rows = [(tokens, positions, [0] * len(tokens)) for tokens, positions, _ in rows]
        prompts = self._together(rows, histories, candidates)
        return ChoicePrompts(prompts, np.array(asked), *map(np.array, (told, places, owners)))

    def _rows(self, histories: Sequences, candidates: Int[np.ndarray, "rows columns"]) -> list[Row]:
        tails, found = histories.last(self.shape.window), []
        for row in range(len(tails)):
            tokens = self.prompts.history(tails[row], tails.times(row)) + self._pick
            tokens += self.prompts.listed(candidates[row].tolist()) + self._answer
            found.append((tokens, list(range(len(tokens))), [0] * len(tokens)))
        return found

    def _together(
        self, rows: list[Row], histories: Sequences, candidates: Int[np.ndarray, "rows columns"]
    ) -> Prompts:
        """Slots are filled in order: those of the history, then those of the candidates."""
        tails = histories.last(self.shape.window)
        shown = [
            [*tails[row].tolist(), *candidates[row].tolist()] for row in range(len(candidates))
        ]
        return self.prompts.together(rows, from_rows(shown))

    def _room(self, prompts: PromptBuilder, count: int) -> int:
        """The most tokens of a title with which the longest prompt and its answer fit."""
        shape, quotes = prompts.shape, len(prompts.encode('"')) * 2
        slot = len(prompts.encode(" ")) + 1
        entry = len(prompts.encode("; [10] ")) + DATE_TOKENS + quotes + slot
        listed = len(prompts.encode("; ")) + quotes + slot
        nothing = np.zeros(0, np.int64)
        fixed = len(prompts.history(nothing, nothing)) + len(prompts.encode(PICK + ANSWER)) + 8
        room = shape.max_prompt_tokens - fixed - shape.window * entry - count * listed
        cap = room // (shape.window + count + 1)
        if cap < LEAST:
            raise ConfigError(
                f"a prompt of {shape.window} purchases and {count} candidates leaves {cap} tokens for a title within "
                f"student.max_prompt_tokens {shape.max_prompt_tokens}: raise it, or lower student.window"
            )
        return cap
