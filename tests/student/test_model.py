"""What is trained and what is not, sizes, and folders in Hugging Face habits."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llmsrec.core.errors import ArtifactError, ConfigError
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import Backbone, BackboneConfig, load_backbone, pin
from llmsrec.llm.heads import Heads, PromptModelConfig
from llmsrec.sequential.sasrec import SASRec
from llmsrec.student.model import LLMSRec

Build = Callable[..., LLMSRec]


def test_the_paper_s_student_has_its_number_of_parameters() -> None:
    """Specification 3: 22,797,056 on Llama-3.2-3B (hidden size 3072) with a teacher of width 64."""
    config = PromptModelConfig(64, 3072, 128, 2048, 10, 48, 1024, False, "", "", 0.0)
    assert sum(parameter.numel() for parameter in Heads(config).parameters()) == 22_797_056


def test_soft_tokens_are_initialised_like_token_embeddings() -> None:
    torch.manual_seed(0)
    heads = Heads(PromptModelConfig(4, 4096, 4, 4, 10, 48, 1024, False, "", "", 0.0))
    table = 3.0 + 0.5 * torch.randn(200, 4096)
    heads.init_soft_tokens(table)
    assert heads.soft_tokens.mean().item() == pytest.approx(3.0, abs=0.05)
    assert heads.soft_tokens.std().item() == pytest.approx(0.5, abs=0.05)
    assert not torch.equal(heads.soft_tokens[0], heads.soft_tokens[1])


def test_item_vectors_have_dropout_in_training_only(student: Build, backbone: Backbone) -> None:
    model, whole = student(backbone, item_vector_dropout=0.5), student(backbone)
    items, histories = np.array([1, 2, 3]), from_rows([[1, 2, 3], [4, 5]])
    expected = whole.eval().represent_items(items), whole.represent_users(histories)
    model.train()
    assert not torch.equal(model.represent_items(items), expected[0])
    assert not torch.equal(model.represent_users(histories), expected[1])
    model.eval()
    assert torch.equal(model.represent_items(items), expected[0])
    assert torch.equal(model.represent_users(histories), expected[1])


def test_a_saved_student_contains_only_trained_weights(
    student: Build, backbone: Backbone, teacher: SASRec, markov_splits: Splits, tmp_path: Path
) -> None:
    model = student(backbone)
    model.save_pretrained(tmp_path / "student")
    stored = load_file(tmp_path / "student" / "model.safetensors")
    assert stored.keys() == model.heads.state_dict().keys()
    assert json.loads((tmp_path / "student" / "config.json").read_text())["window"] == 10
    again = LLMSRec.from_pretrained(
        tmp_path / "student", backbone=backbone, teacher=teacher, catalog=markov_splits.catalog
    )
    histories = from_rows([[1, 2, 3], [4]])
    assert torch.equal(again.represent_users(histories), model.represent_users(histories))
    assert torch.equal(
        again.represent_items(np.array([1, 2])), model.represent_items(np.array([1, 2]))
    )


def test_a_student_refuses_another_teacher(
    student: Build, backbone: Backbone, markov_splits: Splits, tmp_path: Path
) -> None:
    model = student(backbone)
    model.save_pretrained(tmp_path / "student")
    other = SASRec(model.teacher.config)
    with pytest.raises(ArtifactError, match="trained with another teacher"):
        LLMSRec.from_pretrained(
            tmp_path / "student", backbone=backbone, teacher=other, catalog=markov_splits.catalog
        )


def test_the_small_backbone_is_pinned_by_its_content(small_backbone: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "backbone"
    shutil.copytree(small_backbone, folder)
    actual = load_backbone(folder)
    assert not any(parameter.requires_grad for parameter in actual.model.parameters())
    config = folder / "model" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ArtifactError, match="not the model that was pinned"):
        load_backbone(folder)


def backbone_config(model: str) -> BackboneConfig:
    return BackboneConfig(model, None, "float32", None, 2, 32, 2, 400, 1024, 5, 512, 1e-3, 0)


def test_a_local_folder_is_pinned_and_not_copied(small_backbone: Path) -> None:
    reference = pin(backbone_config(str(small_backbone / "model")))
    assert reference["kind"] == "local"
    assert reference["revision"] == load_backbone(small_backbone).digest


def test_weights_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ArtifactError, match=r"no \.safetensors weights"):
        pin(backbone_config(str(tmp_path)))


@pytest.mark.parametrize("offline", [True, False], ids=["offline mode", "no network"])
def test_a_hub_name_that_cannot_be_reached_says_what_to_check(
    offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with pytest.raises(ConfigError, match="Check the name, the network"):
        pin(backbone_config("nobody/nothing"))
