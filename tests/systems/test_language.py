"""The systems that read with a language model: what is trained of each, what its prompts show, and what it learns."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llmsrec.backbones.small import build_small
from llmsrec.core.errors import ConfigError
from llmsrec.core.files import read_json, write_json
from llmsrec.data.catalog import Catalog
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import BackboneConfig, load_backbone
from llmsrec.llm.lora import add_lora
from llmsrec.llm.pretrained import folder_digest
from llmsrec.llm.prompts import HIST, UREP
from llmsrec.llm.soft_prompts import SoftPrompts
from llmsrec.llm.variants import LAYERS, VARIANTS, Lora
from llmsrec.preprocessing.candidates import draw_candidates, title_labels
from llmsrec.preprocessing.splitting import split
from llmsrec.ranking.metrics import hit_rate
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential.sasrec import SASRec, SASRecConfig
from llmsrec.sequential.trainer import TeacherConfig, train_teacher
from llmsrec.student.trainer import train_student
from llmsrec.systems.system import Answerer, TrainingInput
from llmsrec.systems.training import num_trained, train_system
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog
from llmsrec.training.seeding import seed_torch
from tests.conftest import interactions_of, splits_config
from tests.systems.small import parameters, system_from

ADAPTED = [name for name, variant in VARIANTS.items() if variant.uses_lora]
WRITERS = ["tallrec", "llara", "collm", "allmrec"]
HIDDEN, TEACHER, SHARED, HEAD, RANK = 32, 16, 12, 24, 8  # of the small_backbone, and as below


def small(**changes: Any) -> dict[str, Any]:
    """The project's parameters with small networks and short trainings."""
    document = parameters()
    document["student"] |= {"shared_size": SHARED, "head_size": HEAD, "validation_users": 60}
    document["student"] |= {"epochs": 1, "catalogue_negatives": 8} | changes
    for name in (*VARIANTS, *(f"{name}_generation" for name in WRITERS)):
        if name != "llmsrec":
            short = {"epochs": 1, "catalogue_negatives": 8} | changes
            document["systems"][name] |= short
    for name in WRITERS:
        document["systems"][f"{name}_generation"] |= {"epochs": 1, "validation_users": 20}
    document["systems"]["allmrec"]["alignment"] |= {"epochs": 1}  # that of its titles too
    return document


def small_variant(name: str, mode: str, document: dict[str, Any]) -> Any:
    return system_from(document, name if mode == "retrieval" else f"{name}_generation")


@pytest.fixture(scope="module")
def titled(few_splits: Splits) -> Splits:
    """With candidates for mode G, 9 of which are not the target."""
    labels, drawn = title_labels(few_splits.catalog), {}
    for part, stored in few_splits.candidates.items():
        drawn[part] = draw_candidates(
            few_splits.sequences, few_splits.targets[part], stored.rows, 9, labels, np.random.default_rng(1)
        )  # fmt: skip
    return replace(few_splits, generation_candidates=drawn)


@pytest.fixture
def inputs(titled: Splits, small_backbone: Path) -> TrainingInput:
    torch.manual_seed(1)
    teacher = SASRec(SASRecConfig(titled.num_items, TEACHER, 1, 1, 0.1, "pre", 32, "standard", 4))
    return TrainingInput(titled, teacher.eval().requires_grad_(False), small_backbone, seed=0)


def network(*shape: int) -> int:
    """Parameters of Linear - LayerNorm - activation - Linear."""
    inner, middle, outer = shape
    return inner * middle + 3 * middle + middle * outer + outer


def lora_size(backbone: Path, layers: str) -> int:
    """A pair of low-rank matrices beside each layer's weights."""
    found = load_backbone(backbone).model.named_parameters()
    shapes = [part.shape for name, part in found if name.split(".")[-2] in LAYERS[layers]]
    return sum(RANK * (first + second) for first, second in shapes)


