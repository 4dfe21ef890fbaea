"""Folders of pretrained models: one that is not whole, or no causal language model, is refused and leaves nothing."""

import copy
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
)

from llmsrec.backbones.build import write_backbone
from llmsrec.backbones.small import train_tokenizer
from llmsrec.core.errors import ArtifactError, LLMSRecError
from llmsrec.data.splits import Splits
from llmsrec.llm import backbone, pretrained
from llmsrec.llm.backbone import BackboneConfig, load_backbone, load_encoder
from llmsrec.llm.pretrained import load_causal_lm

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PROMPT_TOKENS = 64


def llama(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    values = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**values, **changes}))


@pytest.fixture(scope="module")
def tokenizer(markov_splits: Splits) -> PreTrainedTokenizerFast:
    return train_tokenizer(markov_splits.catalog, 400)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "llama"
    llama(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported model that a test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def config(model: str, dtype: Any = "float32") -> BackboneConfig:
    return BackboneConfig(model, None, dtype, None, 2, 32, 2, 400, 1024, 5, 512, 1e-3, 0)


def refusal(model: Path, tmp_path: Path) -> str:
    """The message for a folder that is refused, after which nothing is left."""
    with pytest.raises(LLMSRecError) as refused:
        write_backbone(config(str(model)), None, tmp_path / "out" / "backbone", PROMPT_TOKENS)
    assert list((tmp_path / "out").iterdir()) == []
    assert "\n" not in str(refused.value)
    return str(refused.value)


def edit(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    document = {**json.loads(file.read_text()), **changes}
    kept = {key: value for key, value in document.items() if value is not None}
    file.write_text(json.dumps(kept))


def rewrite(model: Path, change: Callable[[str], str | None]) -> None:
    """Rename tensors; None drops one."""
    tensors = load_file(model / "model.safetensors")
    named = {change(name): tensor for name, tensor in tensors.items()}
    named.pop(None, None)
    save_file(named, model / "model.safetensors", metadata={"format": "pt"})


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def only_pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def only_adapter(model: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        (model / name).unlink()
    save_file({"lora_A": torch.zeros(1)}, model / "adapter_model.safetensors")
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "nobody/nothing"}')


def with_adapter(model: Path) -> None:
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "nobody/nothing"}')


def without_shard(model: Path) -> None:
    whole = LlamaForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    whole.save_pretrained(model, max_shard_size="20KB")
    sorted(model.glob("*-of-*.safetensors"))[1].unlink()


def remote(model: Path) -> None:
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    edit(model / "config.json", model_type="own", auto_map=auto_map)
    (model / "own.py").write_text("raise SystemExit('remote code was run')")


def quantised(method: str) -> Callable[[Path], None]:
    settings = {
        "quant_method": method,
        "bits": 4,
        "group_size": 128,
        "load_in_4bit": method == "bitsandbytes",
    }
    return lambda model: edit(model / "config.json", quantization_config=settings)


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights under the name that DDP gives": (
        lambda model: rewrite(model, lambda name: f"module.{name}"),
        "they lack model.embed_tokens.weight, .* also hold module.lm_head.weight",
    ),
    "one weight missing": (
        lambda model: rewrite(model, lambda name: None if "1.mlp.up_proj" in name else name),
        "they lack model.layers.1.mlp.up_proj.weight: save the whole model",
    ),
    "fewer layers than config.json says": (
        lambda model: edit(model / "config.json", num_hidden_layers=3),
        "they lack model.layers.2.input_layernorm.weight, .* and 6 more",
    ),
    "more layers than config.json says": (
        lambda model: edit(model / "config.json", num_hidden_layers=1),
        "they also hold model.layers.1.input_layernorm.weight",
    ),
    "other shapes than config.json says": (
        lambda model: edit(model / "config.json", intermediate_size=32),
        r"wrong shape: model.layers.0.mlp.down_proj.weight \(\[16, 24\], expected \[16, 32\]\)",
    ),
    "a config that is impossible": (
        lambda model: edit(model / "config.json", num_attention_heads=3),
        "cannot be loaded .StrictDataclassClassValidationError",
    ),
    "a Git LFS pointer for weights": (
        lambda model: (model / "model.safetensors").write_text(POINTER),
        "model.safetensors is a pointer of Git LFS: run `git lfs pull`",
    ),
    "a Git LFS pointer for the tokenizer": (
        lambda model: (model / "tokenizer.json").write_text(POINTER),
        "tokenizer.json is a pointer of Git LFS",
    ),
    "weights cut short": (
        lambda model: cut(model / "model.safetensors", 6000),
        "model.safetensors is cut short or damaged .*: fetch it again",
    ),
    "no weights in the file": (
        lambda model: cut(model / "model.safetensors", 0),
        "model.safetensors is cut short or damaged",
    ),
    "a shard missing": (without_shard, "00002-of-.*safetensors.: fetch it again"),
    "weights of another name": (
        lambda model: (model / "model.safetensors").rename(model / "consolidated.safetensors"),
        "no file named model.safetensors",
    ),
    "pickled weights alone": (only_pickled, "no .safetensors weights but pytorch_model.bin"),
    "an adapter alone": (only_adapter, "holds an adapter .*merge it into its model"),
    "an adapter beside its model": (with_adapter, "holds an adapter .*merge it into its model"),
    "no tokenizer": (
        lambda model: [file.unlink() for file in model.glob("tokenizer*")],
        "the tokenizer of .* cannot be loaded",
    ),
    "a tokenizer cut short": (
        lambda model: cut(model / "tokenizer.json", 500),
        "the tokenizer of .* cannot be loaded .JSONDecodeError",
    ),
    "no config": (lambda model: (model / "config.json").unlink(), "no config.json with a model_type"),
    "a config that is no JSON": (lambda model: cut(model / "config.json", 9), "config.json cannot be read"),
    "a config that is a list": (
        lambda model: (model / "config.json").write_text("[]"),
        "no config.json with a model_type",
    ),
    "no model_type": (
        lambda model: edit(model / "config.json", model_type=None),
        "no config.json with a model_type",
    ),
    "an unknown model_type": (
        lambda model: edit(model / "config.json", model_type="own"),
        "the model_type 'own', which transformers .* does not have",
    ),
    "a model with its own code": (remote, "comes with its own code, which is never run"),
    "an encoder-decoder": (
        lambda model: T5Config(vocab_size=500).save_pretrained(model),
        "no causal language model",
    ),
    **{
        f"weights quantised by {method}": (quantised(method), rf"its weights are quantised \({method}\)")
        for method in ("bitsandbytes", "gptq", "awq")
    },
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_incomplete_folder_is_refused(fault: str, model: Path, tmp_path: Path) -> None:
    damage, message = FAULTS[fault]
    damage(model)
    found = refusal(model, tmp_path)
    assert re.search(message, found), found


