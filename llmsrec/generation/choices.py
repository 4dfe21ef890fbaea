"""The prompts of generation (specification 3): a history, candidates, and the title of one of them as the answer."""

import copy
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from llmsrec.core.errors import ConfigError
from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.llm.prompts import DATE_TOKENS, PromptBuilder, Prompts, PromptShape, Row, Tokenizer

PICK = ". Pick the one product bought next from these: "
ANSWER = ". Title of the next product: "
MIN_TITLE_TOKENS = 4  # shorter titles are not informative


@dataclass(frozen=True)
class ChoicePrompts:
    """Prompts followed by answers. Each answer token is predicted from the hidden state of the token before it.

    `mask` marks the tokens whose states predict. Of each answer token: its id, the number of the state that predicts
    it (among those in `mask`), and the number of its answer (row by row)."""

    prompts: Prompts
    mask: Bool[np.ndarray, "n"]
    tokens: Int[np.ndarray, "answer_tokens"]
    states: Int[np.ndarray, "answer_tokens"]
    answers: Int[np.ndarray, "answer_tokens"]


class ChoiceBuilder:
    """Cuts all titles so that a window of purchases and `count` candidates fit a prompt.

    Raises ConfigError if there is one candidate only, if titles would be too short, or if the tokenizer has no
    end-of-text token."""

    def __init__(
        self, tokenizer: Tokenizer, titles: list[str], shape: PromptShape, count: int
    ) -> None:
        if count < 2:
            raise ConfigError(
                "title generation needs candidates with different titles, and the splits have none: provide item "
                "texts (meta_*) with titles, set splits.generation_negatives above 0, and split again"
            )
        max_tokens = self._max_title_tokens(PromptBuilder(tokenizer, titles[:1], shape), count)
        self.shape = replace(shape, title_tokens=min(shape.title_tokens, max_tokens))
        self.prompts = PromptBuilder(tokenizer, titles, self.shape)
        eos = getattr(tokenizer, "eos_token_id", None)
        if eos is None:
            raise ConfigError("the language model's tokenizer has no end-of-text token to stop at")
        self.end = int(eos)
        self.titles = [
            [*self.prompts.encode(title)[: self.shape.title_tokens], self.end] for title in titles
        ]
        self._pick, self._answer = self.prompts.encode(PICK), self.prompts.encode(ANSWER)

    def text_only(self) -> "ChoiceBuilder":
        """A builder of the same prompts without the teacher's vectors."""
        builder = copy.copy(self)
        builder.prompts = self.prompts.text_only()
        builder.shape = builder.prompts.shape
        return builder

    def choices(self, histories: Sequences, candidates: Int[np.ndarray, "rows columns"]) -> Prompts:
        """Prompts without an answer, for generation."""
        return self._join(self._rows(histories, candidates), histories, candidates)

    def with_choices(
        self,
        histories: Sequences,
        candidates: Int[np.ndarray, "rows columns"],
        answers: Int[np.ndarray, "rows answers"],
    ) -> ChoicePrompts:
        """Prompts followed by the titles of the items in `answers`; the titles of a row do not see each other."""
        rows, mask, answer_tokens, states, numbers = [], [], [], [], []
        num_states = 0
        for row, (tokens, positions, segments) in enumerate(self._rows(histories, candidates)):
            prompt_state, end = num_states, len(tokens)
            mask += [False] * (end - 1) + [True]
            num_states += 1
            for column, item in enumerate(answers[row].tolist()):
                title = self.titles[item]
                length = len(title) - 1  # the last token predicts nothing
                tokens += title[:-1]
                positions += range(end, end + length)
                segments += [column + 1] * length
                mask += [True] * length
                answer_tokens += title
                states += [prompt_state, *range(num_states, num_states + length)]
                numbers += [row * answers.shape[1] + column] * len(title)
                num_states += length
            rows.append((tokens, positions, segments))
        if answers.shape[1] == 1:  # without segments: plain causal attention is faster
            rows = [(tokens, positions, [0] * len(tokens)) for tokens, positions, _ in rows]
        prompts = self._join(rows, histories, candidates)
        return ChoicePrompts(
            prompts, np.array(mask), *map(np.array, (answer_tokens, states, numbers))
        )

    def _rows(self, histories: Sequences, candidates: Int[np.ndarray, "rows columns"]) -> list[Row]:
        tails, rows = histories.last(self.shape.window), []
        for row in range(len(tails)):
            tokens = self.prompts.history(tails[row], tails.times(row)) + self._pick
            tokens += self.prompts.item_list(candidates[row].tolist()) + self._answer
            rows.append((tokens, list(range(len(tokens))), [0] * len(tokens)))
        return rows

    def _join(
        self, rows: list[Row], histories: Sequences, candidates: Int[np.ndarray, "rows columns"]
    ) -> Prompts:
        """Placeholders hold the items of the history, then the candidates."""
        tails = histories.last(self.shape.window)
        items = [
            [*tails[row].tolist(), *candidates[row].tolist()] for row in range(len(candidates))
        ]
        return self.prompts.join(rows, from_rows(items))

    def _max_title_tokens(self, prompts: PromptBuilder, count: int) -> int:
        """The largest title length with which the longest prompt and its answer fit."""
        shape, quotes = prompts.shape, len(prompts.encode('"')) * 2
        placeholder = len(prompts.encode(" ")) + 1
        purchase = len(prompts.encode("; [10] ")) + DATE_TOKENS + quotes + placeholder
        candidate = len(prompts.encode("; ")) + quotes + placeholder
        nothing = np.zeros(0, np.int64)
        fixed = len(prompts.history(nothing, nothing)) + len(prompts.encode(PICK + ANSWER)) + 8
        free = shape.max_prompt_tokens - fixed - shape.window * purchase - count * candidate
        tokens = free // (shape.window + count + 1)
        if tokens < MIN_TITLE_TOKENS:
            raise ConfigError(
                f"a prompt of {shape.window} purchases and {count} candidates leaves {tokens} tokens per title within "
                f"student.max_prompt_tokens {shape.max_prompt_tokens}: raise it, or lower student.window"
            )
        return tokens
