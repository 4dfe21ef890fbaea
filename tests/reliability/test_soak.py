"""Each check of the soak finds what it looks for, and each fault hits its target."""

import gzip
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from reliability.soak import Soak
from reliability.soaking import pipeline_run
from reliability.soaking.checks import check_inbox, check_interactions, leftovers
from reliability.soaking.file_watcher import watched_files
from reliability.soaking.full_disk import UNSHARE
from reliability.soaking.pipeline_run import (
    FULL_DISK,
    KILL_ALL,
    KILL_RUN,
    KILL_STEP,
    RUN,
    Fault,
    PipelineRun,
    run_pipeline,
    step_of,
)
from reliability.soaking.synthetic import ExpectedInteractions, InputFile, SyntheticDataset

CHECKOUT = Path(__file__).parents[2]


def test_the_synthetic_dataset_is_reproducible_and_each_iteration_is_new() -> None:
    first, second = SyntheticDataset(3).new_files(1), SyntheticDataset(3).new_files(2)
    assert first == SyntheticDataset(3).new_files(1)
    assert {file.content for file in first}.isdisjoint(file.content for file in second)
    good, again, twice, broken, cut = first
    assert twice.content == good.content
    assert [file.rejected for file in first] == [False, False, False, True, True]
    assert broken.content.count(b"\n") > 5
    with pytest.raises(EOFError):
        gzip.decompress(cut.content)
    assert len(gzip.decompress(again.content).splitlines()) == len(again.interactions)


def test_the_first_interaction_of_each_pair_is_expected() -> None:
    expected = ExpectedInteractions()
    expected.add(InputFile("a", b"", (("U", "I", 5), ("U", "J", 6), ("U", "I", 9)), broken=1))
    expected.add(InputFile("b", b"", (("U", "I", 3),)))
    assert expected.first_times == {("U", "I"): 3, ("U", "J"): 6}
    assert (expected.lines, expected.broken) == (5, 1)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for folder in ("artifacts/shop/interactions", "reports/shop", "data/shop"):
        (root / folder).mkdir(parents=True)
    return root


def write_interactions(root: Path, rows: list[tuple[str, str, int]], **counts: int) -> None:
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    frame.to_parquet(root / "artifacts/shop/interactions/interactions.parquet")
    report = {"reviews": {"lines": 2, "rejects": 0, **counts}}
    (root / "reports/shop/interactions.json").write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("rows", "counts", "findings"),
    [
        ([("U", "I", 3), ("U", "J", 6)], {}, []),
        ([("U", "I", 3)], {}, ["interactions.parquet: 1 of ('U', 'J', 6) lost"]),
        (
            [("U", "I", 3), ("U", "J", 6), ("U", "J", 6)],
            {},
            ["interactions.parquet: 1 of ('U', 'J', 6) too many"],
        ),
        (
            [("U", "I", 3), ("U", "J", 6)],
            {"rejects": 1},
            ["interactions.json counts 1 rejects of 0"],
        ),
    ],
)
def test_lost_and_doubled_purchases_are_found(
    project: Path, rows: list[tuple[str, str, int]], counts: dict[str, int], findings: list[str]
) -> None:
    write_interactions(project, rows, **counts)
    expected = ExpectedInteractions({("U", "I"): 3, ("U", "J"): 6}, lines=2)
    assert check_interactions(project, "shop", expected) == findings


def test_files_left_in_an_inbox_and_missing_reasons_are_reported(s3: Any) -> None:
    good, bad = InputFile("good.jsonl", b"good"), InputFile("bad.jsonl", b"bad", rejected=True)
    for key, content in {"in/done/good.jsonl": b"good", "in/rejected/bad.jsonl": b"bad"}.items():
        s3.put_object(Bucket="bucket", Key=key, Body=content)
    assert check_inbox(s3, "bucket", [good, bad]) == ["rejected/bad.jsonl has no reason file"]
    s3.put_object(Bucket="bucket", Key="in/rejected/bad.jsonl.reason.txt", Body=b"why")
    assert check_inbox(s3, "bucket", [good, bad]) == []
    s3.put_object(Bucket="bucket", Key="in/late.jsonl", Body=b"late")
    s3.put_object(Bucket="bucket", Key="in/done/good.jsonl", Body=b"other")
    assert check_inbox(s3, "bucket", [good, bad]) == [
        "late.jsonl stayed in the inbox",
        "done/good.jsonl has other bytes",
        "4 files below the inbox, expected 3",
    ]


def test_only_partly_written_files_are_reported(project: Path) -> None:
    folder = project / "artifacts/shop"
    with watched_files(project, {"shop.jsonl": "0" * 64}) as broken:
        pd.DataFrame({"a": [1]}).to_parquet(folder / "whole.parquet")
        save_file({"a": np.ones(9)}, folder / "whole.safetensors")
        (folder / ".aside.parquet").write_bytes(b"PAR1")
        (folder / "whole.json").write_text("{}")
    assert broken == []
    with watched_files(project, {"shop.jsonl": "0" * 64}) as broken:
        for name in ("whole.parquet", "whole.safetensors", "whole.json"):
            whole = (folder / name).read_bytes()
            (folder / name.replace("whole", "half")).write_bytes(whole[:-1])
        (project / "data/shop/shop.jsonl").write_text("other")
        (project / "reports/shop/report.html").write_text("<html><p>")
    names = sorted(Path(line.split(" was incomplete")[0]).name for line in broken)
    assert names == ["half.json", "half.parquet", "half.safetensors", "report.html", "shop.jsonl"]


