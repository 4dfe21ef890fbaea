"""Tables and tests from made-up users, whose means and differences are known."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from llmsrec.comparison.config import Arm, ComparisonConfig
from llmsrec.comparison.outcomes import EvaluationTask, Outcome
from llmsrec.comparison.published import named_in_paper, paper_table, published_of
from llmsrec.comparison.results import Comparison, compared
from llmsrec.comparison.show import show
from llmsrec.comparison.tables import table_specs
from llmsrec.comparison.tidy import load_outcomes
from llmsrec.core.config import load_section
from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import read_json
from llmsrec.data.splits import Splits
from llmsrec.evaluation.bootstrap import holm
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig
from llmsrec.systems import registry
from llmsrec.systems.registry import GENERATION, RETRIEVAL, system_of

ROOT = Path(__file__).parents[2]
NDCG, HR1 = METRICS.index("ndcg@10"), METRICS.index("hr@1")
FACTS = {"asked": "all", "parameters": 3, "stages": []}


@pytest.fixture
def asked(markov_splits: Splits) -> EvaluationTask:
    splits = replace(markov_splits, generation_candidates=markov_splits.candidates)
    evaluation = load_section(EvaluationConfig, "evaluation", ROOT / "params.yaml")
    return EvaluationTask(splits, evaluation, 60)


def made_up(arm: Arm, users: int, level: float) -> Outcome:
    """Every metric of every user is near `level`; shuffling costs a tenth."""
    draws = np.random.default_rng((len(arm.system), arm.seed))
    few = 60
    table = np.clip(level + draws.normal(0, 0.1, (users, len(METRICS))), 0, 1)
    first = (draws.random(few) < level).astype(float)
    if arm.mode == "generation":
        values = {"original_generation": first, "original_valid": np.ones(few)}
    else:
        values = {
            "original_sampled": table,
            "original_full": table / 2,
            "original_generation": first,
        }
    if arm.order == "original":
        values |= {name.replace("original", "shuffled"): 0.9 * v for name, v in values.items()}
        if arm.mode == "retrieval":
            values["similarity"] = np.full(users, 0.7)
    return Outcome(values, FACTS)


@pytest.fixture
def outcomes(asked: EvaluationTask) -> dict[Arm, Outcome]:
    levels = {"sasrec": 0.5, "llmsrec": 0.6, "twin": 0.6, "popularity": 0.1}
    arms = [
        Arm(system, mode, order, seed)
        for system in levels
        for mode in ("retrieval", "generation")
        if mode == "retrieval" or system == "llmsrec"
        for order in ("original", "shuffled")
        for seed in (0, 1)
    ]
    users = len(asked.splits.candidates["test"])
    found = {arm: made_up(arm, users, levels[arm.system]) for arm in arms}
    for arm in arms:  # the same users, one by one
        if arm.system == "twin":
            found[arm] = found[replace(arm, system="llmsrec")]
    return found


@pytest.fixture
def config() -> ComparisonConfig:
    section = yaml.safe_load((ROOT / "params.yaml").read_text())["comparison"]
    plain = {key: tuple(v) if isinstance(v, list) else v for key, v in section.items()}
    return ComparisonConfig(**{**plain, "bootstrap": 400})


@pytest.fixture
def found(
    outcomes: dict[Arm, Outcome], asked: EvaluationTask, config: ComparisonConfig
) -> Comparison:
    return compared("CDs_and_Vinyl", outcomes, asked, config)


def test_a_row_is_the_mean_over_seeds_and_users(
    found: Comparison, outcomes: dict[Arm, Outcome]
) -> None:
    frame = pd.DataFrame([asdict(row) for row in found.rows])
    keys = ["system", "mode", "train", "test", "protocol", "metric"]
    assert not frame.duplicated(keys).any()
    at = frame.set_index(keys)
    row = at.loc[("sasrec", "retrieval", "original", "shuffled", "full", "ndcg@10")]
    seeds = [
        outcomes[Arm("sasrec", "retrieval", "original", seed)].values["shuffled_full"][:, NDCG].mean()
        for seed in (0, 1)
    ]  # fmt: skip
    assert row["value"] == pytest.approx(np.mean(seeds))
    assert (row["lowest_seed"], row["highest_seed"]) == (min(seeds), max(seeds))
    assert row["low"] < row["value"] < row["high"]
    assert (row["seeds"], row["users"]) == (2, 300)
    assert (
        at.loc[("llmsrec", "generation", "original", "original", "generation", "hr@1"), "users"]
        == 60
    )
    plain = ("original", "original")
    assert at.loc[("chance", "retrieval", *plain, "sampled", "hr@10"), "value"] == 1  # of 10
    assert at.loc[("chance", "retrieval", *plain, "generation", "hr@1"), "value"] == pytest.approx(
        0.1
    )
    assert at.loc[
        ("sasrec", "retrieval", "original", "shuffled", "", "cosine"), "value"
    ] == pytest.approx(0.7)
    assert at.loc[("sasrec", "retrieval", *plain, "sampled", "ndcg@10"), "paper"] == 0.3451


def test_everyone_is_tested_against_the_reference(found: Comparison) -> None:
    """The twin differs by nothing; the others by what their means do; the two modes against their own kind."""
    tests = [t for t in found.tests if (t.family, t.protocol) == ("reference", "sampled")]
    by = {test.system: test for test in tests}
    assert set(by) == {"sasrec", "twin", "popularity"}
    twin = by["twin"]
    assert (twin.difference, twin.low, twin.high, twin.p, twin.different) == (0, 0, 0, 1, False)
    assert by["sasrec"].difference == pytest.approx(-0.1, abs=0.01)
    assert by["sasrec"].change == pytest.approx(-100 / 6, abs=2)
    assert by["sasrec"].different
    assert by["sasrec"].p == pytest.approx(2 / 401)
    assert [t.p_holm for t in tests] == holm(np.array([t.p for t in tests])).tolist()
    written = [t for t in found.tests if (t.family, t.protocol) == ("reference", "generation")]
    assert {(t.system, t.mode, t.against_mode) for t in written} == {
        (system, "retrieval", "retrieval") for system in ("sasrec", "twin", "popularity")
    }


def test_what_losing_the_order_costs_is_tested_too(found: Comparison) -> None:
    costs = [t for t in found.tests if (t.family, t.protocol) == ("shuffled_inference", "sampled")]
    assert {t.system for t in costs} == {"sasrec", "twin", "popularity", "llmsrec"}
    for test in costs:
        assert test.change == pytest.approx(-10)
        assert (test.train, test.test, test.against_test) == ("original", "shuffled", "original")
    taught = [t for t in found.tests if t.family == "shuffled_training"]
    assert {(t.protocol, t.mode) for t in taught} == {
        ("sampled", "retrieval"), ("full", "retrieval"), ("generation", "retrieval"), ("generation", "generation"),
    }  # fmt: skip


def test_each_may_be_tested_against_each(
    outcomes: dict[Arm, Outcome], asked: EvaluationTask, config: ComparisonConfig
) -> None:
    found = compared("CDs_and_Vinyl", outcomes, asked, replace(config, pairs="all"))
    pairs = [t for t in found.tests if (t.family, t.protocol) == ("pairs", "sampled")]
    assert len(pairs) == 6
    nobody = compared("CDs_and_Vinyl", outcomes, asked, replace(config, reference="deep"))
    assert not [t for t in nobody.tests if t.family == "reference"]
    assert "deep is not among them" in table_specs(nobody)[0].note


def test_the_tables_are_those_of_the_paper(found: Comparison) -> None:
    shown = table_specs(found)
    assert [exhibit.title.split(",")[0] for exhibit in shown] == [
        "E1  Overall", "E2  Shuffled training", "E3  Shuffled training", "E4  Shuffled inference",
        "E4  Shuffled inference", "Mode G", "E5  How alike a user stays when the history is shuffled",
    ]  # fmt: skip
    overall = shown[0]
    assert [row[0] for row in overall.rows][:2] == ["llmsrec", "twin"]
    assert overall.rows[0][-1] == "0.3809"  # the paper's, of CDs
    cells = {row[0]: row for row in overall.rows}
    assert cells["twin"][1].startswith("= ")
    assert not cells["sasrec"][1].startswith("= ")
    assert "chance" in cells
    lost = {row[0]: row for row in shown[3].rows}
    assert lost["sasrec"][3].startswith("-10.0% [")
    assert lost["llmsrec"][4] == f"{100 * (0.3635 / 0.3809 - 1):+.1f}%"
    assert {row[0] for row in shown[5].rows} == {
        "llmsrec, ranks", "llmsrec, writes", "twin, ranks", "sasrec, ranks", "popularity, ranks", "chance",
    }  # fmt: skip


def test_the_tables_fit_a_terminal(
    found: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    show(found)
    said = capsys.readouterr().out
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 100
    assert "300 users" in said
    assert "60 users" in said


def test_what_is_written_is_whole_and_the_same_twice(
    outcomes: dict[Arm, Outcome], asked: EvaluationTask, config: ComparisonConfig, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        compared("CDs_and_Vinyl", outcomes, asked, config).save(tmp_path / name)
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert {"comparison.json", "results.csv", "tests.csv"} <= {path.name for path in one}
    document = read_json(tmp_path / "one" / "comparison.json")
    assert len(document["results"]) == len(pd.read_csv(tmp_path / "one" / "results.csv"))
    assert document["trained"][0]["parameters"] == 3


def test_outcomes_of_other_users_are_not_mixed(
    outcomes: dict[Arm, Outcome], tmp_path: Path
) -> None:
    arms = [Arm(name, "retrieval", "original", 0) for name in ("sasrec", "twin")]
    for arm in arms:
        facts: dict[str, Any] = {**FACTS, "asked": arm.system}
        Outcome(outcomes[arm].values, facts).save(tmp_path / arm.system / arm.name / "outcome")
    with pytest.raises(
        ArtifactError, match="twin retrieval-original-0 was evaluated by other settings"
    ):
        load_outcomes(tmp_path, arms, "sasrec")
    assert list(load_outcomes(tmp_path, arms[:1], "sasrec")) == arms[:1]
    with pytest.raises(ArtifactError, match="sasrec retrieval-original-0"):
        load_outcomes(tmp_path, arms[:1], "today's")


@pytest.mark.parametrize(
    ("system", "mode", "cell", "value"),
    [
        ("gru4rec", "retrieval", ("original", "original", "sampled", "ndcg@10"), 0.3152),
        ("llmsrec", "retrieval", ("original", "original", "full", "ndcg@10"), None),
        ("llmsrec", "generation", ("original", "original", "generation", "hr@1"), None),
        ("gsasrec", "retrieval", ("original", "original", "sampled", "ndcg@10"), None),
    ],
)
def test_the_paper_s_number_of_a_cell(
    system: str, mode: str, cell: tuple[str, ...], value: float | None
) -> None:
    train, test, protocol, metric = cell
    where = {"train": train, "test": test, "protocol": protocol, "metric": metric}
    assert published_of(paper_table(), "Movies_and_TV", system, mode, **where) == value
    assert named_in_paper("a_llmrec") == "A-LLMRec"


def test_the_paper_s_tables_3_to_5_are_found() -> None:
    """By numbers read from them."""
    paper = paper_table()

    def of(system: str, mode: str, *cell: str) -> float | None:
        where = dict(zip(("train", "test", "protocol", "metric"), cell, strict=True))
        return published_of(paper, "Industrial_and_Scientific", system, mode, **where)

    generation = ("generation", "hr@1")
    assert of("llara", "generation", "original", "original", *generation) == 0.3022
    assert of("llara", "retrieval", "original", "original", *generation) is None
    assert of("sasrec", "retrieval", "original", "original", *generation) is not None
    assert of("llara", "generation", "original", "shuffled", *generation) is not None
    true, lost = (
        of("sasrec", "retrieval", order, "original", "sampled", "ndcg@10")
        for order in ("original", "shuffled")
    )
    assert true is not None
    assert lost is not None
    assert 100 * (lost / true - 1) == pytest.approx(-7.88, abs=0.01)
    assert of("sasrec", "retrieval", "original", "shuffled", "", "cosine") == 0.7375


def test_every_registered_system_is_compared_and_has_its_settings() -> None:
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    known = {*RETRIEVAL, *GENERATION}
    assert set(document["systems"]) == {
        *known,
        "language",
    }  # of all that read with a language model
    assert set(document["comparison"]["systems"]) == known
    assert set(document["comparison"]["datasets"]) <= set(document["datasets"])


def test_the_stage_of_a_system_depends_on_all_settings_that_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else DVC would call a system done that `llmsrec compare` trains anew."""

    class Watched(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            read.add(f"systems.{name}")
            return super().__getitem__(name)

    def reading(section: str, params: Path) -> dict[str, Any]:
        found = document[section]
        if section == "systems":
            return Watched(found)
        read.add(section)
        return dict(found)

    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    stage = yaml.safe_load((ROOT / "comparison/dvc.yaml").read_text())["stages"]["system"]
    monkeypatch.setattr(registry, "read_section", reading)
    for mode, systems in (("retrieval", RETRIEVAL), ("generation", GENERATION)):
        for name in systems:
            read: set[str] = set()
            system_of(name, mode, ROOT / "params.yaml")  # type: ignore[arg-type]
            assert read <= {param.replace("${item.system}", name) for param in stage["params"]}


def test_a_comparison_can_be_asked_for_by_name(
    project: Path, change: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from llmsrec.cli import app

    change(evaluation={"bootstrap": 50})
    arguments = ["compare", "--dataset", "tiny", "--seeds", "0,1", "--systems", "popularity,sasrec"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    if result.exception is not None:
        raise result.exception
    assert "tiny: E1  Overall, 300 users" in result.stdout
    assert "Mode G, 100 users" in result.stdout
    rows = pd.read_csv(project / "reports/tiny/comparison/results.csv")
    assert set(rows["system"]) == {"popularity", "sasrec", "chance"}
    assert (rows[rows["system"] == "sasrec"]["seeds"] == 2).all()
    assert (rows["beside"] == "not comparable").all()
