"""Tables and tests from made-up users whose means and differences are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from llmsrec.core.config import load_section
from llmsrec.core.errors import ArtifactError
from llmsrec.data.splits import Splits
from llmsrec.evaluation.bootstrap import holm
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig
from llmsrec.systems.registry import SYSTEMS
from studies.__main__ import main
from studies.config import Protocol, Run, Settings, StudyConfig
from studies.evaluation import EvaluationTask, RunResult, load_results
from studies.published import paper_table, published_of, versus_paper
from studies.results import study_result
from studies.table import StudyResult
from studies.tables import print_tables, table_specs
from studies.variants import variant_of

ROOT = Path(__file__).parents[2]
NDCG = METRICS.index("ndcg@10")
FACTS = {"task": "all", "parameters": 3, "stages": [], "weights": {}}
PROTOCOL = Protocol(0, 60, "reference", 400, 0.05)
LEVELS = {"sasrec": 0.5, "llmsrec": 0.6, "twin": 0.6, "popularity": 0.1, "llara_generation": 0.4}
STUDY = StudyConfig("Made up.", tuple(LEVELS), ("original", "shuffled"), (0, 1), "llmsrec")
KEYS = ["system", "train", "test", "group", "protocol", "metric", "minus", "family"]


@pytest.fixture
def task(markov_splits: Splits) -> EvaluationTask:
    splits = replace(markov_splits, generation_candidates=markov_splits.candidates)
    evaluation = load_section(EvaluationConfig, "evaluation", ROOT / "params.yaml")
    return EvaluationTask(splits, evaluation, 60)


def made_up(run: Run, users: int, level: float) -> RunResult:
    """Every metric of every user is near `level`; shuffling costs a tenth."""
    draws = np.random.default_rng((len(run.system), run.seed))
    table = np.clip(level + draws.normal(0, 0.1, (users, len(METRICS))), 0, 1)
    first = (draws.random(60) < level).astype(float)
    if run.system.endswith("_generation"):
        values = {"original_generation": first, "original_valid": np.ones(60)}
    else:
        values = {
            "original_sampled": table,
            "original_full": table / 2,
            "original_generation": first,
        }
    if run.order == "original":
        values |= {name.replace("original", "shuffled"): 0.9 * v for name, v in values.items()}
        if "original_sampled" in values:
            values["similarity"] = np.full(users, 0.7)
    return RunResult(values, FACTS)


@pytest.fixture
def results(task: EvaluationTask) -> dict[Run, RunResult]:
    users = len(task.splits.candidates["test"])
    made = {run: made_up(run, users, LEVELS[run.system]) for run in STUDY.runs}
    twins = {run: made[replace(run, system="llmsrec")] for run in made if run.system == "twin"}
    return made | twins  # the same values, user by user


def tabulated(
    results: dict[Run, RunResult],
    task: EvaluationTask,
    study: StudyConfig = STUDY,
    protocol: Protocol = PROTOCOL,
) -> StudyResult:
    about = {"study": "made_up", "dataset": "CDs_and_Vinyl"}
    return study_result(about, results, task, study, protocol)


@pytest.fixture
def result(results: dict[Run, RunResult], task: EvaluationTask) -> StudyResult:
    return tabulated(results, task)


def test_a_row_is_the_mean_over_seeds_and_users(
    result: StudyResult, results: dict[Run, RunResult]
) -> None:
    table = result.table
    assert not table.duplicated(KEYS).any()
    at = table[(table["group"] == "all") & (table["minus"] == "")]
    at = at.set_index(["system", "train", "test", "protocol", "metric"])
    row = at.loc[("sasrec", "original", "shuffled", "full", "ndcg@10")]
    seeds = [
        results[Run("sasrec", "original", seed)].values["shuffled_full"][:, NDCG].mean()
        for seed in (0, 1)
    ]
    assert row["value"] == pytest.approx(np.mean(seeds))
    assert (row["lowest_seed"], row["highest_seed"]) == (min(seeds), max(seeds))
    assert row["low"] < row["value"] < row["high"]
    assert (row["seeds"], row["users"]) == (2, 300)
    plain = ("original", "original")
    assert at.loc[("llara_generation", *plain, "generation", "hr@1"), "users"] == 60
    assert at.loc[("chance", *plain, "sampled", "hr@10"), "value"] == 1  # of 10
    assert at.loc[("chance", *plain, "generation", "hr@1"), "value"] == pytest.approx(0.1)
    similarity = at.loc[("sasrec", "original", "shuffled", "", "cosine"), "value"]
    assert similarity == pytest.approx(0.7)
    assert at.loc[("sasrec", *plain, "sampled", "ndcg@10"), "paper"] == 0.3451


def test_users_with_several_targets_are_resampled_whole(task: EvaluationTask) -> None:
    """Ten targets of each of thirty users, all worth the same, as with `temporal_target: successive`."""
    splits, levels = task.splits, np.random.default_rng(0).random(30)
    owners = splits.targets["test"].users // 10
    targets = replace(splits.targets["test"], users=owners, positions=np.ones_like(owners))
    task = replace(task, splits=replace(splits, targets={**splits.targets, "test": targets}))
    table = np.repeat(levels[owners][:, None], len(METRICS), axis=1)
    values = {"original_sampled": table, "original_full": table / 2}
    study = replace(STUDY, systems=("sasrec", "llmsrec"), orders=("original",), seeds=(0,))
    results = {
        run: RunResult(
            {name: v * (1 + (run.system == "sasrec")) for name, v in values.items()}, FACTS
        )
        for run in study.runs
    }
    rows = {
        (row.system, row.protocol): row
        for row in tabulated(results, task, study).rows
        if (row.group, row.metric, row.family) in (("all", "ndcg@10", "reference"),)
    }
    draws = np.random.default_rng(task.evaluation.seed)
    drawn = [
        levels[draws.integers(0, 30, 30, dtype=np.int32)].mean() for _ in range(PROTOCOL.bootstrap)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    for protocol, scale in (("sampled", 1), ("full", 0.5)):
        row = rows["sasrec", protocol]
        assert row.users == 30
        assert row.low == pytest.approx(scale * low, abs=1e-6)
        assert row.high == pytest.approx(scale * high, abs=1e-6)


def test_groups_are_means_and_differences_of_their_own_users(result: StudyResult) -> None:
    """Two groups that divide the users average to all of them."""
    table = result.table
    table = table[(table["protocol"] == "full") & (table["metric"] == "ndcg@10")]
    for minus in ("", "llmsrec"):
        rows = table[(table["system"] == "sasrec") & (table["minus"] == minus)]
        rows = rows[(rows["train"] == "original") & (rows["test"] == "original")]
        at = rows.set_index("group")
        halves = at.loc[["transition", "non-transition"]]
        mean = np.average(halves["value"], weights=halves["users"])
        assert halves["users"].sum() == at.loc["all", "users"] == 300
        assert mean == pytest.approx(at.loc["all", "value"])
    assert at.loc["transition", "family"] == "reference"


def test_every_system_is_tested_against_the_reference(result: StudyResult) -> None:
    """The twin differs by nothing; the others by what their means do."""
    tests = result.tests("reference", "sampled")
    assert set(tests) == {"sasrec", "twin", "popularity"}
    twin = tests["twin"]
    assert (twin.value, twin.low, twin.high, twin.p, twin.different) == (0, 0, 0, 1, False)
    assert tests["sasrec"].value == pytest.approx(-0.1, abs=0.01)
    assert tests["sasrec"].change == pytest.approx(-100 / 6, abs=2)
    assert tests["sasrec"].different
    assert tests["sasrec"].minus == "llmsrec"
    assert tests["sasrec"].p == pytest.approx(2 / 401)
    p = np.array([test.p for test in tests.values()])
    assert [test.p_holm for test in tests.values()] == holm(p).tolist()
    assert set(result.tests("reference", "generation")) == {*tests, "llara_generation"}
    shuffled = result.tests("reference_shuffled", "sampled")["sasrec"]
    assert (shuffled.train, shuffled.minus) == ("shuffled", "llmsrec, trained on shuffled")


def test_the_cost_of_lost_order_is_tested(result: StudyResult) -> None:
    costs = result.tests("shuffled_inference", "sampled")
    assert set(costs) == {"sasrec", "twin", "popularity", "llmsrec"}
    for system, test in costs.items():
        assert test.change == pytest.approx(-10)
        assert (test.train, test.test, test.minus) == ("original", "shuffled", system)
    for protocol in ("sampled", "full", "generation"):
        assert ("llara_generation" in result.tests("shuffled_training", protocol)) == (
            protocol == "generation"
        )


def test_all_pairs_may_be_tested(results: dict[Run, RunResult], task: EvaluationTask) -> None:
    result = tabulated(results, task, protocol=replace(PROTOCOL, pairs="all"))
    table = result.table
    pairs = table[(table["family"] == "pairs") & (table["protocol"] == "sampled")]
    assert len(pairs[pairs["group"] == "all"]) == 6
    without = tabulated(results, task, replace(STUDY, reference="deep"))
    assert not (without.table["family"] == "reference").any()
    assert "deep is not in this study" in table_specs(without)[0].note


def test_the_tables_are_those_of_the_paper(result: StudyResult) -> None:
    specs = table_specs(result)
    assert [spec.title.split(",")[0] for spec in specs] == [
        "E1  Overall", "E2  Shuffled training", "E2  Shuffled training", "E3  Shuffled training",
        "E4  Shuffled inference", "E4  Shuffled inference", "E4  Shuffled inference", "Generation",
        "E5  Similarity of a user to the same user shuffled", "E6", "E6",
    ]  # fmt: skip
    assert sum("among all items" in spec.title for spec in specs) == 3
    overall = specs[0]
    assert [row[0] for row in overall.rows][:2] == ["llmsrec", "twin"]
    assert overall.rows[0][-1] == "0.3809"  # the paper's, of CDs
    cells = {row[0]: row for row in overall.rows}
    assert cells["twin"][1].startswith("= ")
    assert not cells["sasrec"][1].startswith("= ")
    assert "chance" in cells
    shuffled = {row[0]: row for row in specs[4].rows}
    assert shuffled["sasrec"][3].startswith("-10.0% [")
    assert shuffled["llmsrec"][4] == f"{100 * (0.3635 / 0.3809 - 1):+.1f}%"
    assert {row[0] for row in specs[7].rows} == {*LEVELS, "chance"}
    assert specs[9].columns == ["", "warm", "cold", "transition", "non-transition"]


def test_the_tables_fit_a_terminal(
    result: StudyResult, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    print_tables(result)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert "300 users" in printed
    assert "60 users" in printed


def test_results_of_other_users_are_not_mixed(
    results: dict[Run, RunResult], tmp_path: Path
) -> None:
    runs = [Run(name, "original", 0) for name in ("sasrec", "twin")]
    for run in runs:
        facts: dict[str, Any] = {**FACTS, "task": run.system}
        RunResult(results[run].values, facts).save(tmp_path / run.system / run.name / "result")
    with pytest.raises(ArtifactError, match="twin original-0 was evaluated with other settings"):
        load_results(tmp_path, runs, "sasrec")
    assert list(load_results(tmp_path, runs[:1], "sasrec")) == runs[:1]


PLAIN = ("original", "original")
SCIENTIFIC = "Industrial_and_Scientific"


@pytest.mark.parametrize(
    ("dataset", "group", "system", "cell", "value"),
    [
        ("Movies_and_TV", "all", "gru4rec", (*PLAIN, "sampled", "ndcg@10"), 0.3152),
        ("Movies_and_TV", "all", "sasrec", (*PLAIN, "sampled", "ndcg@10"), 0.3459),
        ("Movies_and_TV", "all", "llmsrec", (*PLAIN, "full", "ndcg@10"), None),
        ("Movies_and_TV", "all", "llmsrec", (*PLAIN, "generation", "hr@1"), None),
        ("Movies_and_TV", "all", "gsasrec", (*PLAIN, "sampled", "ndcg@10"), None),
        ("Movies_and_TV", "all", "llmsrec_user_vector", (*PLAIN, "sampled", "ndcg@10"), 0.3625),
        ("Electronics", "all", "llmsrec", (*PLAIN, "sampled", "ndcg@10"), 0.3044),
        ("Electronics", "all", "llmsrec", (*PLAIN, "sampled", "hr@1"), None),
        ("Electronics", "all", "llmsrec_last_item", (*PLAIN, "sampled", "ndcg@10"), 0.3044),
        ("Electronics", "all", "llmsrec_auto_regressive", (*PLAIN, "sampled", "ndcg@10"), 0.3129),
        ("Electronics", "all", "llmsrec_auto_regressive",
         ("original", "shuffled", "sampled", "ndcg@10"), 0.2972),
        ("Electronics", "all", "llmsrec_contrastive", (*PLAIN, "sampled", "ndcg@10"), 0.2553),
        ("Electronics", "all", "llmsrec_large", (*PLAIN, "sampled", "ndcg@10"), None),
        ("CDs_and_Vinyl", "all", "llmsrec", ("original", "shuffled", "sampled", "ndcg@10"), 0.3635),
        ("CDs_and_Vinyl", "all", "llmsrec", ("original", "shuffled", "", "cosine"), 0.8589),
        ("CDs_and_Vinyl", "transition", "llmsrec", (*PLAIN, "sampled", "ndcg@10"), 0.3917),
        ("Toys_and_Games", "all", "llmsrec", (*PLAIN, "sampled", "ndcg@10"), None),
        (SCIENTIFIC, "cold", "sasrec", (*PLAIN, "sampled", "ndcg@10"), 0.1226),
        (SCIENTIFIC, "all", "sasrec", ("original", "shuffled", "", "cosine"), 0.7375),
        (SCIENTIFIC, "all", "llmsrec_no_distillation", (*PLAIN, "sampled", "ndcg@10"), 0.3088),
        (SCIENTIFIC, "all", "llmsrec_no_uniformity", (*PLAIN, "sampled", "ndcg@10"), 0.3283),
        (SCIENTIFIC, "all", "llmsrec_no_uniformity",
         ("original", "shuffled", "sampled", "ndcg@10"), None),
        (SCIENTIFIC, "all", "llara_generation", (*PLAIN, "generation", "hr@1"), 0.3022),
        (SCIENTIFIC, "all", "llara", (*PLAIN, "generation", "hr@1"), None),
    ],
)  # fmt: skip
def test_the_table_has_the_published_value_of_each_cell(
    dataset: str, group: str, system: str, cell: tuple[str, ...], value: float | None
) -> None:
    """Specification 10.11, by numbers read from tables 3 to 6, 8, 11, 12 and figures 1, 3, 4 and 7."""
    names = dict(zip(("train", "test", "protocol", "metric"), cell, strict=True))
    assert published_of(paper_table(), dataset, group, system, **names) == value


def test_the_paper_s_change_by_shuffled_training() -> None:
    def of(dataset: str, system: str, train: str) -> float:
        cell = {"train": train, "test": "original", "protocol": "sampled", "metric": "ndcg@10"}
        value = published_of(paper_table(), dataset, "all", system, **cell)
        assert value is not None
        return value

    for dataset, system, change in (
        (SCIENTIFIC, "sasrec", -7.88),
        ("Electronics", "llmsrec", -6.77),
    ):
        ratio = of(dataset, system, "shuffled") / of(dataset, system, "original")
        assert 100 * (ratio - 1) == pytest.approx(change, abs=0.01)
    assert versus_paper("Electronics", 0.3, 0.2, 0.4) == "inside"
    assert versus_paper("Electronics", 0.5, 0.2, 0.4) == "outside"
    assert versus_paper("Electronics", None, 0.2, 0.4) == ""
    assert versus_paper("Toys_and_Games", None, 0.2, 0.4) == "not comparable"


def test_every_system_has_an_entry_and_every_study_its_variants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    settings = Settings()
    entries, studies = settings.section("systems"), settings.section("studies")
    assert {values.get("system", name) for name, values in entries.items()} == set(SYSTEMS)
    for name in studies:
        study = settings.study(name, {})
        assert study.reference in study.systems
    for name in entries:
        variant_of(name, settings)
    pipeline = settings.section("pipeline")
    assert set(pipeline["studies"]) <= set(studies)
    assert set(pipeline["datasets"]) <= set(settings.section("datasets"))
    assert entries["llmsrec"] == {}  # the student that the pipeline ships


def test_the_stages_depend_on_the_sections_that_a_training_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else DVC would call a study done that `python -m studies` trains again."""
    monkeypatch.chdir(ROOT)
    read: set[str] = set()
    section = Settings.section

    def watched(self: Settings, name: str) -> dict[str, Any]:
        read.add(name)
        return section(self, name)

    monkeypatch.setattr(Settings, "section", watched)
    for name in section(Settings(), "systems"):
        variant_of(name, Settings())
    params = yaml.safe_load((ROOT / "studies/dvc.yaml").read_text())["stages"]["trainings"][
        "params"
    ]
    _, *base, own = params  # the first is the seed of all models
    assert read <= {*base, *own["studies/params.yaml"]}


def test_a_study_is_run_by_its_name(
    project: Path, change: Callable[..., None], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "100")
    arguments = ["small", "--dataset", "tiny", "--seeds", "0", "1", "--set", "teacher.epochs=1"]
    main(arguments)
    first = capsys.readouterr().out
    assert "tiny: E1  Overall, 300 users" in first
    assert "Generation, 100 users" in first
    table = pd.read_csv(project / "reports/studies/small/tiny.csv")
    assert set(table["system"]) == {"popularity", "sasrec", "chance"}
    assert (table[table["system"] == "sasrec"]["seeds"] == 2).all()
    values = table[table["minus"].isna()]
    assert (values["versus_paper"] == "not comparable").all()
    assert (project / "reports/studies/small/tiny.html").exists()
    content = (project / "reports/studies/small/tiny.csv").read_bytes()
    monkeypatch.setattr("llmsrec.systems.training.train", None)  # a second training would fail
    main(arguments)
    assert capsys.readouterr().out == first
    assert (project / "reports/studies/small/tiny.csv").read_bytes() == content
