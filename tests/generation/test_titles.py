"""Mode G: what its prompts show, what is written and how it is read, against the whole model run token by token."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llmsrec.core.errors import ConfigError
from llmsrec.core.files import write_json
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.generation.choices import ANSWER, PICK, ChoiceBuilder
from llmsrec.generation.titles import TitleAnswerer, TitleWriter, column_of
from llmsrec.generation.trainer import TitleTrainer
from llmsrec.llm.backbone import Backbone, load_backbone
from llmsrec.llm.heads import PromptModelConfig
from llmsrec.llm.pretrained import folder_digest
from llmsrec.llm.prompts import HIST, UREP, PromptShape
from llmsrec.llm.variants import VARIANTS
from llmsrec.preprocessing.candidates import title_labels
from llmsrec.sequential.sasrec import SASRec
from tests.student.test_exact import random_histories, student_config

CANDIDATES = np.array([[3, 9, 12, 30], [1, 2, 5, 8], [40, 7, 22, 11]])
HISTORIES = random_histories(5, 3, 6, 40)


@pytest.fixture
def writer(
    causal_lm: Any, tokenizer: PreTrainedTokenizerFast, teacher: SASRec, markov_splits: Splits
) -> Any:
    backbone = Backbone(causal_lm.model, tokenizer, "random", causal_lm)

    def build(name: str = "allmrec", **changes: Any) -> TitleWriter:
        torch.manual_seed(4)
        values: dict[str, Any] = {
            "embedding_size": 16, "hidden_size": 32, "shared_size": 12, "head_size": 24, "window": 10,
            "title_tokens": 48, "max_prompt_tokens": 1024, "user_vector_in_prompt": VARIANTS[name].user_vector,
            "backbone": "random", "teacher": teacher.digest, "item_vector_dropout": 0.0,
        }  # fmt: skip
        variant = replace(VARIANTS[name], mode="generation", code_size=None, uses_lora=False)
        config = PromptModelConfig(**{**values, **changes})
        return TitleWriter(config, backbone, teacher, markov_splits.catalog, variant, 4).eval()

    return build


def plain_states(
    model: TitleWriter, tokens: list[int], items: list[int], user: Any
) -> torch.Tensor:
    """Logits of the whole causal language model over one prompt, placeholders filled one by one."""
    left, vectors = list(items), []
    for token in tokens:
        if token >= 0:
            vectors.append(model.backbone.embed(torch.tensor(token)))
        elif token == HIST:
            vector = model.teacher.item_table[left.pop(0)]
            vectors.append(model.heads.item_projector(vector))
        else:
            assert token == UREP
            vectors.append(model.heads.user_projector(user))
    assert not left
    return model.backbone.causal_lm(inputs_embeds=torch.stack(vectors)[None]).logits[0]


def prompt_of(model: TitleWriter, row: int) -> tuple[list[int], list[int], Any]:
    prompts = model.prompts.choices(HISTORIES, CANDIDATES)
    items = prompts.items[prompts.item_offsets[row] : prompts.item_offsets[row + 1]]
    user = model.teacher.represent(HISTORIES)[row] if model.variant.user_vector else None
    return prompts.row(row).tolist(), items.tolist(), user


def test_a_prompt_shows_history_then_candidates_then_asks(
    writer: Any, tokenizer: PreTrainedTokenizerFast, markov_splits: Splits
) -> None:
    model = writer("collm")
    tokens, items, _ = prompt_of(model, 0)
    assert items == [*HISTORIES[0].tolist(), *CANDIDATES[0].tolist()]
    text = tokenizer.decode([token for token in tokens if token >= 0])
    titles = markov_splits.catalog.titles
    begun = text.index(PICK)
    assert all(f'"{titles[item]}"' in text[:begun] for item in HISTORIES[0])
    listed = "; ".join(f'"{titles[item]}" ' for item in CANDIDATES[0])
    assert text[begun:] == f"{PICK}{listed}{ANSWER}"
    assert tokens.index(UREP) < tokens.index(HIST)


def test_a_prompt_of_text_alone_has_no_placeholders(writer: Any) -> None:
    tokens, items, _ = prompt_of(writer("tallrec"), 1)
    assert items == []
    assert min(tokens) >= 0


@pytest.mark.parametrize("name", ["allmrec", "tallrec"])
def test_the_loss_is_that_of_the_title_and_its_end_alone(writer: Any, name: str) -> None:
    model = writer(name)
    targets = CANDIDATES[:, 1]
    users = model.teacher.represent(HISTORIES) if model.variant.user_vector else None
    actual = model.loss(HISTORIES, CANDIDATES, targets, users)
    each = []
    for row in range(3):
        tokens, items, user = prompt_of(model, row)
        title = model.prompts.titles[targets[row]]
        assert title[-1] == model.prompts.end
        logits = plain_states(model, [*tokens, *title], items, user).log_softmax(dim=1)
        each += [logits[len(tokens) - 1 + place, token] for place, token in enumerate(title)]
    torch.testing.assert_close(actual, -torch.stack(each).mean())


@pytest.mark.parametrize("held", [5, 1 << 12])
def test_likelihoods_equal_those_of_each_candidate_alone(
    writer: Any, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """Twenty answers behind one prompt see nothing of each other, however many tokens are held; lengths are taken
    out."""
    monkeypatch.setattr("llmsrec.generation.titles.LOGITS_CHUNK", held)
    model = writer()
    expected = []
    for row in range(3):
        tokens, items, user = prompt_of(model, row)
        scores = []
        for item in CANDIDATES[row]:
            title = model.prompts.titles[item]
            logits = plain_states(model, [*tokens, *title], items, user).log_softmax(dim=1)
            likelihoods = [
                logits[len(tokens) - 1 + place, token] for place, token in enumerate(title)
            ]
            scores.append(float(torch.stack(likelihoods).mean().detach()))
        expected.append(int(np.argmax(scores)))
    assert model.likeliest(HISTORIES, CANDIDATES).tolist() == expected


def test_generation_is_greedy(
    writer: Any, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KV cache and batches of prompts of different lengths change no token."""
    monkeypatch.setattr("llmsrec.generation.titles.MAX_NEW_TOKENS", 6)
    model = writer()
    actual = model.write_titles(HISTORIES, CANDIDATES)
    for row in range(3):
        tokens, items, user = prompt_of(model, row)
        answer: list[int] = []
        for _ in range(6):
            logits = plain_states(model, [*tokens, *answer], items, user)
            answer.append(int(logits[-1].argmax()))
            if answer[-1] == model.prompts.end:
                answer.pop()
                break
        lines = tokenizer.decode(answer).strip().splitlines()
        assert actual[row] == (lines[0] if lines else "")


