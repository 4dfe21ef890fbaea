"""The network of RECFORMER (SPEC 4.4): texts in, the first token's state out, and the items' states of an epoch."""

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
from llmsrec.systems.recformer.texts import PAD, Texts, Writer

CHUNK = 512  # texts written at a time
INITIAL = 0.02  # the spread with which a Longformer's tables start


class Recformer(nn.Module):
    """A Longformer with a table of item positions.

    `item_matrix` holds every item's vector as it was read last; row 0, the padding's, is zero. It is part of the
    state, so that the best epoch's is kept, and takes no gradient."""

    item_matrix: Tensor

    def __init__(self, encoder: Any, writer: Writer, num_items: int) -> None:
        super().__init__()
        self.encoder, self.causal_lm = encoder, writer
        size = encoder.config.hidden_size
        self.item_position = nn.Embedding(writer.limits.max_items + 1, size)
        nn.init.normal_(self.item_position.weight, std=INITIAL)
        self.register_buffer("item_matrix", torch.zeros(num_items + 1, size))

    @property
    def window(self) -> int:
        return int(max(self.encoder.config.attention_window))

    @property
    def device(self) -> torch.device:
        return self.item_matrix.device

    def states(self, texts: Texts) -> Float[Tensor, "rows length size"]:
        """Of every token."""
        block = Block(texts, self.causal_lm.vocabulary.pad, self.window, self.device)
        table = self.encoder.get_input_embeddings()
        # the Longformer adds the embeddings of position and token type, then norms the sum: RECFORMER's order
        embedded = table(block.tokens) + self.item_position(block.places)
        first = torch.zeros_like(block.real)
        first[:, 0] = True
        found: Tensor = self.encoder(
            inputs_embeds=embedded,
            attention_mask=block.real.long(),
            global_attention_mask=first.long(),
            token_type_ids=block.types,
            position_ids=block.positions,
        ).last_hidden_state
        return found

    def together(self, texts: Texts) -> list[Int[np.ndarray, "rows"]]:
        """Rows of like length, to be read at a time: a short text is not padded to the longest."""
        lengths = -(-texts.lengths // self.window) * self.window
        return length_chunks(np.argsort(lengths, kind="stable"), lengths, self.device)

    def represent(self, texts: Texts) -> Float[Tensor, "rows size"]:
        """The first token's state, of length 1: a product of two is their cosine."""
        parts = self.together(texts)
        firsts = torch.cat([self.states(texts.take(rows))[:, 0] for rows in parts])
        back = torch.from_numpy(np.argsort(np.concatenate(parts))).to(self.device)
        return functional.normalize(firsts, dim=-1)[back]

    @torch.no_grad()
    def read_items(self) -> None:
        """Every item anew, without dropout."""
        training = self.training
        self.eval()
        items = np.arange(1, len(self.item_matrix))
        for start in range(0, len(items), CHUNK):
            some = items[start : start + CHUNK]
            rows = torch.from_numpy(some).to(self.device)
            self.item_matrix[rows] = self.represent(self.causal_lm.items(some))
        self.train(training)


class Block:
    """Texts as right-padded rows, as long as the Longformer's windows ask for, so that it pads nothing itself."""

    def __init__(self, texts: Texts, pad: int, window: int, device: torch.device) -> None:
        length = -(-int(texts.lengths.max()) // window) * window
        real = np.arange(length) < texts.lengths[:, None]

        def placed(values: np.ndarray, padding: int) -> Int[Tensor, "rows length"]:
            return torch.from_numpy(np.where(real, right_pad(values, real), padding)).to(device)

        self.real: Bool[Tensor, "rows length"] = torch.from_numpy(real).to(device)
        self.tokens = placed(texts.tokens, pad)
        self.types = placed(texts.types, PAD)
        self.places = placed(texts.places, 0)
        # counted from behind the padding's own position, as the Longformer does where it sees the tokens
        self.positions = torch.where(self.real, torch.arange(length, device=device) + pad + 1, pad)


class RecformerRanker(DotProductRanker):
    """Cosine by temperature (SPEC 4.4), of the item vectors that the training kept."""

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
                network.represent(network.causal_lm.users(histories.take(rows))).cpu().numpy()
            )
            progress.advance(len(rows))
        return (
            np.concatenate(parts)
            if parts
            else np.zeros((0, self.item_vectors.shape[1]), np.float32)
        )
