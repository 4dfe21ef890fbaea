"""Keys and values of shoppers who come again: until the window is full, a prompt only grows at its end.

Exact: the kept tokens are a prefix of the new prompt, and in a causal model they do not see what follows. Once the
window slides, numbers begin anew and nothing kept fits.
"""

from collections import OrderedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llmsrec.data.sequences import Sequences
from llmsrec.student.decoder import KeysValues, Rows
from llmsrec.student.model import LLMSRec
from llmsrec.student.padding import chunks, spread
from llmsrec.student.prompts import UOUT

Shown = tuple[tuple[int, int], ...]  # (item_index, ms) of a window's purchases
MB = 1 << 20


class KeptUsers:
    """The least recently seen are dropped where `megabytes` are full."""

    def __init__(self, model: LLMSRec, megabytes: float) -> None:
        assert not model.config.with_user_rep, "the vector in the prompt differs at each purchase"
        self.model, self.budget, self.bytes = model, megabytes * MB, 0
        self.kept: OrderedDict[Shown, KeysValues] = OrderedDict()

    @torch.no_grad()
    def represent(self, histories: Sequences) -> Float[Tensor, "users shared"]:
        """As `LLMSRec.represent_users`."""
        tails = histories.last(self.model.config.window)
        shown = [
            tuple(zip(tails[row].tolist(), tails.times(row).tolist(), strict=True))
            for row in range(len(tails))
        ]
        known = [self._known(key) for key in shown]
        prompts = self.model.prompts.users(tails)
        starts = np.array([0 if kept is None else _tokens(kept) for _, kept in known], np.int64)
        states = torch.zeros(
            len(tails), self.model.config.hidden_size, device=self.model.backbone.device
        )
        lengths = prompts.lengths - starts
        for some in chunks(np.argsort(lengths, kind="stable"), lengths, states.device):
            new = [prompts.row(row)[starts[row] :] for row in some.tolist()]
            items = np.concatenate([tails[row][known[row][0] :] for row in some.tolist()])
            kept = [known[row][1] for row in some.tolist()]
            states[torch.from_numpy(some).to(states.device)], grown = self._run(new, items, kept)
            for row, layers in zip(some.tolist(), grown, strict=True):
                self._keep(shown[row], layers)
        return self.model.heads.user_head(states)

    def _known(self, shown: Shown) -> tuple[int, KeysValues | None]:
        """How many of the first purchases are kept, and their keys and values."""
        for count in range(len(shown), 0, -1):
            if (kept := self.kept.get(shown[:count])) is not None:
                self.kept.move_to_end(shown[:count])
                return count, kept
        return 0, None

    def _run(
        self,
        new: list[Int[np.ndarray, "_"]],
        items: Int[np.ndarray, "n"],
        kept: list[KeysValues | None],
    ) -> tuple[Float[Tensor, "rows hidden"], list[KeysValues]]:
        """States at the read-outs, and what each row's purchases leave."""
        model, device = self.model, self.model.backbone.device
        lengths = np.array([len(row) for row in new])
        before = np.array([0 if layers is None else _tokens(layers) for layers in kept], np.int64)
        tokens = spread(np.concatenate(new), np.arange(lengths.max()) < lengths[:, None])
        past, real = _beside(kept, before, device)
        count = tokens.shape[1]
        own = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        mask = own.expand(len(new), -1, -1)
        if past is not None:
            mask = torch.cat([real[:, None].expand(-1, count, -1), mask], dim=2)
        rows = Rows(
            model.slots.embed(torch.from_numpy(tokens), items),
            positions=torch.from_numpy(before[:, None] + np.arange(count)).to(device),
            reads=torch.from_numpy((tokens == UOUT).argmax(axis=1)[:, None]).to(device),
            mask=mask,
            kept=past,
        )
        found: KeysValues = []
        states = model.slots.decoder.read(rows, found)[:, 0].float()
        ends = lengths - model.prompts.num_end_tokens
        wide = real.shape[1]
        places = zip(before.tolist(), ends.tolist(), strict=True)
        return states, [
            _cut(found, row, [*range(start), *range(wide, wide + count)])
            for row, (start, count) in enumerate(places)
        ]

    def _keep(self, shown: Shown, layers: KeysValues) -> None:
        # a longer prompt of the same shopper takes the place of the shorter
        for key in (shown[:-1], shown):
            if (old := self.kept.pop(key, None)) is not None:
                self.bytes -= _bytes(old)
        self.kept[shown] = layers
        self.bytes += _bytes(layers)
        while self.bytes > self.budget and self.kept:
            self.bytes -= _bytes(self.kept.popitem(last=False)[1])


def _beside(
    kept: list[KeysValues | None], before: Int[np.ndarray, "rows"], device: torch.device
) -> tuple[KeysValues | None, Bool[Tensor, "rows tokens"]]:
    """Right padded keys and values of all rows, and which of their tokens are real."""
    wide = int(before.max())
    real = torch.from_numpy(np.arange(wide) < before[:, None]).to(device)
    first = next((layers for layers in kept if layers is not None), None)
    if first is None:
        return None, real
    past = []
    for number, pair in enumerate(first):
        padded = []
        for part, like in enumerate(pair):
            block = like.new_zeros(len(kept), like.shape[1], wide, like.shape[3])
            for row, layers in enumerate(kept):
                if layers is not None:
                    block[row, :, : before[row]] = layers[number][part][0]
            padded.append(block)
        past.append((padded[0], padded[1]))
    return past, real


def _cut(layers: KeysValues, row: int, tokens: list[int]) -> KeysValues:
    """Of one row, and of these tokens."""
    return [
        (key[row : row + 1, :, tokens], value[row : row + 1, :, tokens]) for key, value in layers
    ]


def _tokens(layers: KeysValues) -> int:
    return layers[0][0].shape[2]


def _bytes(layers: KeysValues) -> int:
    return sum(part.nbytes for pair in layers for part in pair)