def test_generation_settings_of_a_model_are_ignored(small_backbone: Path, tmp_path: Path) -> None:
    """The settings of instruct models sample, set penalties and have several end-of-text tokens."""
    shutil.copytree(small_backbone, tmp_path / "backbone")
    file = tmp_path / "backbone/model/generation_config.json"
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.8, "repetition_penalty": 1.3}
    write_json(file, {**json.loads(file.read_text()), **sampling, "eos_token_id": [2, 7]})
    place = json.loads((tmp_path / "backbone/backbone.json").read_text())
    place["revision"] = folder_digest(tmp_path / "backbone/model")
    write_json(tmp_path / "backbone/backbone.json", place)
    actual = load_backbone(tmp_path / "backbone", with_lm_head=True)
    assert actual.stop_tokens == {2, 7}
    table = actual.embed(torch.tensor([[5, 6, 5, 6, 5]]))
    mask = torch.ones(1, 5, dtype=torch.long)
    written = actual.causal_lm.generate(
        inputs_embeds=table, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=[2],
        pad_token_id=2,
    )[0].tolist()  # fmt: skip
    embedded = table
    for token in written:
        assert token == int(actual.causal_lm(inputs_embeds=embedded).logits[0, -1].argmax())
        embedded = torch.cat([embedded, actual.embed(torch.tensor([[token]]))], dim=1)


