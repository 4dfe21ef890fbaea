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
from llmsrec.student.backbone import Backbone
from llmsrec.student.decoder import Decoder, Rows
from llmsrec.student.heads import Heads, LLMSRecConfig
from llmsrec.student.lora import adapt
from llmsrec.student.padding import chunks, on_device, seen, spread
from llmsrec.student.prompts import HIST, IOUT, UOUT, UREP, Prompts, PromptShape
from llmsrec.student.recipe import Recipe
from llmsrec.teacher.sasrec import SASRec


class Slots(nn.Module):
    """Fills slots and reads states. `heads` is all that is trained; backbone and teacher are no part of the module's
    parameters, but with low-rank updates the backbone must be its own.

    `table` is what item slots are filled from: the teacher's item table, or what is made of it (`codes`)."""

    table: Tensor

    def __init__(
        self, config: LLMSRecConfig, recipe: Recipe, backbone: Backbone, teacher: SASRec
    ) -> None:
        super().__init__()
        self.heads = Heads(config, recipe)
        if recipe.lora is not None:
            self.heads.lora = adapt(backbone, recipe.lora)
        self.heads.to(backbone.device)
        teacher = teacher.eval().requires_grad_(False).to(backbone.device)
        self._frozen = (backbone, teacher)  # in a tuple, so that nn.Module does not adopt them
        self.decoder = Decoder(backbone.model)
        self.dropout = config.slot_dropout
        self.shape = PromptShape(
            config.window,
            config.title_tokens,
            config.max_prompt_tokens,
            with_user_rep=recipe.user_slot,
            item_slots=recipe.item_slots,
        )
        table = teacher.item_table
        if recipe.codes is not None:
            table = table.new_zeros(len(table), recipe.codes)
        self.register_buffer("table", table, persistent=recipe.codes is not None)

    @property
    def backbone(self) -> Backbone:
        return self._frozen[0]

    @property
    def teacher(self) -> SASRec:
        return self._frozen[1]

    def train(self, mode: bool = True) -> "Slots":
        """What is put into the language model has its dropout where it is trained."""
        super().train(mode)
        if self.heads.lora:
            learns = any(part.requires_grad for part in self.heads.lora.values())
            self.backbone.model.train(mode and learns)
        return self

    def read(
        self,
        prompts: Prompts,
        asked: Bool[np.ndarray, "n"],
        teacher_users: Float[Tensor, "rows teacher"] | None = None,
    ) -> Float[Tensor, "reads hidden"]:
        """The last hidden state at every token that is `asked`, in order.

        Prompts run in chunks of like length, right padded: in a causal model no token sees what pads behind it."""
        order, device = np.argsort(prompts.lengths, kind="stable"), self.backbone.device
        states, places = [], []
        for chunk in chunks(order, prompts.lengths, device):
            where, _ = ranges(prompts.offsets[chunk], prompts.lengths[chunk])
            vectors = (
                None
                if teacher_users is None
                else teacher_users[on_device(chunk, teacher_users.device)]
            )
            states.append(self._run(prompts.take(chunk), asked[where], vectors))
            places.append(where[asked[where]])
        back = np.argsort(np.concatenate(places), kind="stable")
        return torch.cat(states)[on_device(back, device)]

    def _run(
        self, prompts: Prompts, asked: Bool[np.ndarray, "n"], teacher_users: Tensor | None
    ) -> Float[Tensor, "reads hidden"]:
        device = self.backbone.device
        real = np.arange(int(prompts.lengths.max())) < prompts.lengths[:, None]
        tokens, positions, segments = (
            spread(values, real) for values in (prompts.tokens, prompts.positions, prompts.segments)
        )
        row, column = np.nonzero(spread(asked.astype(np.int64), real))
        number = np.arange(len(row)) - np.searchsorted(row, row)  # of a read-out in its row
        reads = np.zeros((len(real), int(number.max()) + 1), dtype=np.int64)
        reads[row, number] = column
        rows = Rows(
            self.embed(torch.from_numpy(tokens), prompts.items, teacher_users),
            on_device(positions, device),
            on_device(reads, device),
            mask=seen(on_device(segments, device)) if segments.any() else None,
        )
        states = self.decoder.read(rows)
        return states[on_device(row, device), on_device(number, device)].float()

    def embed(
        self,
        tokens: Int[Tensor, "rows tokens"],
        items: Int[np.ndarray, "soft"],
        teacher_users: Tensor | None = None,
    ) -> Float[Tensor, "rows tokens hidden"]:
        """Token vectors with every slot's vector in its place, written by one indexed scatter.

        `tokens` are on the CPU: slots are found there, since the host would wait for a GPU to find them."""
        table = self.backbone.token_table
        flat = tokens.flatten()
        where, what = [], []
        if len(items):
            unique, place = np.unique(items, return_inverse=True)  # shown twice, projected once
            written = self.written(on_device(unique, table.device))
            where.append((flat == HIST).nonzero()[:, 0])
            what.append(written[on_device(place, table.device)])
        for slot, number in ((UOUT, 0), (IOUT, 1)):
            if len(reads := (flat == slot).nonzero()[:, 0]):
                where.append(reads)
                what.append(self.heads.soft_tokens[number].expand(len(reads), -1))
        if teacher_users is not None:
            where.append((flat == UREP).nonzero()[:, 0])
            what.append(self.heads.user_projector(teacher_users.to(table.device)))
        embedded = table[flat.clamp(min=0).to(table.device, non_blocking=True)]
        if where:
            places = torch.cat(where).to(table.device, non_blocking=True)
            embedded = embedded.index_copy(0, places, torch.cat(what).to(table.dtype))
        return embedded.view(*tokens.shape, -1)

    def written(self, items: Int[Tensor, "items"]) -> Float[Tensor, "items hidden"]:
        """What stands in the slots of these items; in training some of the vectors' values are dropped, lest the
        student rely on what the teacher made of the very purchases it learns from."""
        kept = functional.dropout(self.table[items], self.dropout, self.training)
        return self.heads.item_projector(kept)


class Reader(nn.Module):
    """A language model before prompts with slots; modes R and G differ in their `prompts`, and in what they ask."""

    prompts: Any

    def __init__(
        self, config: LLMSRecConfig, recipe: Recipe, backbone: Backbone, teacher: SASRec
    ) -> None:
        super().__init__()
        self.config, self.recipe = config, recipe
        self.slots = Slots(config, recipe, backbone, teacher)

    @property
    def heads(self) -> Heads:
        return self.slots.heads

    @property
    def backbone(self) -> Backbone:
        return self.slots.backbone

    @property
    def teacher(self) -> SASRec:
        return self.slots.teacher

    def text_only(self) -> "Reader":
        """The same networks before prompts without the teacher's vectors."""
        assert self.recipe.lora is not None, "what is frozen would have nothing left to learn"
        found = copy.copy(self)
        found.recipe = replace(self.recipe, user_slot=False, item_slots=False)
        found.prompts = self.prompts.text_only()
        return found
