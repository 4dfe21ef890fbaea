"""The student's training as in the released implementation: the reference of the benchmark student.py.

Every prompt is built and tokenised again, a batch is padded to its longest prompt, the causal model runs with its LM
head and all hidden states, the frozen teacher runs at each step, and items are encoded as often as they occur.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.synthetic import DAY, word_tokenizer
from llmsrec.data.sequences import Sequences
from llmsrec.finetuning.losses import retrieval_loss
from llmsrec.llm.prompts import ITEM_END, ITEM_START, USER_END, USER_START, day_text
from llmsrec.student.losses import distillation_loss, uniformity_loss
from llmsrec.student.trainer import StudentTrainer

WINDOW = 10
HISTORY, USER, ITEM = "<HIST>", "<UOUT>", "<IOUT>"


class Released:
    """The released implementation around the heads, teacher and backbone of `trainer`."""

    def __init__(self, lm: LlamaForCausalLM, trainer: StudentTrainer, titles: list[str]) -> None:
        self.lm, self.trainer, self.model, self.titles = lm, trainer, trainer.model, titles
        self.tokenizer = word_tokenizer()
        self.tokenizer.add_special_tokens({"additional_special_tokens": [HISTORY, USER, ITEM]})

    def users(self, histories: Sequences) -> Tensor:
        tails = histories.last(WINDOW)
        texts = [self._user_text(tails[row], tails.times(row)) for row in range(len(tails))]
        items = [tails[row] for row in range(len(tails))]
        return self.model.heads.user_head(self._states(texts, items, USER, 0))

    def items(self, items: Int[np.ndarray, "items"]) -> Tensor:
        texts = [f'{ITEM_START}"{self.titles[item]}" {HISTORY}{ITEM_END}{ITEM}' for item in items]
        return self.model.heads.item_head(self._states(texts, list(items[:, None]), ITEM, 1))

    def _user_text(self, items: np.ndarray, times: np.ndarray) -> str:
        entries = [
            f'[{number}] {day_text(int(time) // DAY)} "{self.titles[item]}" {HISTORY}'
            for number, (item, time) in enumerate(zip(items, times, strict=True), start=1)
        ]
        return f"{USER_START}{'; '.join(entries)}{USER_END}{USER}"

    def _states(
        self, texts: list[str], items: list[np.ndarray], placeholder: str, number: int
    ) -> Tensor:
        """Placeholders are filled row by row; all hidden states and logits are computed, one state per row is used."""
        batch = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        ids, heads = batch["input_ids"], self.model.heads
        history, soft = self.tokenizer.convert_tokens_to_ids([HISTORY, placeholder])
        embedded = self.lm.get_input_embeddings()(ids)
        for row, indices in enumerate(items):
            vectors = self.model.teacher.item_table[torch.from_numpy(indices)]
            embedded[row, ids[row] == history] = heads.item_projector(vectors)
            embedded[row, ids[row] == soft] = heads.soft_tokens[number]
        output = self.lm(
            inputs_embeds=embedded,
            attention_mask=batch["attention_mask"],
            output_hidden_states=True,
        )
        return output.hidden_states[-1][ids == soft]

    def loss(self, read_outs: Int[np.ndarray, "read_outs"], draws: np.random.Generator) -> Tensor:
        """One prompt per read-out and per candidate, and a forward pass of the teacher."""
        trainer, heads = self.trainer, self.model.heads
        owners, targets = trainer.users[read_outs], trainer.targets[read_outs]
        lengths = trainer.examples.history_lengths()[read_outs]
        histories = trainer.examples.train.take(owners, lengths)
        drawn = trainer.negatives.draw(owners, trainer.config.train_negatives, draws)
        choices = np.concatenate([targets[:, None], drawn], axis=1)
        users = self.users(histories)
        items = self.items(choices.ravel()).view(*choices.shape, -1)
        teacher_users = heads.teacher_head(self.model.teacher.represent(histories))
        user_ids = torch.from_numpy(owners)
        return (
            retrieval_loss((items @ users[:, :, None])[..., 0])
            + distillation_loss(users, teacher_users, normalize=True, reduction="mean")
            + uniformity_loss(users, user_ids)
            + uniformity_loss(teacher_users, user_ids)
        )

    def step(self, read_outs: Int[np.ndarray, "read_outs"], draws: np.random.Generator) -> None:
        loss = self.loss(read_outs, draws)
        self.trainer.optimizer.zero_grad()
        loss.backward()
        self.trainer.optimizer.step()
