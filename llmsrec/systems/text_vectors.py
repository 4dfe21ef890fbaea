"""Texts as vectors of a frozen encoder: the mean of its last states (SPEC 4.3).

The paper reads with RoBERTa-base. Here the comparison's language model reads unless a setting `encoder` names another
one: with the embedded backbone no weights are fetched, and its vectors are not those of RoBERTa.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from llmsrec.data.catalog import Catalog
from llmsrec.llm.backbone import Backbone, load_encoder
from llmsrec.llm.padding import length_chunks, right_pad
from llmsrec.systems.system import TrainingInput

OWN = "backbone"  # the encoder that every comparison has


def encoder_of(name: str, given: TrainingInput) -> Backbone:
    """`backbone`, or the folder or hub name of any encoder."""
    return given.language_model() if name == OWN else load_encoder(name, given.device)


def text_vectors(
    catalog: Catalog, backbone: Backbone, max_tokens: int
) -> Float[Tensor, "indices size"]:
    """Title and description of each item; row 0, the padding's, is zero."""
    return encoded(texts_of(catalog), backbone, max_tokens)


def texts_of(catalog: Catalog) -> list[str]:
    """By item_index; that of the padding is empty."""
    items = catalog.items
    parts = zip(items["title"].tolist(), items["description"].tolist(), strict=True)
    return ["", *(". ".join(part for part in both if part) for both in parts)]


@torch.no_grad()
def encoded(
    texts: Sequence[str], backbone: Backbone, max_tokens: int
) -> Float[Tensor, "texts size"]:
    """The mean of the last states over a text's own first tokens; an empty text gives zeros."""
    return mean_states(tokenised(texts, backbone, max_tokens), backbone)


def tokenised(texts: Sequence[str], backbone: Backbone, max_tokens: int) -> list[list[int]]:
    rows = backbone.tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    return [list(row) if text else [] for row, text in zip(rows, texts, strict=True)]


def mean_states(rows: list[list[int]], backbone: Backbone) -> Float[Tensor, "texts size"]:
    """Of each row of tokens; with gradients where the encoder is in training."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    full = np.flatnonzero(lengths)
    places = [np.flatnonzero(lengths == 0)]
    means = [torch.zeros(len(places[0]), backbone.hidden_size, device=backbone.device)]
    order = np.argsort(lengths[full], kind="stable")
    for some in length_chunks(order, lengths[full], backbone.device):
        chunk = full[some]
        real = np.arange(lengths[chunk].max()) < lengths[chunk][:, None]
        block = right_pad(np.concatenate([rows[row] for row in chunk]), real)
        padding = backbone.tokenizer.pad_token_id or 0
        tokens = torch.from_numpy(np.where(real, block, padding)).to(backbone.device)
        mask = torch.from_numpy(real).to(backbone.device)
        states = backbone.model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        sums = (states.float() * mask[:, :, None]).sum(dim=1)
        means.append(sums / mask.sum(dim=1, keepdim=True))
        places.append(chunk)
    back = np.argsort(np.concatenate(places), kind="stable")
    return torch.cat(means)[torch.from_numpy(back).to(backbone.device)]


def standardised(vectors: Float[Tensor, "indices size"]) -> Float[Tensor, "indices size"]:
    """Centred and of spread 1: the states of a language model share a large mean that says nothing of an item."""
    found = vectors - vectors[1:].mean(dim=0)
    found = found / found[1:].std().clamp(min=1e-8)
    found[0] = 0
    return found


def principal(
    vectors: Float[Tensor, "indices width"], size: int
) -> Float[Tensor, "indices components"]:
    """The first principal components of the items, at most `size`; of each the greatest weight is positive."""
    centred = standardised(vectors)
    _, _, axes = torch.linalg.svd(centred[1:], full_matrices=False)
    axes = axes[:size]
    strongest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return centred @ (axes * strongest.sign()).T
