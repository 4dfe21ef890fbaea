"""A slow student: one prompt at a time through the whole causal language model, without any cache."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmsrec.data.sequences import Sequences
from llmsrec.llm.prompts import HIST, IOUT, UOUT, UREP
from llmsrec.student.model import LLMSRec


class Oracle:
    """In float64, unless the language model does not run in it."""

    def __init__(self, model: LLMSRec, lm: Any, dtype: torch.dtype = torch.float64) -> None:
        self.model, self.dtype = model, dtype
        self.heads = copy.deepcopy(model.heads).to(dtype)
        self.lm = copy.deepcopy(lm).to(dtype)

    def user(self, items: np.ndarray, times: np.ndarray, teacher_user: Tensor | None) -> Tensor:
        tail = items[-self.model.config.window :].tolist()
        tokens = self.model.prompts.user(items, times)
        return self.heads.user_head(self._state(tokens, tail, teacher_user))

    def item(self, item: int) -> Tensor:
        return self.heads.item_head(self._state(self.model.prompts.item(item), [item], None))

    def users(self, histories: Sequences, teacher_users: Tensor | None = None) -> Tensor:
        rows = range(len(histories))
        vectors = [
            None if teacher_users is None else teacher_users[row].to(self.dtype) for row in rows
        ]
        return torch.stack(
            [self.user(histories[row], histories.times(row), vectors[row]) for row in rows]
        )

    def items(self, items: list[int]) -> Tensor:
        return torch.stack([self.item(item) for item in items])

    def _state(self, tokens: list[int], items: list[int], teacher_user: Tensor | None) -> Tensor:
        embed = self.lm.get_input_embeddings()
        left = list(items)
        vectors = []
        for token in tokens:
            if token >= 0:
                vectors.append(embed(torch.tensor(token)))
            elif token == HIST:
                vector = self.model.teacher.item_table[left.pop(0)].to(self.dtype)
                vectors.append(self.heads.item_projector(vector))
            elif token == UREP:
                assert teacher_user is not None
                vectors.append(self.heads.user_projector(teacher_user))
            else:
                vectors.append(self.heads.soft_tokens[{UOUT: 0, IOUT: 1}[token]])
        assert not left
        decoder = self.lm.base_model.get_decoder()
        return decoder(inputs_embeds=torch.stack(vectors)[None]).last_hidden_state[0, -1]


def gradients(heads: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.grad.double()
        for name, parameter in heads.named_parameters()
        if parameter.grad is not None
    }


def assert_close(
    actual: Tensor, expected: Tensor, relative: float = 1e-5, least: float = 1e-12
) -> None:
    """Relative to the largest value: float32 knows no more of the small ones."""
    scale = max(float(expected.detach().abs().max()), least)
    error = float((actual.detach().double() - expected.detach()).abs().max()) / scale
    assert error < relative, f"relative error {error:.2e}"
