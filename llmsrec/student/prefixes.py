"""What is frozen is not computed again: keys and values of the item prompts' text before their first soft slot.

`Product: "Title" ` never changes under a frozen backbone. Its keys and values are kept in a file that the system pages
in and out, or in the memory of the GPU, and only the few tokens from the slot on are run, forward and backward.
"""

import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from llmsrec.data.sequences import ranges
from llmsrec.progress import Progress
from llmsrec.student.decoder import Decoder, KeysValues
from llmsrec.student.padding import on_device

CHUNK_TOKENS = 1 << 14


@dataclass(frozen=True)
class Prefixes:
    """Ragged fixed texts: that of item i is tokens[offsets[i]:offsets[i + 1]]."""

    offsets: Int[np.ndarray, "bounds"]
    tokens: Int[np.ndarray, "n"]

    @classmethod
    def of(cls, texts: list[list[int]]) -> "Prefixes":
        offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
        return cls(offsets, np.array([token for text in texts for token in text], dtype=np.int64))

    @property
    def lengths(self) -> Int[np.ndarray, "items"]:
        return np.diff(self.offsets)

    def padded(
        self, items: Int[np.ndarray, "rows"]
    ) -> tuple[Int[np.ndarray, "rows tokens"], Bool[np.ndarray, "rows tokens"]]:
        """Right padded tokens of these items, and which of them are real."""
        lengths = self.lengths[items]
        real = np.arange(int(lengths.max())) < lengths[:, None]
        tokens = np.zeros(real.shape, dtype=np.int64)
        tokens[real] = self.tokens[ranges(self.offsets[items], lengths)[0]]
        return tokens, real


class PrefixCache:
    """Keys and values of every prefix, one row a token: layer, key or value, head, size."""

    def __init__(self, prefixes: Prefixes, decoder: Decoder) -> None:
        self.prefixes, self.decoder = prefixes, decoder
        self.shape = _token_shape(decoder.model)
        self.dtype: torch.dtype = decoder.model.dtype
        self.device: torch.device = decoder.model.device
        size = (len(prefixes.tokens), int(np.prod(self.shape)))
        if (
            self.device.type == "cuda"
        ):  # to fetch them from the host would take longer than the step
            self.rows = torch.empty(size, dtype=self.dtype, device=self.device)
        else:
            with tempfile.TemporaryFile(
                prefix="llmsrec-prefixes-"
            ) as file:  # gone with the mapping
                mapped = np.memmap(file, _STORED[self.dtype], mode="w+", shape=size)
            self.rows = torch.from_numpy(mapped).view(self.dtype)
        self._fill()

    @staticmethod
    def num_bytes(prefixes: Prefixes, model: Any) -> int:
        return len(prefixes.tokens) * int(np.prod(_token_shape(model))) * model.dtype.itemsize

    def take(
        self, items: Int[np.ndarray, "rows"]
    ) -> tuple[KeysValues, Bool[np.ndarray, "rows tokens"]]:
        """As `Decoder.keys_values` of the padded prefixes, and which of their tokens are real."""
        lengths = self.prefixes.lengths[items]
        real = np.arange(int(lengths.max())) < lengths[:, None]
        where = on_device(ranges(self.prefixes.offsets[items], lengths)[0], self.device)
        padded = self.rows.new_zeros(real.size, self.rows.shape[1])
        padded.index_copy_(0, on_device(np.flatnonzero(real), self.device), self.rows[where])
        layers = padded.view(*real.shape, *self.shape).permute(2, 3, 0, 4, 1, 5)
        return [(layer[0], layer[1]) for layer in layers], real

    def _fill(self) -> None:
        items = np.argsort(self.prefixes.lengths, kind="stable")
        items = items[self.prefixes.lengths[items] > 0]
        progress = Progress("keeping item texts", len(items), "items")
        size = max(1, CHUNK_TOKENS // int(self.prefixes.lengths.max()))
        for start in range(0, len(items), size):
            chunk = items[start : start + size]
            tokens, real = self.prefixes.padded(chunk)
            layers = self.decoder.keys_values(on_device(tokens, self.device))
            stacked = torch.stack([torch.stack(pair) for pair in layers])
            flat = stacked.permute(2, 4, 0, 1, 3, 5).flatten(2).flatten(0, 1)
            where = ranges(self.prefixes.offsets[chunk], self.prefixes.lengths[chunk])[0]
            found = flat[on_device(np.flatnonzero(real), self.device)]
            self.rows.index_copy_(0, on_device(where, self.device), found)
            progress.advance(len(chunk))


def compute_prefixes(
    prefixes: Prefixes, decoder: Decoder, items: Int[np.ndarray, "rows"]
) -> tuple[KeysValues, Bool[np.ndarray, "rows tokens"]]:
    """The same without a cache: run forward only, since nothing before the slot takes a gradient."""
    tokens, real = prefixes.padded(items)
    return decoder.keys_values(on_device(tokens, decoder.model.device)), real


# numpy has no bfloat16: its bits are kept as whole numbers
_STORED = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16,
           torch.bfloat16: np.int16}  # fmt: skip


def _token_shape(model: Any) -> tuple[int, int, int, int]:
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, 2, heads, size
