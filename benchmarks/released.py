"""The student the way of the released implementation, written out to be measured against.

Every prompt is written and tokenised anew, a batch is padded to its longest prompt, the whole causal model runs with
its head and all hidden states, the frozen teacher is asked at each step, and items are encoded as often as shown.
"""

import numpy as np
import torch
from jaxtyping import Int
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from llmsrec.data.sequences import Sequences
from llmsrec.llm.prompts import ITEM_END, ITEM_START, USER_END, USER_START, day_text
from llmsrec.student.losses import distillation_loss, retrieval_loss, uniformity_loss
from llmsrec.student.trainer import Trainer

WORDS, WINDOW, DAY = 4_000, 10, 86_400_000
HISTORY, USER, ITEM = "<HIST>", "<UOUT>", "<IOUT>"


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word, number or mark is a token: a prompt tokenises to the same ids whole or in pieces."""
    phrases = " ".join([USER_START, USER_END, ITEM_START, ITEM_END, '"[];/'])
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    fixed = {word for word, _ in split.pre_tokenize_str(phrases)}
    numbers = {str(number) for number in (*range(1, 11), *range(1990, 2030))}
    days = {f"{day:02d}" for day in range(1, 32)}
    words = sorted({*fixed, *numbers, *days, *(f"w{word}" for word in range(WORDS))})
    core = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(["?", *words])}, "?")
    )
    core.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", pad_token="?")


class Released:
    """The released way, with the heads and the frozen parts of a student of ours."""

    def __init__(self, lm: LlamaForCausalLM, trainer: Trainer, titles: list[str]) -> None:
        self.lm, self.trainer, self.model, self.titles = lm, trainer, trainer.model, titles
        self.tokenizer = word_tokenizer()
        self.tokenizer.add_special_tokens({"additional_special_tokens": [HISTORY, USER, ITEM]})

    def users(self, histories: Sequences) -> Tensor:
        shown = histories.last(WINDOW)
        texts = [self._user_text(shown[row], shown.times(row)) for row in range(len(shown))]
        items = [shown[row] for row in range(len(shown))]
        return self.model.heads.user_head(self._read(texts, items, USER, 0))

    def items(self, items: Int[np.ndarray, "items"]) -> Tensor:
        texts = [f'{ITEM_START}"{self.titles[item]}" {HISTORY}{ITEM_END}{ITEM}' for item in items]
        return self.model.heads.item_head(self._read(texts, list(items[:, None]), ITEM, 1))

    def _user_text(self, items: np.ndarray, times: np.ndarray) -> str:
        entries = [
            f'[{number}] {day_text(int(time) // DAY)} "{self.titles[item]}" {HISTORY}'
            for number, (item, time) in enumerate(zip(items, times, strict=True), start=1)
        ]
        return f"{USER_START}{'; '.join(entries)}{USER_END}{USER}"

    def _read(self, texts: list[str], items: list[np.ndarray], slot: str, token: int) -> Tensor:
        """Slots looked for and filled row by row; all hidden states and all logits, of which one row is read."""
        batch = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        ids, heads = batch["input_ids"], self.model.heads
        history, read = self.tokenizer.convert_tokens_to_ids([HISTORY, slot])
        embedded = self.lm.get_input_embeddings()(ids)
        for row, shown in enumerate(items):
            known = self.model.teacher.item_table[torch.from_numpy(shown)]
            embedded[row, ids[row] == history] = heads.item_projector(known)
            embedded[row, ids[row] == read] = heads.soft_tokens[token]
        found = self.lm(
            inputs_embeds=embedded,
            attention_mask=batch["attention_mask"],
            output_hidden_states=True,
        )
        return found.hidden_states[-1][ids == read]

    def loss(self, reads: Int[np.ndarray, "reads"], draws: np.random.Generator) -> Tensor:
        """A prompt for each read-out, one for each of its candidates, and the teacher asked again."""
        trainer, heads = self.trainer, self.model.heads
        owners, targets = trainer.owners[reads], trainer.targets[reads]
        shown = trainer.examples.train.take(owners, trainer.examples.ends()[reads])
        drawn = trainer.negatives.draw(owners, trainer.config.train_negatives, draws)
        choices = np.concatenate([targets[:, None], drawn], axis=1)
        users = self.users(shown)
        items = self.items(choices.ravel()).view(*choices.shape, -1)
        distilled = heads.teacher_head(self.model.teacher.represent(shown))
        who = torch.from_numpy(owners)
        return (
            retrieval_loss((items @ users[:, :, None])[..., 0])
            + distillation_loss(users, distilled, normalize=True, reduction="mean")
            + uniformity_loss(users, who)
            + uniformity_loss(distilled, who)
        )

    def step(self, reads: Int[np.ndarray, "reads"], draws: np.random.Generator) -> None:
        loss = self.loss(reads, draws)
        self.trainer.optimizer.zero_grad()
        loss.backward()
        self.trainer.optimizer.step()
