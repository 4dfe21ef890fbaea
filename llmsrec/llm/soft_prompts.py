"""A language model that reads prompts whose slots hold vectors: the teacher's, projected, and the soft tokens."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.data.sequences import ranges
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.decoder import Decoder, DecoderInput
from llmsrec.llm.heads import Heads, LLMSRecConfig
from llmsrec.llm.lora import add_lora
from llmsrec.llm.padding import length_chunks, right_pad, segment_mask
from llmsrec.llm.prompts import HIST, IOUT, UOUT, UREP, Prompts, PromptShape
from llmsrec.llm.variants import LLMVariant
from llmsrec.sequential.sasrec import SASRec


class SoftPrompts(nn.Module):
    """Fills slots and reads states. `heads` is all that is trained; backbone and teacher are no part of the module's
    parameters, but with low-rank updates the backbone must be its own.

    `table` is what item slots are filled from: the teacher's item table, or what is made of it (`code_size`)."""

    table: Tensor

    def __init__(
        self, config: LLMSRecConfig, variant: LLMVariant, backbone: Backbone, teacher: SASRec
    ) -> None:
        super().__init__()
        self.heads = Heads(config, variant)
        if variant.lora is not None:
            self.heads.lora = add_lora(backbone, variant.lora)
        self.heads.to(backbone.device)
        teacher = teacher.eval().requires_grad_(False).to(backbone.device)
        self._frozen = (backbone, teacher)  # in a tuple, so that nn.Module does not adopt them
        self.decoder = Decoder(backbone.model)
        self.dropout = config.item_vector_dropout
        self.shape = PromptShape(
            config.window,
            config.title_tokens,
            config.max_prompt_tokens,
            user_vector_in_prompt=variant.user_vector,
            item_vectors=variant.item_vectors,
        )
        table = teacher.item_table
        if variant.code_size is not None:
            table = table.new_zeros(len(table), variant.code_size)
        self.register_buffer("table", table, persistent=variant.code_size is not None)

    @property
    def backbone(self) -> Backbone:
        return self._frozen[0]

    @property
    def teacher(self) -> SASRec:
        return self._frozen[1]

    def train(self, mode: bool = True) -> "SoftPrompts":
        """What is put into the language model has its dropout where it is trained."""
        super().train(mode)
        if self.heads.lora:
            learns = any(part.requires_grad for part in self.heads.lora.values())
            self.backbone.model.train(mode and learns)
        return self

    def hidden_states(
        self,
        prompts: Prompts,
        asked: Bool[np.ndarray, "n"],
        teacher_users: Float[Tensor, "rows teacher"] | None = None,
    ) -> Float[Tensor, "reads hidden"]:
        """The last hidden state at every token that is `asked`, in order.

        Prompts run in chunks of like length, right padded: in a causal model no token sees what pads behind it."""
        order = np.argsort(prompts.lengths, kind="stable")
        states, places = [], []
        for chunk in length_chunks(order, prompts.lengths):
            where, _ = ranges(prompts.offsets[chunk], prompts.lengths[chunk])
            vectors = None if teacher_users is None else teacher_users[torch.from_numpy(chunk)]
            states.append(self._run(prompts.take(chunk), asked[where], vectors))
            places.append(where[asked[where]])
        back = np.argsort(np.concatenate(places), kind="stable")
        return torch.cat(states)[torch.from_numpy(back).to(self.backbone.device)]

    def _run(
        self, prompts: Prompts, asked: Bool[np.ndarray, "n"], teacher_users: Tensor | None
    ) -> Float[Tensor, "reads hidden"]:
        device = self.backbone.device
        real = np.arange(int(prompts.lengths.max())) < prompts.lengths[:, None]
        tokens, positions, segments = (
            right_pad(values, real)
            for values in (prompts.tokens, prompts.positions, prompts.segments)
        )
        row, column = np.nonzero(right_pad(asked.astype(np.int64), real))
        number = np.arange(len(row)) - np.searchsorted(row, row)  # of a read-out in its row
        reads = np.zeros((len(real), int(number.max()) + 1), dtype=np.int64)
        reads[row, number] = column
        rows = DecoderInput(
            self.embed(torch.from_numpy(tokens).to(device), prompts.items, teacher_users),
            torch.from_numpy(positions).to(device),
            torch.from_numpy(reads).to(device),
            mask=segment_mask(torch.from_numpy(segments).to(device)) if segments.any() else None,
        )
        states = self.decoder.hidden_states(rows)
        return states[torch.from_numpy(row), torch.from_numpy(number)].float()

    def embed(
        self,
        tokens: Int[Tensor, "rows tokens"],
        items: Int[np.ndarray, "soft"],
        teacher_users: Tensor | None = None,
    ) -> Float[Tensor, "rows tokens hidden"]:
        """Token vectors with every slot's vector in its place, written by one indexed scatter."""
        table = self.backbone.token_table
        flat = tokens.flatten()
        where, what = [], []
        if len(items):
            unique, place = np.unique(items, return_inverse=True)  # shown twice, projected once
            written = self.project_items(torch.from_numpy(unique).to(table.device))
            where.append((flat == HIST).nonzero()[:, 0])
            what.append(written[torch.from_numpy(place).to(table.device)])
        for slot, number in ((UOUT, 0), (IOUT, 1)):
            if len(reads := (flat == slot).nonzero()[:, 0]):
                where.append(reads)
                what.append(self.heads.soft_tokens[number].expand(len(reads), -1))
        if teacher_users is not None:
            where.append((flat == UREP).nonzero()[:, 0])
            what.append(self.heads.user_projector(teacher_users.to(table.device)))
        embedded = table[flat.clamp(min=0)]
        if where:
            embedded = embedded.index_copy(0, torch.cat(where), torch.cat(what).to(table.dtype))
        return embedded.view(*tokens.shape, -1)

    def project_items(self, items: Int[Tensor, "items"]) -> Float[Tensor, "items hidden"]:
        """What stands in the slots of these items; in training some of the vectors' values are dropped, lest the
        student rely on what the teacher made of the very purchases it learns from."""
        kept = functional.dropout(self.table[items], self.dropout, self.training)
        return self.heads.item_projector(kept)


class PromptModel(nn.Module):
    """A language model before prompts with slots; modes R and G differ in their `prompts`, and in what they ask."""

    prompts: Any

    def __init__(
        self, config: LLMSRecConfig, variant: LLMVariant, backbone: Backbone, teacher: SASRec
    ) -> None:
        super().__init__()
        self.config, self.variant = config, variant
        self.soft_prompts = SoftPrompts(config, variant, backbone, teacher)

    @property
    def heads(self) -> Heads:
        return self.soft_prompts.heads

    @property
    def backbone(self) -> Backbone:
        return self.soft_prompts.backbone

    @property
    def teacher(self) -> SASRec:
        return self.soft_prompts.teacher

    def text_only(self) -> "PromptModel":
        """The same networks before prompts without the teacher's vectors."""
        assert self.variant.lora is not None, "what is frozen would have nothing left to learn"
        found = copy.copy(self)
        found.variant = replace(self.variant, user_vector=False, item_vectors=False)
        found.prompts = self.prompts.text_only()
        return found
