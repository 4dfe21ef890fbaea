"""Soft prompts: placeholders in a prompt are replaced by vectors, the teacher's (projected) or trained soft tokens."""

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
from llmsrec.llm.heads import Heads, PromptModelConfig
from llmsrec.llm.lora import add_lora
from llmsrec.llm.padding import length_chunks, right_pad, segment_mask, to_device
from llmsrec.llm.prompts import HIST, IOUT, UOUT, UREP, Prompts, PromptShape
from llmsrec.llm.variants import LLMVariant
from llmsrec.sequential.sasrec import SASRec


class SoftPrompts(nn.Module):
    """Embeds prompts and returns hidden states. `heads` holds all trained parameters.

    Backbone and teacher are not submodules; with LoRA the backbone is changed in place. `table` holds the vectors of
    the item placeholders: the teacher's item table, or item codes of width `code_size`."""

    table: Tensor

    def __init__(
        self, config: PromptModelConfig, variant: LLMVariant, backbone: Backbone, teacher: SASRec
    ) -> None:
        super().__init__()
        self.heads = Heads(config, variant)
        if variant.lora is not None:
            self.heads.lora = add_lora(backbone, variant.lora)
        self.heads.to(backbone.device)
        teacher = teacher.eval().requires_grad_(False).to(backbone.device)
        self._frozen = (backbone, teacher)  # nn.Module registers no modules in a tuple
        self.decoder = Decoder(backbone.model)
        self.dropout = config.item_vector_dropout
        self.shape = PromptShape(
            config.window,
            config.title_tokens,
            config.max_prompt_tokens,
            user_vector=variant.user_vector,
            item_vectors=variant.item_vectors,
            lean=config.prompt == "lean",
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
        """Also sets the mode of the backbone if its LoRA parameters are trained."""
        super().train(mode)
        if self.heads.lora:
            trained = any(parameter.requires_grad for parameter in self.heads.lora.values())
            self.backbone.model.train(mode and trained)
        return self

    def hidden_states(
        self,
        prompts: Prompts,
        mask: Bool[np.ndarray, "n"],
        teacher_users: Float[Tensor, "rows teacher"] | None = None,
    ) -> Float[Tensor, "read_outs hidden"]:
        """The last hidden state of every token in `mask`, in the order of the tokens.

        Prompts run in chunks of similar length, right padded: a causal model's tokens do not see the padding."""
        order, device = np.argsort(prompts.lengths, kind="stable"), self.backbone.device
        states, positions = [], []
        for chunk in length_chunks(order, prompts.lengths, device):
            tokens, _ = ranges(prompts.offsets[chunk], prompts.lengths[chunk])
            vectors = teacher_users
            if vectors is not None:
                vectors = vectors[to_device(chunk, vectors.device)]
            states.append(self._chunk_states(prompts.take(chunk), mask[tokens], vectors))
            positions.append(tokens[mask[tokens]])
        inverse = np.argsort(np.concatenate(positions), kind="stable")
        return torch.cat(states)[to_device(inverse, device)]

    def _chunk_states(
        self, prompts: Prompts, mask: Bool[np.ndarray, "n"], teacher_users: Tensor | None
    ) -> Float[Tensor, "read_outs hidden"]:
        device = self.backbone.device
        is_token = np.arange(int(prompts.lengths.max())) < prompts.lengths[:, None]
        tokens, positions, segments = (
            right_pad(values, is_token)
            for values in (prompts.tokens, prompts.positions, prompts.segments)
        )
        row, column = np.nonzero(right_pad(mask.astype(np.int64), is_token))
        number = np.arange(len(row)) - np.searchsorted(row, row)  # of a read-out in its row
        columns = np.zeros((len(is_token), int(number.max()) + 1), dtype=np.int64)
        columns[row, number] = column
        inputs = DecoderInput(
            self.embed(torch.from_numpy(tokens), prompts.items, teacher_users),
            to_device(positions, device),
            to_device(columns, device),
            mask=segment_mask(to_device(segments, device)) if segments.any() else None,
        )
        states = self.decoder.hidden_states(inputs)
        return states[to_device(row, device), to_device(number, device)].float()

    def embed(
        self,
        tokens: Int[Tensor, "rows tokens"],
        items: Int[np.ndarray, "placeholders"],
        teacher_users: Tensor | None = None,
    ) -> Float[Tensor, "rows tokens hidden"]:
        """Token vectors with a vector in place of each placeholder; `items` are those of the item placeholders.

        `tokens` are on the CPU: the placeholders are located there, since the host would wait for a GPU to do it."""
        device = self.backbone.device
        flat = tokens.flatten()
        indices, vectors = [], []
        if len(items):
            unique, inverse = np.unique(items, return_inverse=True)  # each item is projected once
            projected = self.project_items(to_device(unique, device))
            indices.append((flat == HIST).nonzero()[:, 0])
            vectors.append(projected[to_device(inverse, device)])
        for placeholder, number in ((UOUT, 0), (IOUT, 1)):
            if len(places := (flat == placeholder).nonzero()[:, 0]):
                indices.append(places)
                vectors.append(self.heads.soft_tokens[number].expand(len(places), -1))
        if teacher_users is not None:
            indices.append((flat == UREP).nonzero()[:, 0])
            vectors.append(self.heads.user_projector(teacher_users.to(device)))
        embedded = self.backbone.embed(flat.clamp(min=0).to(device, non_blocking=True))
        if indices:
            rows = torch.cat(indices).to(device, non_blocking=True)
            embedded = embedded.index_copy(0, rows, torch.cat(vectors).to(embedded.dtype))
        return embedded.view(*tokens.shape, -1)

    def project_items(self, items: Int[Tensor, "items"]) -> Float[Tensor, "items hidden"]:
        """The items' vectors in the token space. Dropout in training keeps the student from relying on the teacher's
        vectors alone, which were fitted to the same purchases."""
        vectors = functional.dropout(self.table[items], self.dropout, self.training)
        return self.heads.item_projector(vectors)


class PromptModel(nn.Module):
    """A language model with soft prompts; retrieval and generation build different `prompts` on it."""

    prompts: Any

    def __init__(
        self, config: PromptModelConfig, variant: LLMVariant, backbone: Backbone, teacher: SASRec
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
        """A view that shares all networks but shows none of the teacher's vectors in its prompts."""
        assert self.variant.lora is not None, "without LoRA and vectors nothing would be trained"
        view = copy.copy(self)
        view.variant = replace(self.variant, user_vector=False, item_vectors=False)
        view.prompts = self.prompts.text_only()
        return view
