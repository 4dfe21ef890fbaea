"""A tiny random language model around which students are built: no download, no training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from llmsrec.backbones.small import train_tokenizer
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.heads import PromptModelConfig
from llmsrec.sequential.sasrec import SASRec, SASRecConfig
from llmsrec.student.model import LLMSRec

HIDDEN = 32


@pytest.fixture(scope="session")
def tokenizer(markov_splits: Splits) -> PreTrainedTokenizerFast:
    return train_tokenizer(markov_splits.catalog, 400)


@pytest.fixture(scope="session")
def teacher(markov_splits: Splits) -> SASRec:
    torch.manual_seed(1)
    config = SASRecConfig(markov_splits.num_items, 16, 1, 1, 0.1, "pre", 32, "standard", 4)
    return SASRec(config).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def causal_lm(tokenizer: PreTrainedTokenizerFast) -> Any:
    """With its head, for the oracle."""
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def backbone(causal_lm: Any, tokenizer: PreTrainedTokenizerFast) -> Backbone:
    return Backbone(causal_lm.model, tokenizer, "random")


@pytest.fixture
def student(markov_splits: Splits, teacher: SASRec) -> Callable[..., LLMSRec]:
    def build(backbone: Backbone, **changes: Any) -> LLMSRec:
        torch.manual_seed(3)
        values = {
            "embedding_size": 16, "hidden_size": HIDDEN, "shared_size": 12, "head_size": 24,
            "window": 10, "title_tokens": 48, "max_prompt_tokens": 1024, "user_vector_in_prompt": False,
            "backbone": backbone.digest, "teacher": teacher.digest, "item_vector_dropout": 0.0,
        }  # fmt: skip
        config = PromptModelConfig(**{**values, **changes})
        model = LLMSRec(config, backbone, teacher, markov_splits.catalog)
        model.init_soft_tokens()
        return model

    return build
