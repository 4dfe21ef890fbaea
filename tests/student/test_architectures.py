"""Architectures as tiny random models: each equals its own forward pass in every path, or is refused by name."""

import copy
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from llmsrec.backbones.trial import check_backbone
from llmsrec.core.errors import ConfigError
from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.llm import decoder
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.pretrained import settings_after_head
from llmsrec.serving.user_kv_cache import UserKVCache
from llmsrec.student.model import LLMSRec
from tests.student.oracle import Oracle, assert_close

Build = Callable[..., LLMSRec]
DAY = 86_400_000
LENGTH = 96  # tokens of the trial
WINDOW = 16  # tokens: shorter than the trial and than the prompt of one purchase

SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "sliding_window": WINDOW, "moe_intermediate_size": 16, "num_local_experts": 4,
    "num_experts": 4, "num_experts_per_tok": 2, "ffn_dim": 48, "word_embed_proj_dim": 32, "n_embd": 32, "n_layer": 2,
    "n_head": 4, "d_model": 32, "n_heads": 4, "n_layers": 2, "num_heads": 4, "num_layers": 2, "attention_heads": 4,
    "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "lru_width": 32, "state_size": 8,
    "time_step_rank": 4, "rotary_dim": 4, "shared_expert_intermediate_size": 16, "linear_num_key_heads": 2,
    "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "mamba_d_state": 8,
    "q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
MIXED: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"]}
# keys and values of different sizes
LATENT: dict[str, Any] = {"head_dim": None, "num_key_value_heads": 4}
SWA: dict[str, Any] = {"use_sliding_window": True, "max_window_layers": 1}

WORKS: dict[str, dict[str, Any]] = {
    "llama": {}, "mistral": {}, "mixtral": {}, "ministral": MIXED, "qwen2": SWA, "qwen3": SWA, "qwen3_moe": {},
    "phi": {}, "phi3": {}, "gemma": {}, "gemma2": MIXED, "gemma3_text": MIXED, "gemma3": {}, "gpt2": {}, "gpt_neox": {},
    "gpt_bigcode": {}, "gptj": {}, "codegen": {}, "opt": {}, "xglm": {}, "biogpt": {}, "falcon": {}, "granite": {},
    "granitemoe": {}, "olmo": {}, "olmo2": {}, "olmo3": MIXED, "stablelm": {}, "starcoder2": {}, "cohere": {},
    "cohere2": MIXED, "smollm3": {**SWA, **MIXED}, "gpt_oss": MIXED, "exaone4": MIXED, "glm": {}, "glm4": {},
    "deepseek_v3": LATENT, "minicpm3": LATENT, "nemotron": {}, "persimmon": {}, "helium": {}, "ernie4_5": {},
    "seed_oss": {}, "apertus": {}, "ctrl": {"dff": 48},
}  # fmt: skip
POSITIONS = "gets other states than by its own forward pass"
NOT_CAUSAL = "the state of a token depends on what follows it"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bloom": ({}, "does not read a prompt with a read-out after each purchase"),
    "mpt": ({}, POSITIONS),
    "gpt_neo": ({"attention_types": [[["global", "local"], 1]], "window_size": WINDOW}, POSITIONS),
    "bart": ({}, POSITIONS),
    "bert": ({}, NOT_CAUSAL),
    "roberta": ({}, NOT_CAUSAL),
    "electra": ({"embedding_size": 32}, NOT_CAUSAL),
    "xlnet": ({}, NOT_CAUSAL),
    "mamba": ({}, "layers of the kind linear_attention"),
    "recurrent_gemma": ({}, "layers of the kind linear_attention"),
    "jamba": ({}, "layers of the kind linear_attention"),
    "qwen3_next": ({}, "layers of the kind linear_attention"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "layers of the kind conv"),
    "rwkv": ({}, POSITIONS),
}


def tiny(kind: str, tokenizer: Any, **changes: Any) -> Any:
    """A random causal language model of this architecture, with weights large enough for attention to matter."""
    if kind == "gemma3":  # around a text model
        text = tiny("gemma3_text", tokenizer, **MIXED).config.to_dict()
        changes = {"text_config": text, "vision_config": VISION, "image_token_index": 0}
    config_class = CONFIG_MAPPING[kind]
    names = {field.name for field in dataclasses.fields(config_class)}
    values = {name: value for name, value in SMALL.items() if name in names}
    torch.manual_seed(4)
    values = {**values, "vocab_size": len(tokenizer), **changes}
    config = config_class(**{name: value for name, value in values.items() if value is not None})
    lm = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in lm.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.2)
    return lm


def backbone_of(lm: Any, tokenizer: Any) -> Backbone:
    return Backbone(lm.base_model.get_decoder(), tokenizer, "random")


def shoppers(*rows: list[int]) -> Sequences:
    return from_rows(list(rows), [[DAY * (place + 5) for place in range(len(row))] for row in rows])


