"""Texts as vectors of a frozen encoder: the mean of its last states (specification 4.3).

The paper reads with RoBERTa-base. Here the pipeline's language model does, unless a setting `encoder` names
another one: the small backbone needs no download, and its vectors are not those of RoBERTa.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from llmsrec.data.catalog import Catalog
from llmsrec.llm.backbone import Backbone, load_encoder
from llmsrec.llm.padding import length_chunks, right_pad
from llmsrec.sequential.sasrec import SASRec
from llmsrec.systems.system import TrainingInput

OWN = "backbone"  # the language model of the pipeline


def encoder_of(name: str, inputs: TrainingInput) -> Backbone:
    """`backbone`, or the folder or hub name of any encoder."""
    return inputs.language_model() if name == OWN else load_encoder(name, inputs.device)


def text_vectors(
    catalog: Catalog, backbone: Backbone, max_tokens: int
) -> Float[Tensor, "indices size"]:
    """The vectors of each item's title and description; row 0 is padding and zero."""
    return encoded(texts_of(catalog), backbone, max_tokens)


def texts_of(catalog: Catalog) -> list[str]:
    """Title and description by item_index; that of padding is empty."""
    items = catalog.items
    parts = zip(items["title"].tolist(), items["description"].tolist(), strict=True)
    return ["", *(". ".join(part for part in both if part) for both in parts)]


@torch.no_grad()
def encoded(
    texts: Sequence[str], backbone: Backbone, max_tokens: int
) -> Float[Tensor, "texts size"]:
    """The mean of the last states over the first `max_tokens` tokens of a text; an empty text gives zeros."""
    return mean_states(tokenised(texts, backbone, max_tokens), backbone)


def tokenised(texts: Sequence[str], backbone: Backbone, max_tokens: int) -> list[list[int]]:
    rows = backbone.tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    return [list(row) if text else [] for row, text in zip(rows, texts, strict=True)]


def mean_states(rows: list[list[int]], backbone: Backbone) -> Float[Tensor, "texts size"]:
    """The mean last state of each row of tokens, with gradients where the encoder is trained."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    full = np.flatnonzero(lengths)
    places = [np.flatnonzero(lengths == 0)]
    means = [torch.zeros(len(places[0]), backbone.hidden_size, device=backbone.device)]
    order = np.argsort(lengths[full], kind="stable")
    for rows_of_chunk in length_chunks(order, lengths[full], backbone.device):
        chunk = full[rows_of_chunk]
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
    """Vectors centred and scaled to spread 1: a language model's states share a large mean that no item differs in."""
    centred = vectors - vectors[1:].mean(dim=0)
    centred = centred / centred[1:].std().clamp(min=1e-8)
    centred[0] = 0
    return centred


def principal(
    vectors: Float[Tensor, "indices width"], size: int
) -> Float[Tensor, "indices components"]:
    """The first principal components of the items, at most `size`; the greatest weight of each is positive."""
    centred = standardised(vectors)
    _, _, axes = torch.linalg.svd(centred[1:], full_matrices=False)
    axes = axes[:size]
    strongest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return centred @ (axes * strongest.sign()).T


def whitened(
    vectors: Float[Tensor, "indices width"], size: int
) -> Float[Tensor, "indices components"]:
    """The first principal components of the items, at most `size`, each scaled to standard deviation 1 (BERT-whitening,
    arXiv 2103.15316). Components with less than 1e-4 of the spread of the first are rounding and left out."""
    components = principal(vectors, size)
    spreads = components[1:].std(dim=0)
    real = spreads > 1e-4 * spreads[0]
    return components[:, real] / spreads[real]


def start_table(network: SASRec, components: Float[Tensor, "indices components"]) -> None:
    """The first columns of the item table become `components`, scaled to its standard deviation."""
    with torch.no_grad():
        table = network.item_embedding.weight
        scale = table[1:].std() / components[1:].std()
        table[1:, : components.shape[1]] = scale * components[1:].to(table.device)
