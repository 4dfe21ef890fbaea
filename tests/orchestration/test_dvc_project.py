"""The contract that DVC must keep: all that `dvc_project` reads from its private API, and what its commands say."""

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.dvc_project import DvcError, DvcProject
from orchestration.dvc_stage import Output
from tests.orchestration.small_project import (
    QUIET,
    change_params,
    contents,
    copy_project,
    dvc,
    lock_md5s,
    write_project,
)

pytestmark = QUIET

WORDS, COUNTS = "words@north", "counts@north"


def ignore(_line: str) -> None:
    """For runs whose output does not matter."""


def document(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    return yaml.safe_load(path.read_text())


def test_stages_come_upstream_first_with_one_for_each_item_of_the_matrix(built: Path) -> None:
    stages = DvcProject(built).stages()
    assert set(stages) == {WORDS, "words@south", COUNTS, "counts@south", "summary"}
    seen: set[str] = set()
    for address, stage in stages.items():
        assert set(stage.upstream) <= seen
        seen.add(address)
    names = [(stage.address, stage.name, stage.item) for stage in stages.values()]
    assert (WORDS, "words", "north") in names
    assert ("summary", "summary", None) in names


def test_edges_are_those_of_dvc_dag(built: Path) -> None:
    drawn = dvc(built, "dag", "--dot").splitlines()
    edges = {tuple(line.strip(" ;").split(" -> ")) for line in drawn if "->" in line}
    stages = DvcProject(built).stages().values()
    ours = {(upstream, stage.address) for stage in stages for upstream in stage.upstream}
    ours |= {(f"{source}.dvc", stage.address) for stage in stages for source in stage.sources}
    assert {(f'"{first}"', f'"{second}"') for first, second in ours} == edges


def test_a_stage_is_read_with_all_that_its_asset_needs(built: Path) -> None:
    stage = DvcProject(built).stage(COUNTS)
    assert stage.description == "How many words, and the longest"
    assert stage.meta["picture"] == "reports/north/dot.png"
    assert stage.upstream == (WORDS,)
    assert stage.sources == ()
    assert sorted(stage.code) == ["steps/counts.py", "steps/shared"]
    assert stage.params == {"counts": {"add": 0}}


def test_params_are_those_that_dvc_reads_and_each_file_is_parsed_once(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dotted keys, keys and files that do not exist, and a file without keys, which means all of them."""
    from dvc.repo import Repo
    from dvc.utils import serialize

    root = copy_project(built, tmp_path / "project")
    params = "params: [counts.add, words, counts.absent, absent, more.yaml: [a.b], all.yaml: , none.yaml: [c]]"
    text = (root / "dvc.yaml").read_text().replace("params: [counts]", params)
    (root / "dvc.yaml").write_text(text)
    (root / "more.yaml").write_text("a: {b: 1e-3, c: 2}\n")
    (root / "all.yaml").write_text("x: on\n")
    expected: dict[str, Any] = {}
    with Repo(str(root)) as repo:
        (stage,) = [stage for stage in repo.index.stages if getattr(stage, "name", None) == COUNTS]
        for dependency in stage.params:
            expected |= dependency.read_params()
    assert expected == {
        "counts.add": 0, "words": {"least": 1, "strict": True}, "a.b": 0.001, "x": "on",
    }  # fmt: skip

    parsed: list[str] = []
    load_path = serialize.load_path

    def counted(path: str, fs: Any) -> Any:
        parsed.append(path)
        return load_path(path, fs)

    monkeypatch.setattr(serialize, "load_path", counted)
    assert DvcProject(root).stages()[COUNTS].params == expected
    assert {Path(path).name for path in parsed} == {
        "dvc.yaml", "params.yaml", "more.yaml", "all.yaml",
    }  # fmt: skip
    assert len(parsed) == len(set(parsed))


def test_a_tracked_folder_is_a_source_and_neither_code_nor_a_stage(built: Path) -> None:
    stage = DvcProject(built).stage(WORDS)
    assert stage.sources == ("data",)
    assert stage.upstream == ()
    assert stage.code == ("steps/words.py",)


def test_outputs_are_data_metrics_and_plots_with_the_hashes_of_the_lock(built: Path) -> None:
    locked = {out["path"]: out for out in document(built / "dvc.lock")["stages"][COUNTS]["outs"]}
    outputs = DvcProject(built).stage(COUNTS).outputs
    assert {out.path: out.kind for out in outputs} == {
        "out/north/longest.txt": "data",
        "reports/north/page.html": "data",
        "reports/north/dot.png": "data",
        "reports/north/counts.json": "metric",
        "reports/north/lengths.json": "plot",
    }
    for out in outputs:
        assert (out.md5, out.size) == (locked[out.path]["md5"], locked[out.path]["size"])


def test_the_data_version_is_the_md5_of_dvc_lock(built: Path) -> None:
    locked = lock_md5s(built)
    for address, stage in DvcProject(built).stages().items():
        assert sorted(stage.data_version.split("+")) == sorted(locked[address])


def test_before_anything_is_built_the_folder_is_known_and_no_hash_is(tmp_path: Path) -> None:
    root = write_project(tmp_path / "project")
    project = DvcProject(root, external=("data",))
    stage = project.stage(WORDS)
    assert stage.sources == ("data",)
    assert stage.outputs == (
        Output("out/north/words", None, None, "data"),
        Output("reports/north/check.json", None, None, "metric"),
    )
    assert stage.data_version == "none+none"
    assert project.tracked_hash("data") is None
    assert project.is_stale(WORDS)
    assert project.is_stale("data.dvc")
    assert DvcProject(root).stage(WORDS).sources == ()


def test_tracked_hash_is_that_of_the_folder_or_of_its_part(built: Path) -> None:
    project = DvcProject(built)
    tracked = yaml.safe_load((built / "data.dvc").read_text())["outs"][0]["md5"]
    assert project.tracked_hash("data") == tracked
    dependency = document(built / "dvc.lock")["stages"][WORDS]["deps"][0]
    assert dependency["path"] == "data/north"
    assert project.tracked_hash("data/north") == dependency["md5"]
    file = project.tracked_hash("data/north/text.txt")
    assert file is not None
    assert not file.endswith(".dir")
    assert project.tracked_hash("data/west") is None
    assert project.tracked_hash("steps") is None


def test_the_command_is_the_same_for_every_item(built: Path) -> None:
    stages = DvcProject(built).stages()
    assert stages[WORDS].command == stages["words@south"].command
    assert "${item.dataset}" in stages[WORDS].command
    assert stages["summary"].command.startswith("python steps/summary.py")


def test_the_code_version_follows_code_and_command_and_not_data_or_knobs(root: Path) -> None:
    def version() -> str:
        return DvcProject(root).stage(COUNTS).code_version(root)

    first = version()
    change_params(root, counts={"add": 5})
    (root / "data/north/text.txt").write_text("other words")
    (root / "steps/shared/__pycache__").mkdir(exist_ok=True)
    (root / "steps/shared/__pycache__/text.cpython-311.pyc").write_bytes(b"cached")
    assert version() == first
    code = root / "steps/shared/text.py"
    code.write_text(code.read_text() + "# changed\n")
    second = version()
    assert second != first
    code.rename(code.with_name("renamed.py"))
    third = version()
    assert third not in (first, second)
    graph = (root / "dvc.yaml").read_text()
    (root / "dvc.yaml").write_text(graph.replace("steps/counts.py out", "-u steps/counts.py out"))
    assert version() not in (first, second, third)


def test_only_what_changed_is_stale(root: Path) -> None:
    project = DvcProject(root)

    def stale() -> set[str]:
        return {address for address in project.stages() if project.is_stale(address)}

    assert stale() == set()
    (root / "data/south/text.txt").write_text("sun over lemon groves")
    assert stale() == {"words@south"}
    assert project.is_stale("data.dvc")
    change_params(root, counts={"add": 1})
    assert stale() == {"words@south", COUNTS, "counts@south"}
    (root / "out/summary.txt").unlink()
    assert stale() == {"words@south", COUNTS, "counts@south", "summary"}


def test_a_run_says_whether_it_ran_was_restored_or_had_nothing_to_do(root: Path) -> None:
    project = DvcProject(root)
    lines: list[str] = []
    before = project.stage(WORDS).data_version
    assert project.run(WORDS, ignore).outcome == "unchanged"

    (root / "data/north/text.txt").write_text("rain falls on the low fells")
    ran = project.run(WORDS, lines.append, {"ASKED_BY": "the test"})
    assert ran.outcome == "ran"
    assert ran.seconds > 0
    assert list(ran.tail) == lines
    assert "6 words in data/north, asked by the test" in lines
    assert project.stage(WORDS).data_version != before
    assert not project.is_stale(WORDS)
    assert project.is_stale(COUNTS), "single-item leaves what is downstream alone"

    (root / "data/north/text.txt").write_text("snow lies on the high fells")
    assert project.is_stale(WORDS)
    assert project.run(WORDS, ignore).outcome == "restored"
    assert project.stage(WORDS).data_version == before


def test_a_run_does_not_build_upstream_stages(root: Path) -> None:
    project = DvcProject(root)
    (root / "data/north/text.txt").write_text("rain falls on the low fells")
    change_params(root, counts={"add": 1})
    assert project.run(COUNTS, ignore).outcome == "ran"
    assert project.is_stale(WORDS)


def test_a_failed_run_reports_the_last_lines_and_stays_stale(root: Path) -> None:
    project = DvcProject(root)
    change_params(root, words={"least": 99})
    failed = project.run(WORDS, ignore)
    assert failed.outcome == "failed"
    assert "error: 6 words, expected 99: lower words.least" in failed.tail
    assert project.is_stale(WORDS)
    assert json.loads((root / "reports/north/check.json").read_text())["success"] is False


def test_a_whole_repro_through_single_items_is_what_dvc_repro_builds(
    built: Path, tmp_path: Path
) -> None:
    root = write_project(tmp_path / "project")
    project = DvcProject(root, external=("data",))
    project.add("data", ["data/north"], ignore)
    outcomes = {address: project.run(address, ignore).outcome for address in project.stages()}
    assert set(outcomes.values()) == {"ran"}
    assert contents(root) == contents(built)
    assert document(root / "dvc.lock") == document(built / "dvc.lock")
    assert "up to date" in dvc(root, "status")


def test_adding_a_part_records_that_part_and_nothing_else(root: Path) -> None:
    project = DvcProject(root)
    north, south = project.tracked_hash("data/north"), project.tracked_hash("data/south")
    (root / "data/north/more.txt").write_text("a new file")
    (root / "data/south/text.txt").write_text("changed by mistake")
    project.add("data", ["data/north"], ignore)
    assert project.tracked_hash("data/north/more.txt") is not None
    assert project.tracked_hash("data/north") != north
    assert project.tracked_hash("data/south") == south
    assert project.is_stale("data.dvc"), "the mistake is still seen"
    assert project.is_stale(WORDS)


def test_adding_to_a_folder_whose_listing_is_not_in_the_cache_tracks_the_whole(root: Path) -> None:
    project = DvcProject(root)
    whole = project.tracked_hash("data")
    assert whole is not None
    (root / ".dvc/cache/files/md5" / whole[:2] / whole[2:]).unlink()
    (root / "data/north/more.txt").write_text("a new file")
    project.add("data", ["data/north"], ignore)
    assert project.tracked_hash("data/north/more.txt") is not None
    assert project.tracked_hash("data/south/text.txt") is not None
    assert not project.is_stale("data.dvc")


def test_adding_a_missing_path_reports_the_error_of_dvc(root: Path) -> None:
    with pytest.raises(DvcError, match="west"):
        DvcProject(root).add("data", ["data/west"], ignore)


def hold_path(root: Path, path: str) -> Path:
    """DVC's own record that a living process, this one, writes there."""
    record = root / ".dvc" / "tmp" / "rwlock"
    record.parent.mkdir(exist_ok=True)
    holder = {"pid": os.getpid(), "cmd": "dvc repro of another process"}
    record.write_text(json.dumps({"write": {str(root / path): holder}, "read": {}}))
    return record


def test_a_path_that_another_process_holds_is_waited_for(root: Path) -> None:
    record = hold_path(root, "out/north/words")
    change_params(root, words={"strict": False})
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if "trying again" in line:
            record.unlink()

    assert DvcProject(root).run(WORDS, report).outcome == "ran"
    assert any("is busy, it is being blocked by" in line for line in lines)


def test_asking_whether_a_stage_is_stale_waits_for_whoever_builds_it(root: Path) -> None:
    record = hold_path(root, "out/north/words")
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        record.unlink()

    assert not DvcProject(root).is_stale(WORDS, report)
    assert lines == ["another DVC process holds a path; trying again in 0.5 s"]


def test_waiting_has_a_time_limit(root: Path) -> None:
    hold_path(root, "out/north/words")
    change_params(root, words={"strict": False})
    project = DvcProject(root, timeout=0)
    result = project.run(WORDS, ignore)
    assert result.outcome == "failed"
    assert any("is busy" in line for line in result.tail)
    with pytest.raises(DvcError, match="is busy"):
        project.is_stale(WORDS)


def test_a_lock_file_caught_half_written_is_read_again(root: Path) -> None:
    lock = root / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole[: len(whole) // 2] + "\n  - [")

    def finish() -> None:
        time.sleep(0.3)
        lock.write_text(whole)

    writer = threading.Thread(target=finish)
    writer.start()
    try:
        assert DvcProject(root).stage(WORDS).data_version.count("+") == 1
    finally:
        writer.join()


def test_a_graph_that_dvc_cannot_read_is_an_error_with_its_reason(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.dvc_project.time.sleep", lambda _: None)
    (root / "dvc.yaml").write_text("stages:\n  words:\n    cmd: [unclosed\n")
    with pytest.raises(DvcError, match=r"dvc\.yaml"):
        DvcProject(root).stages()


def test_a_project_may_be_moved_and_read_from_any_folder(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No absolute path stands in dvc.lock, data.dvc or the cache, and DVC's relative addresses do not show."""
    moved = copy_project(built, tmp_path / "elsewhere")
    project = DvcProject(moved)
    elsewhere = set(project.stages())
    monkeypatch.chdir(moved)
    assert set(project.stages()) == elsewhere
    assert not any(project.is_stale(address) for address in project.stages())


def test_a_pipeline_in_a_subfolder_is_not_part_of_the_graph(root: Path) -> None:
    before = list(DvcProject(root).stages())
    (root / "aside").mkdir()
    (root / "aside/dvc.yaml").write_text(
        "stages:\n  other:\n    cmd: echo > other\n    outs: [other]\n"
    )
    assert list(DvcProject(root).stages()) == before


# What DVC's libraries for S3 do when they are loaded.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_pushed_to_a_bucket_comes_back_on_a_new_machine(
    root: Path, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without credentials, it says which are missing."""
    project = DvcProject(root)
    dvc(root, "remote", "add", "--default", "bucket", "s3://bucket/dvc")
    other = copy_project(root, tmp_path / "other")
    project.push("data", ignore)
    assert (
        s3.list_objects_v2(Bucket="bucket", Prefix="dvc/")["KeyCount"] == 3
    )  # two files, a listing
    shutil.rmtree(other / "data")
    shutil.rmtree(other / ".dvc/cache")
    dvc(other, "pull", "--quiet", "data")
    assert contents(other, ["data"]) == contents(root, ["data"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(DvcError, match="no credentials for DVC's remote: set AWS_ACCESS_KEY_ID"):
        DvcProject(root).push("data", ignore)


def test_a_push_without_a_remote_says_how_to_name_one(root: Path) -> None:
    with pytest.raises(DvcError, match="DVC has no remote: `dvc remote add --default NAME URL`"):
        DvcProject(root).push("data", ignore)


def test_a_clone_without_its_files_keeps_tracking_them(root: Path, tmp_path: Path) -> None:
    """What another machine tracked and nobody pulled must not go from data.dvc because a new file is added."""
    other = copy_project(root, tmp_path / "other")
    shutil.rmtree(other / ".dvc/cache")
    next(path for path in (other / "data").rglob("*") if path.is_file()).unlink()
    (other / "data/new.txt").write_text("new")
    before = (other / "data.dvc").read_text()
    with pytest.raises(
        DvcError, match=r"data\.dvc names 2 files and 1 are here: `dvc pull data\.dvc` first"
    ):
        DvcProject(other).add("data", ["data/new.txt"], ignore)
    assert (other / "data.dvc").read_text() == before
