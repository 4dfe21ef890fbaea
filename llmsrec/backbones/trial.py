"""Whether a language model can be the backbone: one long text through every path that a prompt can take.

A path is a way to run a prompt: padded beside a shorter one, with read-outs on the way, after cached keys and values.
Each must give the hidden states of the model's own forward pass over the token ids (decision 18).
"""

import hashlib
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.core.errors import ConfigError
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.decoder import Decoder, DecoderInput
from llmsrec.llm.padding import segment_mask
from llmsrec.llm.pretrained import KeysValues, reason_of
from llmsrec.llm.prompts import USER_END, USER_START

TEXT = f'{USER_START}[1] 2021/05/14 "Wireless mouse, black"; [2] 2022/11/30 "Cable"{USER_END} '
TOLERANCE = 1e-3  # relative, in float32; sums in another order differ by about 1e-5
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
END = 8  # tokens of a read-out, and of an item's prompt after the cached text

States = tuple[Float[Tensor, "rows read_outs hidden"], Int[Tensor, "rows read_outs"]]


@torch.no_grad()
def check_backbone(backbone: Backbone, max_prompt_tokens: int) -> None:
    """Raise ConfigError with the first reason why prompts of so many tokens cannot be read by `backbone`.

    Its weights are converted to float32 in place, so that rounding hides no fault."""
    _check_config(backbone)
    positions = getattr(backbone.model.config, "max_position_embeddings", None) or 0
    length = min(positions, max_prompt_tokens) if positions > 0 else max_prompt_tokens
    trial = _Trial(backbone, _text(backbone, length))
    trial.check_own_states()
    if length < max_prompt_tokens:
        _refuse(
            backbone.model,
            f"it reads {length} tokens and a prompt may have {max_prompt_tokens}; set student.max_prompt_tokens to "
            f"{length}",
        )
    trial.check("in a batch with a shorter prompt", trial.padded)
    trial.check("with a read-out after each purchase", trial.growing)
    trial.check("after the cached text of an item", trial.after_text)
    trial.check("after the cached part of a user's prompt", trial.after_prompt)


def weights_digest(model: Any) -> str:
    """SHA-256 of all parameters and buffers in memory."""
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_config(backbone: Backbone) -> None:
    """The embedding table has rows for all tokens of texts, and all layers are attention."""
    tokenizer, rows = backbone.tokenizer, backbone.num_embeddings
    special = _special_ids(tokenizer)  # no text becomes one of them
    named = [getattr(tokenizer, f"{name}_token_id") or 0 for name in ("bos", "eos", "pad", "unk")]
    used = [token for token in tokenizer.get_vocab().values() if token not in special]
    highest = max([*used, *named])
    if highest >= rows:
        _refuse(
            backbone.model,
            f"its tokenizer has tokens up to number {highest} and its embedding table {rows} rows; they belong to "
            "different models",
        )
    layers = getattr(backbone.model.config, "layer_types", None) or []
    if others := sorted(set(layers) - ATTENTION):
        _refuse(
            backbone.model,
            f"it has layers of the kind {', '.join(others)}, and only attention has keys and values to cache",
        )


