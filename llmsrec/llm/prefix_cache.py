"""A cache of the keys and values of the item prompts' text before the placeholder.

With a frozen backbone those of `Product: "Title" ` never change. They are in a memory-mapped file or in GPU
memory; only the tokens from the placeholder on are run, forward and backward.
"""

import tempfile
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from llmsrec.core.progress import Progress
from llmsrec.data.sequences import ranges
from llmsrec.llm.decoder import Decoder
from llmsrec.llm.padding import to_device
from llmsrec.llm.pretrained import KeysValues

CHUNK_TOKENS = 1 << 14


@dataclass(frozen=True)
class Prefixes:
    """Ragged token ids: the text of item i is tokens[offsets[i]:offsets[i + 1]]."""

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
        """The tokens of these items, right padded with 0, and a mask that is false at padding."""
        lengths = self.lengths[items]
        is_token = np.arange(int(lengths.max())) < lengths[:, None]
        tokens = np.zeros(is_token.shape, dtype=np.int64)
        tokens[is_token] = self.tokens[ranges(self.offsets[items], lengths)[0]]
        return tokens, is_token


class PrefixCache:
    """Keys and values of every prefix, one row per token: of each layer the keys, then the values, by head."""

    def __init__(self, prefixes: Prefixes, decoder: Decoder) -> None:
        self.prefixes, self.decoder = prefixes, decoder
        self.shapes = _token_shapes(decoder)
        self.dtype: torch.dtype = decoder.model.dtype
        self.device: torch.device = decoder.model.device
        self.rows = self._allocate((len(prefixes.tokens), _row_size(self.shapes)))
        self._fill()

    @staticmethod
    def num_bytes(prefixes: Prefixes, decoder: Decoder) -> int:
        """The size of such a cache."""
        size = _row_size(_token_shapes(decoder))
        return len(prefixes.tokens) * size * decoder.model.dtype.itemsize

    def take(
        self, items: Int[np.ndarray, "rows"]
    ) -> tuple[KeysValues, Bool[np.ndarray, "rows tokens"]]:
        """The result of `Decoder.keys_values` for the padded prefixes, and a mask that is false at padding."""
        lengths = self.prefixes.lengths[items]
        is_token = np.arange(int(lengths.max())) < lengths[:, None]
        rows = to_device(ranges(self.prefixes.offsets[items], lengths)[0], self.device)
        padded = self.rows.new_zeros(is_token.size, self.rows.shape[1])
        padded.index_copy_(0, to_device(np.flatnonzero(is_token), self.device), self.rows[rows])
        sizes = [heads * size for heads, size in self.shapes]
        parts = [
            part.view(*is_token.shape, *shape).transpose(1, 2)
            for part, shape in zip(torch.split(padded, sizes, dim=1), self.shapes, strict=True)
        ]
        return list(zip(parts[::2], parts[1::2], strict=True)), is_token

    def _allocate(self, size: tuple[int, int]) -> Tensor:
        if self.device.type == "cuda":  # a copy from the host would take longer than the step
            return torch.empty(size, dtype=self.dtype, device=self.device)
        with tempfile.TemporaryFile(prefix="llmsrec-prefixes-") as file:  # deleted with the mapping
            mapped = np.memmap(file, _STORED[self.dtype], mode="w+", shape=size)
        return torch.from_numpy(mapped).view(self.dtype)

    def _fill(self) -> None:
        items = np.argsort(self.prefixes.lengths, kind="stable")
        items = items[self.prefixes.lengths[items] > 0]
        progress = Progress("caching item texts", len(items), "items")
        size = max(1, CHUNK_TOKENS // int(self.prefixes.lengths.max()))
        for start in range(0, len(items), size):
            chunk = items[start : start + size]
            tokens, is_token = self.prefixes.padded(chunk)
            layers = self.decoder.keys_values(to_device(tokens, self.device))
            parts = [part.transpose(1, 2).flatten(2) for pair in layers for part in pair]
            flat = torch.cat(parts, dim=2).flatten(0, 1)
            rows = ranges(self.prefixes.offsets[chunk], self.prefixes.lengths[chunk])[0]
            values = flat[to_device(np.flatnonzero(is_token), self.device)]
            self.rows.index_copy_(0, to_device(rows, self.device), values)
            progress.advance(len(chunk))


def compute_prefixes(
    prefixes: Prefixes, decoder: Decoder, items: Int[np.ndarray, "rows"]
) -> tuple[KeysValues, Bool[np.ndarray, "rows tokens"]]:
    """As `PrefixCache.take`, computed without gradients: no trained parameter stands before the placeholder."""
    tokens, is_token = prefixes.padded(items)
    return decoder.keys_values(to_device(tokens, decoder.model.device)), is_token


# numpy has no bfloat16: its bits are stored as integers
_STORED = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16,
           torch.bfloat16: np.int16}  # fmt: skip


def _token_shapes(decoder: Decoder) -> list[tuple[int, int]]:
    """Heads and size of the keys of the first layer, of its values, of the keys of the second layer, and so on."""
    layers = decoder.keys_values(torch.zeros(1, 1, dtype=torch.int64, device=decoder.model.device))
    return [(part.shape[1], part.shape[3]) for pair in layers for part in pair]


def _row_size(shapes: list[tuple[int, int]]) -> int:
    return sum(heads * size for heads, size in shapes)
