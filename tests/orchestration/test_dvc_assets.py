"""Assets derived from a small DVC project: what they show, what stops them, and that DVC alone would do the same."""

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from orchestration.asset_metadata import check_result, gate_results, results_table
from orchestration.dvc_assets import CHECK, dvc_assets
from orchestration.dvc_project import DvcProject
from tests.orchestration.small_project import (
    QUIET,
    Materialise,
    change_params,
    contents,
    dvc,
    lock_md5s,
)

pytestmark = QUIET

WORDS, COUNTS, SUMMARY = (dg.AssetKey(name) for name in ("words", "counts", "summary"))


def derived(root: Path) -> Any:
    project = DvcProject(root, external=("data",))
    return dg.Definitions(dvc_assets(project, {})).resolve_asset_graph()


def metadata(result: Any, name: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(name)
    return {key: value.value for key, value in event.metadata.items()}


def version(result: Any, name: str, kind: str = "data") -> str:
    (event,) = result.asset_materializations_for_node(name)
    return event.tags[f"dagster/{kind}_version"]


def outcomes(result: Any) -> dict[str, str]:
    return {
        event.step_key: event.step_materialization_data.materialization.metadata["outcome"].value
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
    }


def events(result: Any, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    return [event for event in result.all_events if event.event_type == kind]


def started(result: Any) -> list[str | None]:
    return [event.step_key for event in events(result, dg.DagsterEventType.STEP_START)]


def test_a_stage_is_an_asset_and_its_matrix_the_partitions(built: Path) -> None:
    graph = derived(built)
    assert graph.materializable_asset_keys == {WORDS, COUNTS, SUMMARY}
    for key in (WORDS, COUNTS):
        partitions = graph.get(key).partitions_def
        assert partitions is not None
        assert sorted(partitions.get_partition_keys()) == ["north", "south"]
    assert graph.get(SUMMARY).partitions_def is None


def test_edges_follow_the_files_that_stages_read(built: Path) -> None:
    graph = derived(built)
    parents = {
        key.to_user_string(): graph.get(key).parent_keys for key in graph.get_all_asset_keys()
    }
    assert parents == {
        "data": set(),
        "words": {dg.AssetKey("data")},
        "counts": {WORDS},
        "summary": {COUNTS},
    }
    assert graph.external_asset_keys == {dg.AssetKey("data")}


def test_a_stage_that_reads_every_item_waits_for_all_partitions(built: Path) -> None:
    mapping = derived(built).get(SUMMARY).partition_mappings[COUNTS]
    assert isinstance(mapping, dg.AllPartitionMapping)
    assert WORDS not in derived(built).get(COUNTS).partition_mappings


def test_the_asset_that_fills_a_tracked_folder_may_be_named(built: Path) -> None:
    assets = dvc_assets(DvcProject(built), {"data": "raw_texts"})
    graph = dg.Definitions(assets).resolve_asset_graph()
    assert graph.get(WORDS).parent_keys == {dg.AssetKey("raw_texts")}
    assert not any(isinstance(asset, dg.AssetSpec) for asset in assets)


def test_group_pool_description_and_code_version_come_from_the_stage(built: Path) -> None:
    words, counts = derived(built).get(WORDS), derived(built).get(COUNTS)
    assert words.group_name == "texts"
    assert words.pools == {"cpu"}
    assert words.description == "The words of the raw text"
    assert words.kinds == {"dvc", "python"}
    assert words.code_version == DvcProject(built).stage("words@south").code_version(built)
    assert counts.pools == set()
    assert counts.code_version != words.code_version


def test_a_validation_report_is_a_check_that_blocks(built: Path) -> None:
    graph = derived(built)
    (key,) = graph.asset_check_keys
    assert (key.asset_key, key.name) == (WORDS, CHECK)
    spec = graph.get_check_spec(key)
    assert spec.blocking


def test_what_is_up_to_date_is_unchanged_and_keeps_the_version_of_the_lock(
    built: Path, materialise: Materialise
) -> None:
    result = materialise(built, "north")
    assert result.success
    assert outcomes(result) == {"words": "unchanged", "counts": "unchanged"}
    assert version(result, "counts").split("+") == [
        out.md5 for out in DvcProject(built).stage("counts@north").outputs
    ]
    assert sorted(version(result, "words").split("+")) == sorted(lock_md5s(built)["words@north"])
    stage = DvcProject(built).stage("words@north")
    assert version(result, "words", "code") == stage.code_version(built)
    assert materialise(built, None).success


def test_a_materialisation_shows_metrics_sizes_links_and_the_picture(
    built: Path, materialise: Materialise
) -> None:
    shown = metadata(materialise(built, "north"), "counts")
    assert shown["words"] == 6
    assert shown["length.max_at_1"] == 5
    assert "sound" not in shown, "a truth value is no metric"
    assert shown["headline"] == "words 6, longest 5"
    assert shown["verdict"] == "- Few words.\n- Short words."
    assert shown["page"] == str(built / "reports/north/page.html")
    assert shown["picture"].startswith("![dot](data:image/png;base64,iVBOR")
    assert shown["seconds"] == 0.0
    assert "mlflow_run" not in shown
    rows = {record.data["path"]: record.data for record in shown["outputs"].records}
    locked = yaml.safe_load((built / "dvc.lock").read_text())["stages"]["counts@north"]["outs"]
    assert rows == {
        out["path"]: {"path": out["path"], "md5": out["md5"], "bytes": out["size"]}
        for out in locked
    }


def test_the_check_shows_what_the_stage_found(built: Path, materialise: Materialise) -> None:
    (check,) = materialise(built, "north").get_asset_check_evaluations()
    assert check.passed
    assert check.description == "1 passed"
    assert "| ✓ | enough_words | 6 |" in check.metadata["results"].value


def test_dvc_repro_outside_is_seen_as_unchanged_with_the_same_version(
    root: Path, materialise: Materialise
) -> None:
    (root / "data/north/text.txt").write_text("hail beats on the fells")
    dvc(root, "repro")
    outside = materialise(root, "north")
    assert outcomes(outside) == {"words": "unchanged", "counts": "unchanged"}
    assert version(outside, "words") == DvcProject(root).stage("words@north").data_version


@pytest.mark.slow
def test_the_derived_assets_build_what_dvc_repro_builds(
    root: Path, tmp_path: Path, materialise: Materialise
) -> None:
    for step, old, new in (("words", "words[0]", "words[-1]"), ("shared/text", "max", "min")):
        code = root / f"steps/{step}.py"
        code.write_text(code.read_text().replace(old, new))
    ours = tmp_path / "ours"
    shutil.copytree(root, ours)
    dvc(root, "repro")
    assert outcomes(materialise(ours, "north")) == {"words": "ran", "counts": "ran"}
    assert outcomes(materialise(ours, "south")) == {"words": "ran", "counts": "ran"}
    assert outcomes(materialise(ours, None)) == {"summary": "ran"}
    assert contents(ours) == contents(root)
    locks = [yaml.safe_load((each / "dvc.lock").read_text()) for each in (ours, root)]
    assert locks[0] == locks[1]
    assert "Data and pipelines are up to date." in dvc(ours, "repro")


def test_a_knob_makes_stale_what_depends_on_it_and_both_tools_agree(
    root: Path, materialise: Materialise
) -> None:
    change_params(root, counts={"add": 10})
    project = DvcProject(root)
    ours = {address for address in project.stages() if project.is_stale(address)}
    assert ours == {"counts@north", "counts@south"}
    assert set(json.loads(dvc(root, "status", "--json"))) == ours
    result = materialise(root, "north")
    assert outcomes(result) == {"words": "unchanged", "counts": "ran"}
    assert metadata(result, "counts")["words"] == 16
    assert set(json.loads(dvc(root, "status", "--json"))) == {"counts@south"}
    assert outcomes(materialise(root, None)) == {"summary": "unchanged"}, (
        "the longest words are the same"
    )


def test_a_failed_stage_shows_its_last_words_and_stops_what_is_downstream(
    root: Path, materialise: Materialise
) -> None:
    change_params(root, words={"least": 5})
    good, result = materialise(root, "north"), materialise(root, "south")
    assert good.success
    assert not result.success
    assert outcomes(result) == {}
    (failed,) = events(result, dg.DagsterEventType.STEP_FAILURE)
    failure = failed.step_failure_data.user_failure_data
    assert failure is not None
    assert failure.description.startswith("words@south failed\n")
    assert failure.description.endswith("error: 4 words, expected 5: lower words.least")
    assert "4 words in data/south" in failure.metadata["log"].value
    assert started(result) == ["words"], "counts is never tried"
    assert not events(result, dg.DagsterEventType.STEP_UP_FOR_RETRY)
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.description == "failed: enough_words"


def test_a_failed_check_stops_what_is_downstream_of_a_stage_that_passed(
    root: Path, materialise: Materialise
) -> None:
    change_params(root, words={"least": 5, "strict": False})
    result = materialise(root, "south")
    assert not result.success
    assert outcomes(result) == {"words": "ran"}
    assert started(result) == ["words"], "counts is never tried"
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    again = materialise(root, "south")
    assert outcomes(again) == {"words": "unchanged"}, "the check blocks again, from its report"
    assert not again.success


def test_after_a_failure_the_old_knob_restores_the_old_outputs_and_check(
    root: Path, materialise: Materialise
) -> None:
    before = DvcProject(root).stage("words@south").data_version
    change_params(root, words={"least": 5})
    assert not materialise(root, "south").success
    change_params(root, words={"least": 1})
    result = materialise(root, "south")
    assert result.success
    assert outcomes(result) == {"words": "restored", "counts": "unchanged"}
    assert version(result, "words") == before


def test_no_report_at_all_is_a_failed_check(tmp_path: Path) -> None:
    found = check_result(tmp_path / "check.json", CHECK, "words")
    assert not found.passed
    assert "was not written" in (found.description or "")


def test_markdown_in_results_is_escaped() -> None:
    rows = [{"name": "a|b", "success": False, "observed": {"x": 1}, "examples": ["one\ntwo"]}]
    assert results_table(rows).splitlines()[2:] == ['| ✗ | a\\|b | {"x": 1} |  | ["one\\ntwo"] |']


def test_each_gate_is_a_check_with_its_severity_and_margin(tmp_path: Path) -> None:
    report = tmp_path / "gates.json"
    margin = {"value": -0.1, "low": -0.2, "high": -0.05}
    rows = [
        {"name": "order", "success": False, "severity": "error", "description": "reads order",
         "observed": "ignores it", "margin": margin},
        {"name": "teacher", "success": False, "severity": "warn", "observed": "far below"},
    ]  # fmt: skip
    report.write_text(json.dumps({"success": False, "results": rows}))
    order, teacher, absent = gate_results(report, ["order", "teacher", "similarity"], "words")
    assert (order.passed, order.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert order.description == "reads order: ignores it"
    assert {name: value.value for name, value in order.metadata.items()} == margin
    assert (teacher.passed, teacher.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert absent.passed
    assert "not judged" in str(absent.description)