@pytest.mark.parametrize("kind", WORKS)
def test_supported_models_equal_their_own_forward_pass_in_every_path(
    student: Build, tokenizer: Any, kind: str
) -> None:
    lm = tiny(kind, tokenizer, **WORKS[kind])
    check_backbone(backbone_of(lm, tokenizer), LENGTH)
    model = student(backbone_of(lm, tokenizer), window=4).eval()
    oracle = Oracle(model, lm, torch.float32)  # experts of mixtures run in no float64
    histories = shoppers([3, 9, 12], [30])
    wanted = oracle.users(histories)
    with torch.no_grad():
        assert_close(model.represent_users(histories), wanted, 1e-4)
        growing = model.represent_growing_users(histories, np.array([1, 0]))
        assert_close(growing, torch.cat([oracle.users(shoppers([3, 9])), wanted]), 1e-4)
        for budget in (0.0, 1.0):
            model.cache_prefixes(budget)
            assert_close(model.represent_items(np.array([5, 9])), oracle.items([5, 9]), 1e-4)
        users = UserKVCache(model, 100.0)
        users.represent(shoppers([3, 9]))
        assert_close(users.represent(histories), wanted, 1e-4)


@pytest.mark.parametrize("kind", WORKS)
def test_models_with_scaled_logits_are_refused_for_generation(tokenizer: Any, kind: str) -> None:
    lm = tiny(kind, tokenizer, **WORKS[kind])
    tokens = torch.arange(10, 20)[None]
    states = lm.base_model.get_decoder()(input_ids=tokens).last_hidden_state
    same = torch.allclose(
        lm.get_output_embeddings()(states), lm(input_ids=tokens).logits, 1e-4, 1e-5
    )
    assert same or settings_after_head(lm)


@pytest.mark.parametrize("kind", REFUSED)
def test_unsupported_models_are_refused_by_name(tokenizer: Any, kind: str) -> None:
    changes, reason = REFUSED[kind]
    backbone = backbone_of(tiny(kind, tokenizer, **changes), tokenizer)
    with pytest.raises(ConfigError, match=reason) as refusal:
        check_backbone(backbone, LENGTH)
    assert type(backbone.model).__name__ in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_docs_list_supported_and_refused_models() -> None:
    text = (Path(__file__).parents[2] / "docs/backbones.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| (works|refused)", text, flags=re.M)
    assert dict(rows) == {**dict.fromkeys(WORKS, "works"), **dict.fromkeys(REFUSED, "refused")}


def refusal(lm: Any, tokenizer: Any, length: int = LENGTH) -> str:
    with pytest.raises(ConfigError) as refused:
        check_backbone(backbone_of(copy.deepcopy(lm), tokenizer), length)
    return str(refused.value)


def test_a_missing_embedding_scale_is_detected(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny("gemma", tokenizer)
    monkeypatch.setattr(
        Backbone, "embed", lambda self, ids: self.model.get_input_embeddings().weight[ids]
    )
    assert f"in a batch with a shorter prompt {POSITIONS}" in refusal(lm, tokenizer)


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
def test_a_missing_sliding_window_is_detected(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    lm = tiny(kind, tokenizer, **WORKS[kind])
    monkeypatch.setattr(decoder, "_window", lambda config: None)
    assert POSITIONS in refusal(lm, tokenizer)


def test_a_window_longer_than_all_prompts_changes_nothing(tokenizer: Any) -> None:
    lm = tiny("mistral", tokenizer, sliding_window=4096)
    check_backbone(backbone_of(lm, tokenizer), LENGTH)


@pytest.mark.parametrize(("kind", "most"), [("gpt2", 64), ("llama", 95), ("opt", 64)])
def test_fewer_positions_than_a_prompt_are_refused(tokenizer: Any, kind: str, most: int) -> None:
    lm = tiny(kind, tokenizer, max_position_embeddings=most)
    found = refusal(lm, tokenizer)
    assert f"it reads {most} tokens and a prompt may have {LENGTH}" in found
    assert f"set student.max_prompt_tokens to {most}" in found
    check_backbone(backbone_of(lm, tokenizer), most)


def test_a_tokenizer_of_another_model_is_refused(tokenizer: Any) -> None:
    lm = tiny("llama", tokenizer, vocab_size=len(tokenizer) - 1)
    assert f"its embedding table {len(tokenizer) - 1} rows" in refusal(lm, tokenizer)


def test_vectors_of_another_width_than_the_states_are_refused(tokenizer: Any) -> None:
    lm = tiny("opt", tokenizer, word_embed_proj_dim=16)
    assert "token vectors 16, states 16, hidden_size of config.json 32" in refusal(lm, tokenizer)


def test_weights_that_are_not_finite_are_refused(tokenizer: Any) -> None:
    lm = tiny("llama", tokenizer)
    lm.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    assert "its states are not finite numbers" in refusal(lm, tokenizer)


def test_a_returning_user_beside_a_new_one_stays_within_the_positions(
    student: Build, tokenizer: Any
) -> None:
    """The padding of a short remainder has no position after the last of a learned table."""
    long = [3, 9, 12, 30, 31, 32]
    both = shoppers(long, long[::-1])
    roomy = student(backbone_of(tiny("gpt2", tokenizer), tokenizer), window=6)
    longest = int(roomy.prompts.users(both).lengths.max())
    lm = tiny("gpt2", tokenizer, max_position_embeddings=longest)
    model = student(backbone_of(lm, tokenizer), window=6).eval()
    users = UserKVCache(model, 100.0)
    users.represent(shoppers(long[:5]))
    with torch.no_grad():
        torch.testing.assert_close(users.represent(both), model.represent_users(both))