def test_a_decoder_cut_out_of_an_encoder_decoder_is_refused(
    model: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8,
             "encoder_attention_heads": 2, "decoder_attention_heads": 2}  # fmt: skip
    BartForConditionalGeneration(BartConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(
        model
    )
    assert "they also hold" in refusal(model, tmp_path)


def test_weights_that_differ_between_loads_are_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "check_complete", lambda *_: None)
    rewrite(model, lambda name: None if "1.mlp.up_proj" in name else name)
    assert "has other weights each time that it is loaded" in refusal(model, tmp_path)


def test_the_first_layers_are_those_of_the_whole_model(model: Path, tmp_path: Path) -> None:
    whole = load_causal_lm(str(model), None, torch.float32, None, with_lm_head=True)[0].model
    write_backbone(
        replace(config(str(model)), layers=1), None, tmp_path / "backbone", PROMPT_TOKENS
    )
    first = load_backbone(tmp_path / "backbone", with_lm_head=True)
    tokens = torch.tensor([[5, 7, 9]])
    with torch.no_grad():
        states = whole(tokens, output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(first.model(tokens)[0], whole.norm(states))
    write_backbone(config(str(model)), None, tmp_path / "other", PROMPT_TOKENS)
    assert first.digest != load_backbone(tmp_path / "other").digest


def test_more_layers_than_the_model_has_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has 2 layers: set backbone\.layers to at most 2"):
        write_backbone(
            replace(config(str(model)), layers=3), None, tmp_path / "backbone", PROMPT_TOKENS
        )
    with pytest.raises(ValueError, match="set num_layers for model: small"):
        replace(config("small"), layers=3)


def test_tied_heads_are_accepted(
    model: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    llama(tokenizer, tie_word_embeddings=True).save_pretrained(model)
    assert "lm_head.weight" not in load_file(model / "model.safetensors")
    write_backbone(config(str(model)), None, tmp_path / "backbone", PROMPT_TOKENS)
    assert load_backbone(tmp_path / "backbone", with_lm_head=True).causal_lm is not None


def test_a_model_without_a_head_encodes_but_does_not_generate(model: Path, tmp_path: Path) -> None:
    rewrite(model, lambda name: None if name == "lm_head.weight" else name)
    write_backbone(config(str(model)), None, tmp_path / "backbone", PROMPT_TOKENS)
    with pytest.raises(LLMSRecError, match=r"they lack lm_head\.weight"):
        load_backbone(tmp_path / "backbone", with_lm_head=True)


def test_attention_masks_in_old_exports_are_accepted(model: Path, tmp_path: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    for name in ("self_attn.rotary_emb.inv_freq", "attn.masked_bias"):
        tensors[f"model.layers.0.{name}"] = torch.zeros(2)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    write_backbone(config(str(model)), None, tmp_path / "backbone", PROMPT_TOKENS)
    assert load_backbone(tmp_path / "backbone").hidden_size == 16


def test_special_tokens_beyond_the_table_must_not_be_used(
    model: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Gemma 3 has a token for images, one more than its table has rows; a padding token is used."""
    more = copy.deepcopy(tokenizer)
    more.add_special_tokens({"additional_special_tokens": ["<image>"]})
    more.save_pretrained(model)
    write_backbone(config(str(model)), None, tmp_path / "backbone", PROMPT_TOKENS)
    more.add_special_tokens({"pad_token": "<pad>"})
    more.save_pretrained(model)
    assert f"its embedding table {len(tokenizer)} rows" in refusal(model, tmp_path)


def test_each_load_gives_the_exported_weights(model: Path, tmp_path: Path) -> None:
    metrics = write_backbone(config(str(model)), None, tmp_path / "backbone", PROMPT_TOKENS)
    stored = load_file(model / "model.safetensors")
    found = load_backbone(tmp_path / "backbone").model
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, stored[f"model.{name}"]), name
    assert metrics == {"parameters": sum(tensor.numel() for tensor in found.state_dict().values())}


def test_half_precision_is_checked_in_float32(model: Path, tmp_path: Path) -> None:
    write_backbone(config(str(model), "bfloat16"), None, tmp_path / "backbone", PROMPT_TOKENS)
    assert load_backbone(tmp_path / "backbone").model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "merges.txt", "spiece.model"]
)
def test_every_loaded_file_is_pinned(model: Path, tmp_path: Path, name: str) -> None:
    (model / "merges.txt").write_text("#version: 0.2\n")
    (model / "spiece.model").write_text("pieces")
    write_backbone(config(str(model)), None, tmp_path / "backbone", PROMPT_TOKENS)
    if name.endswith(".safetensors"):
        rewrite(model, lambda name: name)  # with other metadata
        save_file(load_file(model / name), model / name)
    else:
        with (model / name).open("a") as file:
            file.write("\n")
    with pytest.raises(LLMSRecError, match="not the model that was pinned"):
        load_backbone(tmp_path / "backbone")


def test_the_error_names_a_missing_pinned_folder(model: Path, tmp_path: Path) -> None:
    write_backbone(config(str(model)), None, tmp_path / "backbone", PROMPT_TOKENS)
    shutil.rmtree(model)
    with pytest.raises(LLMSRecError, match="model is missing"):
        load_backbone(tmp_path / "backbone")


def test_an_adapter_on_the_hub_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = [SimpleNamespace(rfilename="adapter_config.json")]
    info = SimpleNamespace(sha="0" * 40, siblings=files)
    monkeypatch.setattr(backbone.HfApi, "model_info", lambda *_, **__: info)
    assert "somebody/lora holds an adapter" in refusal(Path("somebody/lora"), tmp_path)


def test_a_special_token_in_a_title_is_text(model: Path, tmp_path: Path) -> None:
    write_backbone(config(str(model)), None, tmp_path / "backbone", PROMPT_TOKENS)
    tokenizer = load_backbone(tmp_path / "backbone").tokenizer
    assert tokenizer.eos_token_id not in tokenizer.encode("a </s> b", add_special_tokens=False)


def test_an_encoder_without_some_weights_is_refused(model: Path) -> None:
    rewrite(model, lambda name: None if "0.mlp.up_proj" in name else name)
    with pytest.raises(LLMSRecError, match=r"they lack layers\.0\.mlp\.up_proj\.weight"):
        load_encoder(str(model))