def parts_of(name: str, mode: str, backbone: Path) -> int:
    """SPEC 3's table, summed by hand."""
    projector = network(TEACHER, HIDDEN, HIDDEN)
    reading = 2 * network(HIDDEN, HEAD, SHARED) + 2 * HIDDEN if mode == "retrieval" else 0
    codes = network(128, HIDDEN, HIDDEN)
    own = {
        "tallrec": lora_size(backbone, "query_value"),
        "llara": lora_size(backbone, "linear") + projector,
        "collm": lora_size(backbone, "query_value") + 2 * projector,
        "allmrec": codes + projector,
        "llmsrec": projector + network(TEACHER, SHARED, SHARED),
    }
    return reading + own[name]


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "retrieval") for name in VARIANTS), *((name, "generation") for name in WRITERS)],
)
def test_exactly_the_listed_parts_are_trained(inputs: TrainingInput, name: str, mode: Any) -> None:
    """By count; each part gets a gradient in a step, and nothing else of language model and teacher moves."""
    system = small_variant(name, mode, small())
    seed_torch(0)
    whole = system.network(inputs)
    reader = whole.reader if name == "allmrec" else whole
    assert num_trained(reader.heads) == parts_of(name, mode, inputs.backbone)
    before = {key: part.clone() for key, part in reader.backbone.model.named_parameters()}
    *_, stage = _last_two(system, whole, inputs)
    for step in range(2):  # an update of low rank starts as a product with zero
        stage.trainer.step(step)
    still = [key for key, part in reader.heads.named_parameters() if not _has_gradient(part)]
    assert still == []
    moved = {
        key for key, part in reader.backbone.model.named_parameters() if not part.equal(before[key])
    }
    assert all("lora_" in key for key in moved)
    assert bool(moved) == VARIANTS[name].uses_lora
    assert all(part.grad is None for part in inputs.teacher.parameters())


def _has_gradient(part: Tensor) -> bool:
    return part.grad is not None and bool(part.grad.abs().sum() > 0)


def _last_two(system: Any, whole: Any, inputs: TrainingInput) -> list[Any]:
    """The stages; what is trained first is trained for a step, so that what follows has something to stand on."""
    found = []
    for stage in system.stages(whole, inputs):
        found.append(stage)
        stage.trainer.step(0)
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_a_prompt_has_the_slots_of_its_system_and_no_others(
    inputs: TrainingInput, name: str
) -> None:
    model = small_variant(name, "retrieval", small()).network(inputs)
    model = getattr(model, "reader", model)
    histories = inputs.splits.histories("test").take(np.arange(5))
    tokens = model.prompts.users(histories)
    assert ((tokens.tokens == UREP).sum() == 5) == VARIANTS[name].user_vector
    assert (tokens.tokens == HIST).sum() == (
        len(histories.items) if VARIANTS[name].item_vectors else 0
    )
    item = np.array(model.prompts.item(3))
    assert (item == HIST).sum() == VARIANTS[name].item_vectors
    assert UREP not in item


@pytest.mark.parametrize("name", ADAPTED)
def test_an_adapted_model_starts_as_the_frozen_one(inputs: TrainingInput, name: str) -> None:
    """And its dropout is off outside of training."""
    lora = Lora(RANK, 16.0, 0.5, "linear" if name == "llara" else "query_value")
    adapted, plain = inputs.language_model(), inputs.language_model()
    trained = add_lora(adapted, lora)
    assert all(part.requires_grad for part in trained.values())
    tokens = torch.arange(3, 20)[None]
    found, wanted = (one.model(input_ids=tokens).last_hidden_state for one in (adapted, plain))
    torch.testing.assert_close(found, wanted)


def test_what_is_trained_in_the_language_model_drops_values_in_training_alone(
    inputs: TrainingInput,
) -> None:
    model = small_variant("tallrec", "retrieval", small()).network(inputs)
    with torch.no_grad():
        for part in model.heads.lora.values():
            part.normal_()
    histories = inputs.splits.histories("test").take(np.arange(4))
    with torch.no_grad():
        model.eval()
        assert torch.equal(model.represent_users(histories), model.represent_users(histories))
        model.train()
        assert not torch.equal(model.represent_users(histories), model.represent_users(histories))