def test_a_text_ends_at_any_end_of_text_token(writer: Any) -> None:
    model = writer("tallrec")
    title = model.prompts.titles[3][:-1]
    model.stop_tokens = {model.prompts.end, 7}
    for end in sorted(model.stop_tokens):
        assert model._text([*title, end, *title]) == model._text(title)


NAMES = ["redball", "redballlarge", "teddybear", ""]


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ('"Red Ball"', 0),
        ("red ball", 0),
        ("red ball large, the", -1),  # two titles are in it
        ("redball large", 1),
        ("the Teddy Bear, please", 2),
        ("", -1),
        ("something else", -1),
    ],
)
def test_an_answer_is_one_candidate_or_none(text: str, column: int) -> None:
    """HR by substring alone would call every title that holds another one right (specification 6.17)."""
    assert column_of(text, NAMES) == column


def test_two_candidates_with_one_title_are_no_answer() -> None:
    assert column_of("red ball", ["redball", "redball"]) == -1


def test_answers_are_columns_of_the_candidates(
    writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = writer("tallrec")
    monkeypatch.setattr(model, "write_titles", lambda *_: ["bear", "nothing", "Ball"])
    monkeypatch.setattr(model, "names", ["", "ball", "bear", "train"])
    histories = from_rows([[1], [2], [3]])
    actual = TitleAnswerer(model, "greedy").answers(histories, np.array([[1, 2], [1, 3], [3, 1]]))
    assert actual.tolist() == [1, -1, 1]


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 300), st.integers(5, 20))
def test_long_titles_do_not_truncate_the_question(
    tokenizer: PreTrainedTokenizerFast, words: int, count: int
) -> None:
    """With 500-token titles a prompt and its answer keep all placeholders within the limit (specification 3)."""
    titles = ["", *(f"{'long ' * words}{number}" for number in range(30))]
    builder = ChoiceBuilder(tokenizer, titles, PromptShape(10, 48, 1024, True), count)
    histories = from_rows([list(range(1, 11))])
    candidates = np.arange(11, 11 + count)[None]
    prompts = builder.choices(histories, candidates)
    longest = max(len(title) for title in builder.titles)
    assert len(prompts.row(0)) + longest <= 1024
    assert (prompts.tokens == HIST).sum() == 10 + count
    ending = [token for token in prompts.row(0).tolist() if token >= 0][
        -len(tokenizer.encode(ANSWER)) :
    ]
    assert tokenizer.decode(ending) == ANSWER


def test_a_window_that_leaves_no_room_for_titles_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ConfigError, match="candidates leaves"):
        ChoiceBuilder(tokenizer, ["", "a"], PromptShape(10, 10, 600), 40)


def test_candidates_without_different_titles_are_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ConfigError, match="needs candidates with different titles, and the splits"):
        ChoiceBuilder(tokenizer, ["", "a"], PromptShape(10, 10, 600), 1)


def test_a_step_draws_candidates_with_other_titles_that_the_user_never_bought(
    writer: Any, markov_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = replace(markov_splits, generation_candidates=markov_splits.candidates)
    model, seen = writer("llara"), []
    loss = model.loss

    def recorded(histories: Any, candidates: Any, targets: Any, users: Any) -> Any:
        seen.append((histories, candidates, targets))
        return loss(histories, candidates, targets, users)

    monkeypatch.setattr(model, "loss", recorded)
    trainer = TitleTrainer(model, splits, student_config(batch_size=40))
    users = trainer.epochs.batch(0)
    trainer.step(0)
    (histories, candidates, targets), labels = seen[0], title_labels(markov_splits.catalog)
    train = markov_splits.train
    for row, user in enumerate(users.tolist()):
        assert targets[row] == train[user][-1]
        assert histories[row].tolist() == train[user][:-1].tolist()
        others = set(candidates[row].tolist()) - {int(targets[row])}
        assert len(others) == candidates.shape[1] - 1
        assert not others & set(train[user].tolist())
        assert len({labels[item] for item in candidates[row]}) == candidates.shape[1]
    places = [list(row).index(target) for row, target in zip(candidates, targets, strict=True)]
    assert len(set(places)) > 3