def _special_ids(tokenizer: Any) -> set[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {number for number, token in added.items() if token.special}


def _text(backbone: Backbone, length: int) -> Int[Tensor, "tokens"]:
    """Tokens of a prompt, repeated up to `length`."""
    tokens = backbone.tokenizer.encode(TEXT, add_special_tokens=False)
    if not set(tokens) - {backbone.tokenizer.unk_token_id}:
        _refuse(backbone.model, "its tokenizer knows nothing of the text of a prompt")
    return torch.tensor((tokens * length)[: max(length, 4 * END)], device=backbone.device)


class _Trial:
    """Two rows: all tokens of a text, and the first half of them."""

    def __init__(self, backbone: Backbone, tokens: Int[Tensor, "tokens"]) -> None:
        self.backbone, self.tokens = backbone, tokens
        self.lengths = torch.tensor([len(tokens), len(tokens) // 2], device=tokens.device)

    def check_own_states(self) -> None:
        """The model's own states are finite, as wide as its token vectors, and do not depend on later tokens."""
        model = self.backbone.model
        try:
            model.float()
            self.decoder = Decoder(model)
            self.own, short = (
                model(input_ids=self.tokens[None, :length], use_cache=False).last_hidden_state[0]
                for length in self.lengths.tolist()
            )
            sizes = {
                "token vectors": self.backbone.embed(self.tokens[:1]).shape[1],
                "states": self.own.shape[1],
                "hidden_size of config.json": self.backbone.hidden_size,
            }
        except Exception as error:  # whatever an unknown architecture raises
            _refuse(
                model, f"it does not read a text of {len(self.tokens)} tokens ({reason_of(error)})"
            )
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
            _refuse(model, f"its vectors have different sizes ({listed}) and must have one")
        if not bool(torch.isfinite(self.own).all()):
            _refuse(model, "its states are not finite numbers")
        if not _error(short, self.own[: len(short)]) <= TOLERANCE:
            _refuse(
                model,
                "the state of a token depends on what follows it; it is no causal language model, or scales positions "
                "by the length of the text",
            )

    def check(self, path: str, states_of: Callable[[], States]) -> None:
        """The states of a path equal the model's own at the same positions."""
        try:
            states, positions = states_of()
            error = _error(states, self.own[positions])
        except Exception as failure:  # whatever an unknown architecture raises
            _refuse(self.backbone.model, f"it does not read a prompt {path} ({reason_of(failure)})")
        if not error <= TOLERANCE:
            _refuse(
                self.backbone.model,
                f"a prompt read {path} gets other states than by its own forward pass (relative error {error:.1g})",
            )

    def padded(self) -> States:
        """Both rows in one batch."""
        positions, _ = _ragged(torch.zeros_like(self.lengths), self.lengths)
        columns = torch.stack([self.lengths // 2, self.lengths - 1], dim=1)
        inputs = DecoderInput(self._embedded(positions), positions, columns)
        return self.decoder.hidden_states(inputs), columns

    def growing(self) -> States:
        """Read-outs, in segments of their own, on the way and at the end of each row."""
        rows, segments, columns, ends = [], [], [], []
        for length in self.lengths.tolist():
            row: list[int] = []
            segment: list[int] = []
            places = []
            start = 0
            for number, stop in enumerate((length // 4, length // 2, length - END), start=1):
                row += [*range(start, stop), *range(stop, stop + END)]
                segment += [0] * (stop - start) + [number] * END
                places.append(len(row) - 1)
                ends.append(stop + END - 1)
                start = stop
            rows.append(torch.tensor(row))
            segments.append(torch.tensor(segment))
            columns.append(places)
        device = self.tokens.device
        positions, marks = (
            torch.nn.utils.rnn.pad_sequence(part, batch_first=True).to(device)
            for part in (rows, segments)
        )
        read_outs = torch.tensor(columns, device=device)
        inputs = DecoderInput(
            self._embedded(positions), positions, read_outs, mask=segment_mask(marks)
        )
        expected = torch.tensor(ends, device=device).view(read_outs.shape)
        return self.decoder.hidden_states(inputs), expected

    def after_text(self) -> States:
        """The last tokens of each row, after the keys and values of the tokens before them."""
        starts = self.lengths - END
        positions, _ = _ragged(torch.zeros_like(starts), starts)
        return self._continued(starts, self.decoder.keys_values(self.tokens[positions]))

    def after_prompt(self) -> States:
        """The second half of each row, after the keys and values that the first left."""
        starts, layers = self.lengths // 2, KeysValues()
        positions, _ = _ragged(torch.zeros_like(starts), starts)
        inputs = DecoderInput(
            self._embedded(positions),
            positions,
            starts[:, None] - 1,
            mask=segment_mask(torch.zeros_like(positions)),
        )
        self.decoder.hidden_states(inputs, layers)
        return self._continued(starts, layers)

    def _continued(self, starts: Int[Tensor, "rows"], past: KeysValues) -> States:
        """The last state of each row, whose tokens before `starts` are cached."""
        positions, _ = _ragged(starts, self.lengths)
        _, cached = _ragged(torch.zeros_like(starts), starts)
        count = positions.shape[1]
        new = segment_mask(torch.zeros_like(positions))
        mask = torch.cat([cached[:, None].expand(-1, count, -1), new], dim=2)
        columns = (self.lengths - starts - 1)[:, None]
        inputs = DecoderInput(self._embedded(positions), positions, columns, mask, past)
        return self.decoder.hidden_states(inputs), self.lengths[:, None] - 1

    def _embedded(self, positions: Int[Tensor, "rows tokens"]) -> Tensor:
        return self.backbone.embed(self.tokens[positions])


def _ragged(starts: Int[Tensor, "rows"], stops: Int[Tensor, "rows"]) -> tuple[Tensor, Tensor]:
    """The positions from start to stop of each row, right padded with 0, and a mask that is false at padding."""
    count = torch.arange(int((stops - starts).max()), device=starts.device)
    real = count < (stops - starts)[:, None]
    return (starts[:, None] + count) * real, real


def _error(found: Tensor, wanted: Tensor) -> float:
    """The largest relative error of a state."""
    return float(((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max())


def _refuse(model: Any, why: str) -> NoReturn:
    raise ConfigError(
        f"backbone.model: {type(model).__name__} cannot be used: {why} (docs/backbones.md lists what can)"
    )
