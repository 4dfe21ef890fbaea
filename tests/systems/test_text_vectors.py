"""Text vectors against a slow mean of one text at a time, with a causal model and with an encoder."""

from pathlib import Path

import pytest
import torch
from transformers import RobertaConfig, RobertaModel

from llmsrec.core.errors import ArtifactError
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import Backbone, load_backbone, load_encoder
from llmsrec.systems.text_vectors import encoded, text_vectors


@pytest.fixture
def encoder(small_backbone: Path, tmp_path: Path) -> Backbone:
    """A bidirectional encoder with random weights and RoBERTa's shape, by its folder."""
    tokenizer = load_backbone(small_backbone).tokenizer
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=66, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return load_encoder(str(tmp_path / "encoder"))


def slow(text: str, backbone: Backbone, max_tokens: int) -> torch.Tensor:
    tokens = backbone.tokenizer(text)["input_ids"][:max_tokens]
    with torch.no_grad():
        return backbone.model(input_ids=torch.tensor([tokens])).last_hidden_state[0].mean(dim=0)


def test_a_text_vector_does_not_depend_on_its_batch(
    small_backbone: Path, encoder: Backbone
) -> None:
    """Padding and batch mates count for nothing, in a causal model and in one that looks both ways."""
    texts = ["a lamp", "", "a very long lamp that stands on a very long table " * 5, "lamp"]
    for backbone in (load_backbone(small_backbone), encoder):
        found = encoded(texts, backbone, 40)
        assert found.shape == (4, backbone.hidden_size)
        assert (found[1] == 0).all()
        for row in (0, 2, 3):
            torch.testing.assert_close(found[row], slow(texts[row], backbone, 40))


def test_items_are_read_by_title_and_description(
    markov_splits: Splits, small_backbone: Path
) -> None:
    backbone = load_backbone(small_backbone)
    items = markov_splits.catalog.items.copy()
    items["description"] = ["" if index % 2 else f"Text {index}" for index in items.item_index]
    found = text_vectors(type(markov_splits.catalog)(items), backbone, 64)
    assert found.shape == (markov_splits.num_items + 1, backbone.hidden_size)
    assert (found[0] == 0).all()
    for index in (1, 2):
        title, description = items["title"].iat[index - 1], items["description"].iat[index - 1]
        text = f"{title}. {description}" if description else title
        torch.testing.assert_close(found[index], slow(text, backbone, 64))


def test_the_error_names_a_missing_encoder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere cannot be loaded"):
        load_encoder(str(tmp_path / "nowhere"))
