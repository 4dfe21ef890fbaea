"""The network of RECFORMER (specification 4.4): texts to the first token's state, and the matrix of item states."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.core.progress import Progress
from llmsrec.data.sequences import Sequences
from llmsrec.llm.padding import length_chunks, right_pad
from llmsrec.sequential.ranker import DotProductRanker
from llmsrec.systems.recformer.texts import PAD, TextBuilder, Texts

CHUNK = 512  # texts in a call
INITIAL = 0.02  # the standard deviation of a Longformer's initial tables


class Recformer(nn.Module):
    """A Longformer with a table of item positions.

    `item_matrix` holds every item's vector as it was read last; row 0, the padding's, is zero. It is part of the
    state, so that the best epoch's is kept, and takes no gradient."""

    item_matrix: Tensor

    def __init__(self, encoder: Any, text_builder: TextBuilder, num_items: int) -> None:
        super().__init__()
        self.encoder, self.text_builder = encoder, text_builder
        size = encoder.config.hidden_size
        self.item_position = nn.Embedding(text_builder.limits.max_items + 1, size)
        nn.init.normal_(self.item_position.weight, std=INITIAL)
        self.register_buffer("item_matrix", torch.zeros(num_items + 1, size))

    @property
    def window(self) -> int:
        return int(max(self.encoder.config.attention_window))

    @property
    def device(self) -> torch.device:
        return self.item_matrix.device

    def states(self, texts: Texts) -> Float[Tensor, "rows length size"]:
        """The states of every token."""
        block = Block(texts, self.text_builder.vocabulary.pad, self.window, self.device)
        table = self.encoder.get_input_embeddings()
        # as in RECFORMER, the Longformer adds embeddings of position and token type, then norms the sum
        embedded = table(block.tokens) + self.item_position(block.places)
        first = torch.zeros_like(block.real)
        first[:, 0] = True
        states: Tensor = self.encoder(
            inputs_embeds=embedded,
            attention_mask=block.real.long(),
            global_attention_mask=first.long(),
            token_type_ids=block.types,
            position_ids=block.positions,
        ).last_hidden_state
        return states

    def together(self, texts: Texts) -> list[Int[np.ndarray, "rows"]]:
        """Batches of rows of similar length, so that a short text is not padded to the longest."""
        lengths = -(-texts.lengths // self.window) * self.window
        return length_chunks(np.argsort(lengths, kind="stable"), lengths, self.device)

    def represent(self, texts: Texts) -> Float[Tensor, "rows size"]:
        """The first token's state, normalised: the product of two is their cosine."""
        parts = self.together(texts)
        firsts = torch.cat([self.states(texts.take(rows))[:, 0] for rows in parts])
        back = torch.from_numpy(np.argsort(np.concatenate(parts))).to(self.device)
        return functional.normalize(firsts, dim=-1)[back]

    @torch.no_grad()
    def read_items(self) -> None:
        """Recompute the states of all items, without dropout."""
        training = self.training
        self.eval()
        items = np.arange(1, len(self.item_matrix))
        for start in range(0, len(items), CHUNK):
            chunk = items[start : start + CHUNK]
            rows = torch.from_numpy(chunk).to(self.device)
            self.item_matrix[rows] = self.represent(self.text_builder.items(chunk))
        self.train(training)


class Block:
    """Right-padded rows of texts; their length is a multiple of the window, so that the Longformer adds no padding."""

    def __init__(self, texts: Texts, pad: int, window: int, device: torch.device) -> None:
        length = -(-int(texts.lengths.max()) // window) * window
        real = np.arange(length) < texts.lengths[:, None]

        def placed(values: np.ndarray, padding: int) -> Int[Tensor, "rows length"]:
            return torch.from_numpy(np.where(real, right_pad(values, real), padding)).to(device)

        self.real: Bool[Tensor, "rows length"] = torch.from_numpy(real).to(device)
        self.tokens = placed(texts.tokens, pad)
        self.types = placed(texts.types, PAD)
        self.places = placed(texts.places, 0)
        # counted from after the padding position, as the Longformer does for token ids
        self.positions = torch.where(self.real, torch.arange(length, device=device) + pad + 1, pad)


class RecformerRanker(DotProductRanker):
    """Cosine over temperature (specification 4.4) with the item vectors of the best epoch."""

    def __init__(self, network: Recformer, temperature: float) -> None:
        super().__init__(network.item_matrix / temperature)
        self.network = network

    @torch.no_grad()
    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]:
        network, parts = self.network.eval(), []
        progress = Progress("reading users", len(histories), "users")
        for start in range(0, len(histories), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(histories)))
            parts.append(
                network.represent(network.text_builder.users(histories.take(rows))).cpu().numpy()
            )
            progress.advance(len(rows))
        return (
            np.concatenate(parts)
            if parts
            else np.zeros((0, self.item_vectors.shape[1]), np.float32)
        )
