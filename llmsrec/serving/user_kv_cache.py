"""KV cache of returning users: until the window is full, a user's prompt only grows at its end.

It is exact: the cached tokens are a prefix of the new prompt, and a causal model computes them without what follows.
Once the window slides, the items are numbered differently and no cached prefix matches.
"""

from collections import OrderedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llmsrec.data.sequences import Sequences
from llmsrec.llm.decoder import DecoderInput
from llmsrec.llm.padding import length_chunks, right_pad
from llmsrec.llm.pretrained import KeysValues
from llmsrec.llm.prompts import UOUT
from llmsrec.student.model import LLMSRec

CacheKey = tuple[tuple[int, int], ...]  # (item_index, ms) of the items in a window
MB = 1 << 20


class UserKVCache:
    """An LRU cache of at most `megabytes`, by the items and timestamps of the window."""

    def __init__(self, model: LLMSRec, megabytes: float) -> None:
        assert not model.config.user_vector_in_prompt, (
            "the vector in the prompt differs at each purchase"
        )
        self.model, self.budget, self.bytes = model, megabytes * MB, 0
        self.entries: OrderedDict[CacheKey, KeysValues] = OrderedDict()

    @torch.no_grad()
    def represent(self, histories: Sequences) -> Float[Tensor, "users shared"]:
        """Equal to `LLMSRec.represent_users`."""
        tails = histories.last(self.model.config.window)
        keys = [
            tuple(zip(tails[row].tolist(), tails.times(row).tolist(), strict=True))
            for row in range(len(tails))
        ]
        prefixes = [self._longest_prefix(key) for key in keys]
        prompts = self.model.prompts.users(tails)
        starts = np.array([_num_tokens(layers) for _, layers in prefixes], np.int64)
        states = torch.zeros(
            len(tails), self.model.config.hidden_size, device=self.model.backbone.device
        )
        lengths = prompts.lengths - starts
        for chunk in length_chunks(np.argsort(lengths, kind="stable"), lengths, states.device):
            rows = chunk.tolist()
            new = [prompts.row(row)[starts[row] :] for row in rows]
            items = np.concatenate([tails[row][prefixes[row][0] :] for row in rows])
            cached = [prefixes[row][1] for row in rows]
            states[torch.from_numpy(chunk).to(states.device)], grown = self._run(new, items, cached)
            for row, layers in zip(rows, grown, strict=True):
                self._store(keys[row], layers)
        return self.model.heads.user_head(states)

    def _longest_prefix(self, key: CacheKey) -> tuple[int, KeysValues | None]:
        """The number of leading items that are cached, and their keys and values."""
        for count in range(len(key), 0, -1):
            if (layers := self.entries.get(key[:count])) is not None:
                self.entries.move_to_end(key[:count])
                return count, layers
        return 0, None

    def _run(
        self,
        new: list[Int[np.ndarray, "_"]],
        items: Int[np.ndarray, "n"],
        cached: list[KeysValues | None],
    ) -> tuple[Float[Tensor, "rows hidden"], list[KeysValues]]:
        """States at the read-outs, and the keys and values of each row's items."""
        model, device = self.model, self.model.backbone.device
        lengths = np.array([len(row) for row in new])
        before = np.array([_num_tokens(layers) for layers in cached], np.int64)
        tokens = right_pad(np.concatenate(new), np.arange(lengths.max()) < lengths[:, None])
        past, real = _pad_past(cached, before, device)
        count = tokens.shape[1]
        causal = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        mask = causal.expand(len(new), -1, -1)
        if past is not None:
            mask = torch.cat([real[:, None].expand(-1, count, -1), mask], dim=2)
        columns = np.minimum(np.arange(count), lengths[:, None] - 1)  # padding needs no position
        rows = DecoderInput(
            model.soft_prompts.embed(torch.from_numpy(tokens), items),
            positions=torch.from_numpy(before[:, None] + columns).to(device),
            columns=torch.from_numpy((tokens == UOUT).argmax(axis=1)[:, None]).to(device),
            mask=mask,
            past_key_values=past,
        )
        layers: KeysValues = []
        states = model.soft_prompts.decoder.hidden_states(rows, layers)[:, 0].float()
        width, ends = real.shape[1], lengths - model.prompts.num_end_tokens
        places = zip(before.tolist(), ends.tolist(), strict=True)
        return states, [
            _slice_tokens(layers, row, [*range(start), *range(width, width + count)])
            for row, (start, count) in enumerate(places)
        ]

    def _store(self, key: CacheKey, layers: KeysValues) -> None:
        # a longer prompt of a user replaces the shorter one
        for old_key in (key[:-1], key):
            if (old := self.entries.pop(old_key, None)) is not None:
                self.bytes -= _num_bytes(old)
        self.entries[key] = layers
        self.bytes += _num_bytes(layers)
        while self.bytes > self.budget and self.entries:
            self.bytes -= _num_bytes(self.entries.popitem(last=False)[1])


def _pad_past(
    cached: list[KeysValues | None], before: Int[np.ndarray, "rows"], device: torch.device
) -> tuple[KeysValues | None, Bool[Tensor, "rows tokens"]]:
    """Right-padded keys and values of all rows, and a mask of the tokens that are no padding."""
    width = int(before.max())
    real = torch.from_numpy(np.arange(width) < before[:, None]).to(device)
    first = next((layers for layers in cached if layers is not None), None)
    if first is None:
        return None, real
    past = []
    for number, pair in enumerate(first):
        padded = []
        for part, like in enumerate(pair):
            block = like.new_zeros(len(cached), like.shape[1], width, like.shape[3])
            for row, layers in enumerate(cached):
                if layers is not None:
                    block[row, :, : before[row]] = layers[number][part][0]
            padded.append(block)
        past.append((padded[0], padded[1]))
    return past, real


def _slice_tokens(layers: KeysValues, row: int, tokens: list[int]) -> KeysValues:
    """The keys and values of these tokens of one row."""
    return [
        (key[row : row + 1, :, tokens], value[row : row + 1, :, tokens]) for key, value in layers
    ]


def _num_tokens(layers: KeysValues | None) -> int:
    return 0 if layers is None else layers[0][0].shape[2]


def _num_bytes(layers: KeysValues) -> int:
    return sum(part.nbytes for pair in layers for part in pair)
