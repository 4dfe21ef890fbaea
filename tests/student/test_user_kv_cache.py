"""Cached keys and values of a user change no result in any batch, and stay within their memory limit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModel, GPTNeoXConfig

from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.llm.backbone import Backbone
from llmsrec.serving.user_kv_cache import UserKVCache
from llmsrec.student.model import LLMSRec

DAY = 86_400_000
LONG = [1 + (7 * step) % 39 for step in range(14)]


def shoppers(*rows: list[int]) -> Sequences:
    return from_rows(list(rows), [[DAY * (place + 5) for place in range(len(row))] for row in rows])


@pytest.fixture
def model(student: Callable[..., LLMSRec], backbone: Backbone) -> LLMSRec:
    return student(backbone, window=6).eval()


@pytest.fixture(params=["full", "lean"])
def any_model(
    request: pytest.FixtureRequest, student: Callable[..., LLMSRec], backbone: Backbone
) -> LLMSRec:
    return student(backbone, window=6, prompt=request.param).eval()


def same(model: LLMSRec, users: UserKVCache, histories: Sequences) -> None:
    with torch.no_grad():
        plain = model.represent_users(histories)
    torch.testing.assert_close(users.represent(histories), plain, atol=1e-5, rtol=1e-5)


def test_a_growing_history_equals_a_first_read(any_model: LLMSRec) -> None:
    """Also beyond the window, and when it is asked for again."""
    users = UserKVCache(any_model, 100.0)
    for length in [1, 2, 3, 3, 5, 6, 7, 8, 14, 14]:
        same(any_model, users, shoppers(LONG[:length]))


def test_for_a_returning_user_only_new_tokens_are_read(
    model: LLMSRec, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, widths, whole = UserKVCache(model, 100.0), [], model.soft_prompts.decoder.hidden_states

    def counted(rows: Any, *rest: Any) -> Any:
        widths.append(rows.positions.shape[1])
        return whole(rows, *rest)

    monkeypatch.setattr(model.soft_prompts.decoder, "hidden_states", counted)
    for length in (4, 5):
        users.represent(shoppers(LONG[:length]))
    UserKVCache(model, 100.0).represent(shoppers(LONG[:5]))
    first, again, as_new = widths
    assert first < as_new
    assert again < as_new / 2


def test_cached_and_new_users_share_a_batch(model: LLMSRec) -> None:
    users = UserKVCache(model, 100.0)
    users.represent(shoppers(LONG[:2], [5, 6, 7, 8]))
    same(model, users, shoppers(LONG[:4], [9], [5, 6, 7, 8], LONG[3:12], LONG[:4], [5, 6, 7, 30]))
    same(model, users, shoppers([30], [9, 10], LONG[:5]))


def test_the_same_items_on_other_days_are_another_history(model: LLMSRec) -> None:
    users = UserKVCache(model, 100.0)
    users.represent(shoppers([3, 4]))
    same(model, users, from_rows([[3, 4, 5]], [[DAY * 900, DAY * 901, DAY * 902]]))


def test_the_cache_works_for_another_architecture(
    student: Callable[..., LLMSRec], tokenizer: Any
) -> None:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=1024,
    )  # fmt: skip
    other = AutoModel.from_config(config).eval().requires_grad_(False)
    model = student(Backbone(other, tokenizer, "random"), window=6).eval()
    users = UserKVCache(model, 100.0)
    for length in (2, 3, 5):
        same(model, users, shoppers(LONG[:length], [9, 8]))


def test_the_least_recent_entry_is_evicted_first(model: LLMSRec) -> None:
    users = UserKVCache(model, 100.0)
    users.represent(shoppers([1, 2]))
    one = users.bytes
    assert one > 0
    small = UserKVCache(model, 2.5 * one / (1 << 20))
    for row in ([1, 2], [3, 4], [1, 2], [5, 6]):
        same(model, small, shoppers(row))
        assert small.bytes <= small.budget
    assert [key[0][0] for key in small.entries] == [1, 5]
    nothing = UserKVCache(model, 0.0)
    same(model, nothing, shoppers([1, 2]))
    assert nothing.bytes == 0


def test_a_longer_prompt_replaces_the_shorter(model: LLMSRec) -> None:
    users = UserKVCache(model, 100.0)
    users.represent(shoppers([1, 2]))
    users.represent(shoppers([1, 2, 3]))
    assert len(users.entries) == 1
    total = sum(
        part.nbytes for layers in users.entries.values() for pair in layers for part in pair
    )
    assert users.bytes == total