def test_items_read_by_what_is_trained_take_gradients_through_their_whole_text(
    inputs: TrainingInput,
) -> None:
    """As through the language model's own forward pass: with the keys and values of titles kept, as for a frozen
    model, a part of each gradient would be missing."""
    model = small_variant("llara", "retrieval", small()).network(inputs)
    with torch.no_grad():
        for part in model.heads.lora.values():
            part.normal_(std=0.1)
    assert not model.cache_prefixes(1.0)
    model.eval()
    items = np.arange(1, 6)

    def gradients(vectors: Tensor) -> dict[str, Tensor]:
        model.heads.zero_grad()
        vectors.square().sum().backward()
        return {name: part.grad.clone() for name, part in model.heads.lora.items()}

    states = []
    for item in items.tolist():
        tokens = torch.tensor(model.prompts.item(item))[None]
        embedded = model.soft_prompts.embed(tokens, np.array([item]))
        states.append(model.backbone.model(inputs_embeds=embedded).last_hidden_state[0, -1])
    wanted = model.heads.item_head(torch.stack(states))
    found = model.represent_items(items)
    torch.testing.assert_close(found, wanted)
    plain, ours = gradients(wanted), gradients(found)
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-2, atol=1e-3)


def test_llm_srec_as_a_system_is_the_student(inputs: TrainingInput, tmp_path: Path) -> None:
    """The same seed gives the same bits by either function."""
    system: Any = small_variant("llmsrec", "retrieval", small())
    found = train_system(system, inputs, tmp_path / "out", tmp_path / "scratch", "key")
    wanted = train_student(
        inputs.splits, inputs.teacher, inputs.language_model(), system.config, MetricLog(), Checkpoints(None, "")
    )  # fmt: skip
    assert found.heads.state_dict().keys() == wanted.heads.state_dict().keys()
    for name, part in wanted.heads.state_dict().items():
        assert torch.equal(part, found.heads.state_dict()[name]), name


@pytest.mark.parametrize("finetune", [True, False])
def test_a_llmrec_s_codes_are_fixed_in_stage_2_and_counted_as_trained(
    inputs: TrainingInput, tmp_path: Path, finetune: bool
) -> None:
    """Whether trained now or found again; a text encoder is trained in float32 whatever the backbone is in."""
    document = small()
    document["systems"]["allmrec"]["alignment"]["finetune_text"] = finetune
    shutil.copytree(inputs.backbone, tmp_path / "backbone")
    place = read_json(tmp_path / "backbone/backbone.json")
    write_json(tmp_path / "backbone/backbone.json", place | {"dtype": "bfloat16"})
    inputs = replace(inputs, backbone=tmp_path / "backbone")
    system: Any = small_variant("allmrec", "retrieval", document)
    seed_torch(0)
    whole = system.network(inputs)
    count = num_trained(whole)
    encoder = sum(part.numel() for part in inputs.language_model().model.parameters())
    codes = network_of_codes(HIDDEN)
    assert count == parts_of("allmrec", "retrieval", inputs.backbone) + codes + encoder * finetune
    assert {part.dtype for part in whole.parameters()} == {torch.float32}
    *_, last = system.stages(whole, inputs)
    before = {name: part.clone() for name, part in whole.alignment.state_dict().items()}
    table = whole.reader.soft_prompts.table.clone()
    last.trainer.step(0)
    after = whole.alignment.state_dict()
    assert all(torch.equal(after[name], part) for name, part in before.items())
    assert torch.equal(whole.reader.soft_prompts.table, table)
    assert table[1:].std() > 0
    for folder in ("now", "again"):
        found = train_system(system, inputs, tmp_path / "out", tmp_path / folder, "key")
        assert num_trained(found) == count


def network_of_codes(text: int) -> int:
    """Two linear autoencoders with codes of 128."""
    return sum(2 * size * 128 + size + 128 for size in (TEACHER, text))


ORIGINAL = {"llara": "curriculum", "collm": "two_stage"}


