"""Retrieval with a language model (specification 3): users and items as vectors of one space, read from prompts.

LLM-SRec and the systems it is compared with share this model; their `LLMVariant` says how they differ.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.decoder import DecoderInput
from llmsrec.llm.heads import PromptModelConfig, center_head
from llmsrec.llm.padding import length_chunks, to_device
from llmsrec.llm.prefix_cache import PrefixCache, Prefixes, compute_prefixes
from llmsrec.llm.prompts import IOUT, UOUT, PromptBuilder
from llmsrec.llm.soft_prompts import PromptModel
from llmsrec.llm.variants import LLMVariant
from llmsrec.sequential.sasrec import SASRec


class RetrievalModel(PromptModel):
    """Scores an item for a user by the product of their two vectors, each the output of a head at a soft token."""

    prompts: PromptBuilder

    def __init__(
        self,
        config: PromptModelConfig,
        variant: LLMVariant,
        backbone: Backbone,
        teacher: SASRec,
        catalog: Catalog,
    ) -> None:
        super().__init__(config, variant, backbone, teacher)
        self.prompts = PromptBuilder(backbone.tokenizer, catalog.titles, self.soft_prompts.shape)
        texts = [self.prompts.item_prefix(item) for item in range(catalog.num_items + 1)]
        self.prefixes = Prefixes.of(texts)
        self.cache: PrefixCache | None = None

    def init_soft_tokens(self) -> None:
        """Draw the soft tokens like the backbone's tokens, from torch's global generator."""
        tokens = torch.arange(self.backbone.num_embeddings, device=self.backbone.device)
        self.heads.init_soft_tokens(self.backbone.embed(tokens))

    def cache_prefixes(self, max_gb: float) -> bool:
        """Cache the item texts' keys and values if they fit in `max_gb` GB; returns whether they are cached.

        With LoRA they change at every step and are never cached."""
        if self.variant.lora is not None:
            return False
        decoder = self.soft_prompts.decoder
        fits = PrefixCache.num_bytes(self.prefixes, decoder) <= max_gb * 1e9
        self.cache = PrefixCache(self.prefixes, decoder) if fits else None
        return fits

    @torch.no_grad()
    def center_heads(self, histories: Sequences, items: Int[np.ndarray, "n"]) -> None:
        """Center user_head and item_head on the states of these users and items; dropout applies as in training."""
        center_head(self.heads.user_head, self._user_states(histories, None))
        center_head(self.heads.item_head, self._item_states(items))

    def represent_users(
        self, histories: Sequences, teacher_users: Float[Tensor, "users teacher"] | None = None
    ) -> Float[Tensor, "users shared"]:
        """One vector per history. `teacher_users` (O_u), if prompts show them, are computed unless given."""
        return self.heads.user_head(self._user_states(histories, teacher_users))

    def represent_growing_users(
        self, histories: Sequences, skipped: Int[np.ndarray, "rows"]
    ) -> Float[Tensor, "read_outs shared"]:
        """One vector after each purchase of each row but its first `skipped`, oldest first, in a single pass."""
        assert not self.variant.user_vector, (
            "the user vector in the prompt differs at each purchase"
        )
        prompts = self.prompts.growing_users(histories, skipped)
        return self.heads.user_head(
            self.soft_prompts.hidden_states(prompts, prompts.tokens == UOUT)
        )

    def represent_items(self, items: Int[np.ndarray, "items"]) -> Float[Tensor, "items shared"]:
        """One vector per item index."""
        return self.heads.item_head(self._item_states(items))

    def _user_states(
        self, histories: Sequences, teacher_users: Float[Tensor, "users teacher"] | None
    ) -> Float[Tensor, "users hidden"]:
        if not self.variant.user_vector:
            teacher_users = None
        elif teacher_users is None:
            teacher_users = self.teacher.represent(histories)
        prompts = self.prompts.users(histories)
        return self.soft_prompts.hidden_states(prompts, prompts.tokens == UOUT, teacher_users)

    def _item_states(self, items: Int[np.ndarray, "items"]) -> Float[Tensor, "items hidden"]:
        if self.variant.lora is not None:  # the prefix needs gradients too
            prompts = self.prompts.items(items)
            return self.soft_prompts.hidden_states(prompts, prompts.tokens == IOUT)
        device = self.backbone.device
        order = np.argsort(self.prefixes.lengths[items], kind="stable")
        lengths = self.prefixes.lengths[items] + len(self.prompts.item_suffix)
        chunks = length_chunks(order, lengths, device)
        states = [self._suffix_states(items[chunk]) for chunk in chunks]
        return torch.cat(states)[to_device(np.argsort(order, kind="stable"), device)]

    def _suffix_states(self, items: Int[np.ndarray, "rows"]) -> Float[Tensor, "rows hidden"]:
        """Only the suffix of each prompt, from the placeholder on, is run with gradients; the prefix is not."""
        device = self.backbone.device
        past, is_token = (
            compute_prefixes(self.prefixes, self.soft_prompts.decoder, items)
            if self.cache is None
            else self.cache.take(items)
        )
        suffix = to_device(np.array(self.prompts.item_suffix), device)
        embedded = self.backbone.embed(suffix.clamp(min=0)).expand(len(items), -1, -1).clone()
        if self.variant.item_vectors:
            projected = self.soft_prompts.project_items(to_device(items, device))
            embedded[:, 0] = projected.to(embedded.dtype)
        embedded[:, -1] = self.heads.soft_tokens[1].to(embedded.dtype)
        lengths = to_device(self.prefixes.lengths[items], device)
        count = len(suffix)
        causal = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        prefix_mask = to_device(is_token, device)[:, None].expand(-1, count, -1)
        inputs = DecoderInput(
            embedded,
            positions=lengths[:, None] + torch.arange(count, device=device),
            columns=torch.full((len(items), 1), count - 1, device=device),
            mask=torch.cat([prefix_mask, causal.expand(len(items), -1, -1)], dim=2),
            past_key_values=past,
        )
        return self.soft_prompts.decoder.hidden_states(inputs)[:, 0].float()
