"""Every fast path equals the oracle: representations, the three losses, and the gradients of all that is trained."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, Qwen2Config

from llmsrec.core.config import load_section
from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.data.splits import Splits
from llmsrec.llm import padding
from llmsrec.llm.backbone import Backbone
from llmsrec.student.config import StudentConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.trainer import StudentTrainer
from llmsrec.training.seeding import generator
from tests.student.conftest import HIDDEN
from tests.student.oracle import Oracle, assert_close, gradients

Build = Callable[..., LLMSRec]
DAY = 86_400_000


def random_histories(seed: int, rows: int, longest: int, num_items: int) -> Sequences:
    draws = np.random.default_rng(seed)
    lengths = draws.integers(1, longest + 1, size=rows)
    items = [(1 + draws.permutation(num_items)[:length]).tolist() for length in lengths]
    times = [np.sort(draws.integers(10_000, 20_000, length) * DAY).tolist() for length in lengths]
    return from_rows(items, times)


def student_config(**changes: Any) -> StudentConfig:
    section = vars(load_section(StudentConfig, "student"))
    small = {
        "shared_size": 12,
        "head_size": 24,
        "batch_size": 5,
        "prefix_cache_gb": 0.0,
        "train_negatives": 3,
        "stride": 2,
        "item_vector_dropout": 0.0,
    }
    return StudentConfig(**{**section, **small, **changes})


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from(["full", "lean"]))
def test_users_equal_the_oracle_in_any_batch(
    student: Build, backbone: Backbone, causal_lm: Any, seed: int, longest: int, prompt: str
) -> None:
    model = student(backbone, prompt=prompt)
    histories = random_histories(seed, 5, longest, 40)
    assert_close(model.represent_users(histories), Oracle(model, causal_lm).users(histories))


@pytest.mark.parametrize("prompt", ["full", "lean"])
@pytest.mark.parametrize("cached", [False, True])
def test_items_equal_the_oracle_with_and_without_kept_texts(
    student: Build, backbone: Backbone, causal_lm: Any, cached: bool, prompt: str
) -> None:
    model = student(backbone, prompt=prompt)
    assert model.cache_prefixes(1.0 if cached else 0.0) is cached
    items = np.array([7, 3, 3, 40, 1, 22])
    assert_close(model.represent_items(items), Oracle(model, causal_lm).items(items.tolist()))


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10_000), st.integers(1, 10), st.sampled_from(["full", "lean"]))
def test_a_growing_history_equals_separate_prompts(
    student: Build, backbone: Backbone, causal_lm: Any, seed: int, longest: int, prompt: str
) -> None:
    model = student(backbone, prompt=prompt)
    oracle = Oracle(student(backbone, prompt=prompt), causal_lm)
    histories = random_histories(seed, 4, longest, 40)
    first = np.random.default_rng(seed).integers(0, histories.lengths)
    expected = [
        oracle.user(histories[row][:end], histories.times(row)[:end], None)
        for row in range(len(histories))
        for end in range(int(first[row]) + 1, int(histories.lengths[row]) + 1)
    ]
    assert_close(model.represent_growing_users(histories, first), torch.stack(expected))


def test_chunks_do_not_change_the_result(
    student: Build, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, histories = student(backbone), random_histories(5, 9, 10, 40)
    first = np.zeros(9, dtype=np.int64)
    whole = model.represent_growing_users(histories, first)
    monkeypatch.setattr(padding, "TRAINING_TOKENS", 60)
    assert_close(model.represent_growing_users(histories, first), whole.detach().double())


@pytest.mark.parametrize("examples", ["last_item", "auto_regressive"])
@pytest.mark.parametrize("in_batch", [False, True])
@pytest.mark.parametrize("cache", [0.0, 1.0])
def test_losses_and_gradients_equal_the_oracle(
    student: Build,
    backbone: Backbone,
    causal_lm: Any,
    markov_splits: Splits,
    examples: str,
    in_batch: bool,
    cache: float,
) -> None:
    config = student_config(
        examples=examples, in_batch=in_batch, catalogue_negatives=7 if in_batch else 0, window=4
    )
    model = student(backbone, window=4)
    model.cache_prefixes(cache)
    trainer = StudentTrainer(model, markov_splits, config)
    oracle = Oracle(model, causal_lm)
    rows = np.array([3, 200, 11, 299])
    terms = trainer.losses(rows, generator(9))
    terms["loss"].backward()
    expected = oracle_losses(oracle, trainer, rows)
    for name, value in terms.items():
        assert_close(value.detach(), expected[name].detach())
    expected["loss"].backward()
    actual, slow = gradients(model.heads), gradients(oracle.heads)
    assert actual.keys() == slow.keys()
    together = torch.cat([actual[name].flatten() for name in slow])
    exact = torch.cat([gradient.flatten() for gradient in slow.values()])
    assert (together - exact).norm() / exact.norm() < 1e-5
    for name, gradient in actual.items():  # some are 0 in theory: the items' common bias, say
        assert_close(gradient, slow[name], 1e-4, least=float(exact.abs().max()) * 1e-3)


def oracle_losses(
    oracle: Oracle, trainer: StudentTrainer, rows: np.ndarray
) -> dict[str, torch.Tensor]:
    """Specification 4.9 in loops; what is drawn at random is drawn again from the same generator."""
    examples, config, draws = trainer.examples, trainer.config, generator(9)
    read_outs = examples.read_outs(rows)
    owners, ends = examples.read_out_users()[read_outs], examples.history_lengths()[read_outs]
    train = examples.train
    users, targets, taught = [], [], []
    for user, end in zip(owners.tolist(), ends.tolist(), strict=True):
        items, times = train[user][:end], train.times(user)[:end]
        users.append(oracle.user(items, times, None))
        targets.append(int(train[user][end]))
        one = train.take(np.array([user]), np.array([end]))
        taught.append(oracle.heads.teacher_head(trainer.model.teacher.represent(one)[0].double()))
    negatives = trainer.negatives.draw(owners, config.train_negatives, draws)
    shared = trainer.pool.draw(draws)
    drawn = [*negatives.ravel().tolist(), *shared.tolist()]
    vectors = {item: oracle.item(item) for item in {*targets, *drawn}}
    retrieval = []
    for place, user in enumerate(owners.tolist()):
        target = users[place] @ vectors[targets[place]]
        if config.in_batch:
            others = [item for item in vectors if item not in train[user]]
            log_weights = [-np.log(trainer.pool.inclusion_probability[item]) for item in others]
        else:
            others, log_weights = negatives[place].tolist(), [0.0] * config.train_negatives
        scores = [
            users[place] @ vectors[item] + weight
            for item, weight in zip(others, log_weights, strict=True)
        ]
        retrieval.append(torch.logsumexp(torch.stack([target, *scores]), 0) - target)
    pairs = [
        (a, b)
        for a in range(len(users))
        for b in range(a + 1, len(users))
        if owners[a] != owners[b]
    ]
    terms = {
        "retrieval": torch.stack(retrieval).mean(),
        "distillation": torch.stack(
            [(unit(a) - unit(b)).square().mean() for a, b in zip(users, taught, strict=True)]
        ).mean(),
        "uniformity": sum(
            torch.stack(
                [torch.exp(-2 * (unit(side[a]) - unit(side[b])).square().sum()) for a, b in pairs]
            ).mean()
            for side in (users, taught)
        ),
    }
    loss = terms["retrieval"] + config.distillation_weight * terms["distillation"]
    return {"loss": loss + config.uniformity_weight * terms["uniformity"], **terms}


def unit(vector: torch.Tensor) -> torch.Tensor:
    return functional.normalize(vector, dim=0)


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2),
        GPTNeoXConfig(hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=2,
                      num_attention_heads=4),
        GPT2Config(n_embd=HIDDEN, n_layer=2, n_head=4),
    ],
    ids=["qwen2", "gpt_neox", "gpt2"],
)  # fmt: skip
def test_other_architectures_equal_their_own_oracle(
    student: Build, tokenizer: Any, config: Any
) -> None:
    """Qwen2 takes the fast path, the others their own forward pass with our masks and positions."""
    config.vocab_size = len(tokenizer)
    torch.manual_seed(4)
    lm = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    model = student(Backbone(lm.base_model, tokenizer, "random"))
    assert model.soft_prompts.decoder.is_llama is (config.model_type == "qwen2")
    oracle, histories = Oracle(model, lm), random_histories(6, 4, 6, 40)
    assert_close(model.represent_users(histories), oracle.users(histories))
    growing = model.represent_growing_users(histories, histories.lengths - 1)
    assert_close(growing, oracle.users(histories))
    for budget in (0.0, 1.0):
        model.cache_prefixes(budget)
        assert_close(model.represent_items(np.array([5, 9])), oracle.items([5, 9]))


def test_the_user_vector_in_the_prompt(student: Build, backbone: Backbone, causal_lm: Any) -> None:
    model = student(backbone, user_vector_in_prompt=True)
    histories = random_histories(8, 4, 6, 40)
    vectors = model.teacher.represent(histories)
    oracle = Oracle(model, causal_lm)
    assert_close(model.represent_users(histories), oracle.users(histories, vectors))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cached_texts_in_half_precision_round_trip(
    student: Build, tokenizer: Any, causal_lm: Any, dtype: torch.dtype
) -> None:
    import copy

    lm = copy.deepcopy(causal_lm).to(dtype)
    model = student(Backbone(lm.model, tokenizer, "random"))
    items = np.array([4, 8, 15])
    without = model.represent_items(items)
    model.cache_prefixes(1.0)
    assert torch.equal(model.represent_items(items), without)