def original(name: str, mode: Any, document: dict[str, Any]) -> Any:
    """The system, by the schedule of those who made it."""
    if name in ORIGINAL:
        for variant in (name, f"{name}_generation"):
            document["systems"][variant]["schedule"] = ORIGINAL[name]
    return small_variant(name, mode, document)


def weights(parts: Any) -> list[Tensor]:
    return [part.detach().clone() for part in parts]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each prompt run, whether it holds a vector of the teacher's."""
    found: list[bool] = []
    read = SoftPrompts.hidden_states

    def watched(self: SoftPrompts, prompts: Any, *others: Any) -> Tensor:
        slots = np.isin(prompts.tokens, [HIST, UREP])
        assert slots.any() == (len(prompts.items) > 0)
        found.append(bool(slots.any()))
        return read(self, prompts, *others)

    monkeypatch.setattr(SoftPrompts, "hidden_states", watched)
    return found


@pytest.mark.parametrize("mode", ["retrieval", "generation"])
def test_the_first_stage_trains_lora_on_text_and_the_second_the_projectors_only(
    inputs: TrainingInput, shown: list[bool], mode: str
) -> None:
    """The original CoLLM: low-rank updates on text-only prompts, and frozen while the maps learn."""
    system = original("collm", mode, small())
    model = system.network(inputs)
    count, maps = num_trained(model), model.heads.projectors()
    reading = [part for part in model.heads.parameters() if all(part is not one for one in maps)]
    stages = system.stages(model, inputs)
    before = weights(maps), weights(reading)
    trainer = next(stages).trainer
    shown.clear()
    for step in range(2):
        trainer.step(step)
    assert set(shown) == {False}
    assert same(weights(maps), before[0])
    assert not any(torch.equal(*pair) for pair in zip(weights(reading), before[1], strict=True))
    assert model.backbone.model.training
    before = weights(maps), weights(reading)
    trainer = next(stages).trainer
    shown.clear()
    for step in range(2):
        trainer.step(step)
    assert set(shown) == {True}
    assert same(weights(reading), before[1])
    assert not any(torch.equal(*pair) for pair in zip(weights(maps), before[0], strict=True))
    assert not model.backbone.model.training
    assert next(stages, None) is None
    assert num_trained(model) == count


@pytest.mark.parametrize("mode", ["retrieval", "generation"])
def test_a_curriculum_shows_vectors_with_growing_probability(
    inputs: TrainingInput, shown: list[bool], mode: str
) -> None:
    """The original LLaRA: at step t of T with probability t / T; from text alone the maps learn nothing."""
    system = original("llara", mode, small(batch_size=8))
    model = system.network(inputs)
    (stage,) = system.stages(model, inputs)
    total, hybrid = stage.plan.eval_steps[-1], []
    maps = model.heads.projectors()
    for step in range(total):
        before = weights(maps)
        shown.clear()
        stage.trainer.step(step)
        assert len(set(shown)) == 1
        hybrid.append(shown[0])
        assert same(weights(maps), before) == (not shown[0])
    assert not hybrid[0]
    third = total // 3
    assert sum(hybrid[:third]) < 0.4 * third < 0.6 * third < sum(hybrid[-third:])
    shown.clear()
    stage.plan.validate()
    assert set(shown) <= {True}  # it is judged as it will be asked


def test_an_unsupported_schedule_is_refused() -> None:
    document = small()
    document["systems"]["llara"]["schedule"] = "two_stage"
    with pytest.raises(ConfigError, match="'two_stage'; choose from joint, curriculum"):
        small_variant("llara", "retrieval", document)


THEMES = ("Wool scarf", "Steel bolt", "Green tea", "Toy train")


@pytest.fixture(scope="module")
def themed() -> Splits:
    """Shoppers who buy within one theme, which titles tell and order does not."""
    draws = np.random.default_rng(0)
    histories = {
        f"U{user:03d}": [f"T{user % 4}I{item}" for item in draws.permutation(12)[:7]]
        for user in range(240)
    }
    splits = split(interactions_of(histories), splits_config(generation_negatives=0))
    items = splits.catalog.items.copy()
    items["title"] = [f"{THEMES[int(name[1])]} {name[3:]}" for name in items["item_id"]]
    return replace(splits, catalog=Catalog(items))