def test_leftovers_are_found(project: Path) -> None:
    (project / "artifacts/shop/.teacher.partial").mkdir()
    (project / ".dvc/tmp").mkdir(parents=True)
    (project / ".dvc/tmp/.one.partial").touch()
    assert leftovers(project) == ["artifacts/shop/.teacher.partial was left behind"]


@pytest.mark.parametrize(
    ("command", "step"),
    [
        ("python -m llmsrec.stages.train_teacher --splits x", "train_teacher"),
        ("/venv/bin/python3.11 -m llmsrec.stages.arrivals import --dataset d", "arrivals import"),
        ("python -m dvc --wait-for-lock repro --single-item a@b", "dvc repro"),
        ("python -m orchestration.run", None),
        ("tail -F x", None),
        ("python -c pass", None),
    ],
)
def test_a_step_is_identified_by_its_command(command: str, step: str | None) -> None:
    assert step_of(command.split()) == step


PIPELINE = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "llmsrec.stages.slow"])
print(child.pid, flush=True)
open("started", "w").close()
sys.exit(child.wait() != 0)
"""
# It ends when the file `go` comes, or after two minutes.
STEP = """
import time
from pathlib import Path
for _ in range(1200):
    if Path("go").exists():
        break
    time.sleep(0.1)
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Path]:
    """A project whose run has one step, which waits for a file."""
    root = tmp_path / "project"
    for name, text in {"orchestration/run.py": PIPELINE, "llmsrec/stages/slow.py": STEP}.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    for package in ("orchestration", "llmsrec", "llmsrec/stages"):
        (root / package / "__init__.py").touch()
    yield root
    (root / "go").touch()  # for a step that was spared


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(pid: int) -> bool:
    """A kill takes a moment to arrive; the step would wait for two minutes."""
    deadline = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize(
    ("kind", "step", "returncode", "spared"),
    [(KILL_STEP, "slow", 1, False), (KILL_RUN, "slow", -9, True), (KILL_ALL, RUN, -9, False)],
)
def test_a_fault_hits_its_target(
    pipeline: Path, kind: str, step: str, returncode: int, spared: bool
) -> None:
    found = run_pipeline(pipeline, "http://127.0.0.1:1", Fault(step, kind, 1.0))
    assert found.injected
    assert found.returncode == returncode
    assert {RUN, "slow"} == set(found.spans)
    assert alive(int(found.output)) if spared else ends(int(found.output))


def test_a_run_without_fault_is_observed_to_its_end(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its step ends after twenty looks at it."""
    looks, steps = 0, pipeline_run._steps

    def counted(pid: int) -> list[tuple[str, int]]:
        nonlocal looks
        found = list(steps(pid))
        looks += "slow" in dict(found)
        if looks == 20:
            (pipeline / "go").touch()
        return found

    monkeypatch.setattr(pipeline_run, "_steps", counted)
    found = run_pipeline(pipeline, "http://127.0.0.1:1")
    assert (found.returncode, found.injected) == (0, False)
    first, last = found.spans["slow"]
    assert last - first >= 19 * pipeline_run.POLL_SECONDS
    begun, over = found.spans[RUN]
    assert begun <= first < last <= over


def test_a_run_that_hangs_times_out(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour passes as soon as its step has started."""

    def monotonic() -> float:
        return time.monotonic() + 3600 * (pipeline / "started").exists()

    clock = SimpleNamespace(monotonic=monotonic, sleep=time.sleep)
    monkeypatch.setattr(pipeline_run, "time", clock)
    found = run_pipeline(pipeline, "http://127.0.0.1:1")
    assert found.timed_out
    assert ends(int(found.output))


FILLED = """
import sys
from pathlib import Path
from reliability.soaking.full_disk import fill_disk
folder = Path(sys.argv[1])
release = fill_disk(folder)
try:
    (folder / "file").write_bytes(bytes(100_000))
except OSError as error:
    print(error.strerror)
release()
(folder / "file").write_bytes(bytes(100_000))
print("written")
"""


def test_a_filled_disk_takes_no_more_until_it_is_released(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"]).returncode:
        pytest.skip("unshare makes no disk here")
    mount = 'mount -t tmpfs -o size=4m none "$0" && exec "$@"'
    command = [
        *UNSHARE,
        "sh",
        "-c",
        mount,
        str(tmp_path),
        sys.executable,
        "-c",
        FILLED,
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["No space left on device", "written"], done.stderr


def test_faults_take_turns_so_that_each_step_meets_each_kind(tmp_path: Path) -> None:
    soak = Soak(0, tmp_path, None, ("127.0.0.1", 1))
    reference = PipelineRun(spans={RUN: (0, 9), "ingest": (1, 2), "dvc repro": (1, 3)})
    met = set()
    for _ in range(8):
        for fault in soak._faults(reference, 2):
            soak.faults[fault.step, fault.kind] += 1
            met.add((fault.step, fault.kind))
    assert {KILL_STEP, KILL_ALL, KILL_RUN} <= {kind for _, kind in met}
    assert (RUN, KILL_STEP) not in met
    assert max(soak.faults.values()) - min(soak.faults.values()) <= 1
    assert FULL_DISK not in {kind for _, kind in met}, "there is no private disk here"