@pytest.fixture(scope="module")
def reader(themed: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that has read these titles."""
    folder = tmp_path_factory.mktemp("reader")
    config = BackboneConfig(
        model="small", revision=None, dtype="float32", layers=None, num_layers=2, hidden_size=32, num_heads=2,
        vocabulary_size=400, max_positions=1024, steps=60, batch_tokens=1024, learning_rate=5e-3, seed=0,
    )  # fmt: skip
    build_small(themed.catalog, config, folder / "model")
    digest = folder_digest(folder / "model")
    place = {"kind": "small", "location": "model", "revision": digest, "dtype": "float32"}
    write_json(folder / "backbone.json", place)
    return folder


@pytest.fixture(scope="module")
def taught(themed: Splits, reader: Path) -> TrainingInput:
    section = parameters()["teacher"]
    config = TeacherConfig(**section | {"embedding_size": TEACHER, "epochs": 8, "num_blocks": 1})
    teacher = train_teacher(themed, config, MetricLog(), Checkpoints(None, ""))
    return TrainingInput(themed, teacher.requires_grad_(False), reader, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_each_beats_chance_after_a_few_epochs(
    taught: TrainingInput, tmp_path: Path, name: str
) -> None:
    """HR@3 among 10 candidates, of which two or three are of the theme; chance is .3."""
    epochs = 16 if VARIANTS[name].user_vector else 6  # a vector before all else is learned later
    document = small(epochs=epochs, learning_rate=2e-3, catalogue_negatives=24, window=4, stride=1)
    system: Any = small_variant(name, "retrieval", document)
    model = system.model(
        train_system(system, taught, tmp_path / "o", tmp_path / "s", "key"), taught
    )
    ranks = evaluate(model, taught.splits, "test", full=False).sampled
    assert hit_rate(ranks, 3).mean() > 0.45, name


SAVINGS = {"tallrec": 1, "allmrec": 2, "llara": 1, "collm": 3}  # of the last stage's first look


@pytest.mark.slow
@pytest.mark.parametrize("name", SAVINGS)
def test_an_interrupted_run_ends_in_the_same_bytes(
    inputs: TrainingInput, tmp_path: Path, name: str, monkeypatch: Any
) -> None:
    """Killed in its last stage, after a look; LLaRA and CoLLM by their originals' schedules."""
    system: Any = original(name, "retrieval", small(epochs=2))
    whole = train_system(system, inputs, tmp_path / "whole", tmp_path / "a", "key").state_dict()
    from llmsrec.systems import training

    calls = {"left": SAVINGS[name]}
    save = Checkpoints.save

    def dying(self: Checkpoints, state: Any) -> None:
        save(self, state)
        calls["left"] -= 1
        if calls["left"] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Checkpoints, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        train_system(system, inputs, tmp_path / "cut", tmp_path / "b", "key")
    torch.manual_seed(77)
    found = train_system(system, inputs, tmp_path / "cut", tmp_path / "b", "key").state_dict()
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[key], whole[key]) for key in whole)


@pytest.mark.parametrize("score", ["greedy", "likelihood"])
def test_each_generator_answers_after_a_short_training(
    inputs: TrainingInput, tmp_path: Path, score: str
) -> None:
    document = small()
    document["systems"]["collm_generation"]["score"] = score
    system: Any = small_variant("collm", "generation", document)
    model = system.model(
        train_system(system, inputs, tmp_path / "o", tmp_path / "s", "key"), inputs
    )
    assert isinstance(model, Answerer)
    stored = inputs.splits.generation_candidates["test"].take(np.arange(12))
    columns = model.answers(inputs.splits.histories("test").take(np.arange(12)), stored.items)
    assert columns.shape == (12,)
    assert ((columns >= -1) & (columns < 10)).all()
    assert score == "greedy" or (columns >= 0).all()
