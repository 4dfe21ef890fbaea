"""Several Dagster processes on one project, and processes killed half-way: the bytes are the same in the end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import psutil
import pytest
import yaml

from tests.orchestration.small_project import (
    QUIET,
    Materialise,
    contents,
    copy_project,
    dvc,
    environment,
    runs_of,
)
from tests.orchestration.test_dvc_assets import outcomes

pytestmark = QUIET

CHECKOUT = Path(__file__).parents[2]
SECONDS = 240  # for another process; the machine may be busy


Drive = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def drive() -> Iterator[Drive]:
    """Start a driver; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(root: Path, item: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.orchestration.driver", str(root), item, *options]
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(driver: subprocess.Popen[str]) -> tuple[dict[str, str], str]:
    said, _ = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 0, said
    return json.loads(said.splitlines()[-1]), said


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.05)
    return path.read_text()


def at_work(root: Path) -> list[str]:
    """Commands of living processes that work in the project."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(root):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def all_end(root: Path, *pids: int) -> bool:
    """Within a minute, neither these live nor anybody works in the project: a kill takes a moment to arrive."""
    deadline = time.monotonic() + 60
    while busy := at_work(root) or any(map(lives, pids)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return not busy


def lives(pid: int) -> bool:
    """A process that ended and that its parent did not ask for yet is dead."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(*processes: psutil.Process) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            process.kill()


def same(root: Path, other: Path, *items: str) -> bool:
    """Outputs and their records in dvc.lock; the time that a step took is in neither."""
    for item in items:
        for folder in (f"out/{item}", f"reports/{item}"):
            if contents(root, [folder]) != contents(other, [folder]):
                return False
    locks = [yaml.safe_load((each / "dvc.lock").read_text())["stages"] for each in (root, other)]
    names = [f"{step}@{item}" for step in ("words", "counts") for item in items]
    return all(locks[0][name] == locks[1][name] for name in names)


def other_texts(root: Path) -> Path:
    (root / "data/north/text.txt").write_text("hail beats on the bare fells")
    (root / "data/south/text.txt").write_text("wind moves in the orange groves")
    return root


@pytest.fixture
def changed(project: Path) -> Path:
    """Both datasets have other raw texts than when they were built."""
    return other_texts(project)


@pytest.fixture(scope="module")
def expected(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `dvc repro` makes of them, without interruption."""
    root = other_texts(copy_project(built, tmp_path_factory.mktemp("expected") / "project"))
    dvc(root, "repro", "--quiet", "counts@north", "counts@south")
    return root


@pytest.mark.slow
def test_two_datasets_may_be_materialised_at_once(
    drive: Drive, changed: Path, expected: Path
) -> None:
    (changed / "mlflow.db").unlink()  # its tables too are made by two processes at once
    (changed / "hold").touch()
    drivers = [drive(changed, item, "track") for item in ("north", "south")]
    for item in ("north", "south"):
        wait_for(changed / f"held-{item}")
    (changed / "hold").unlink()
    for driver in drivers:
        assert finish(driver)[0] == {"words": "ran", "counts": "ran"}
    runs = [(run.data.tags["stage"], run.data.tags["dataset"]) for run in runs_of(changed)]
    steps = ("counts", "pipeline", "words")
    assert sorted(runs) == [(step, item) for step in steps for item in ("north", "south")]
    assert same(changed, expected, "north", "south")


@pytest.mark.slow
def test_a_second_process_waits_for_the_paths_of_the_first(
    drive: Drive, changed: Path, expected: Path, materialise: Materialise
) -> None:
    (changed / "hold").touch()
    first = drive(changed, "north")
    wait_for(changed / "held-north")
    second = drive(changed, "north")
    lines = []
    assert second.stdout is not None
    for line in second.stdout:
        lines.append(line)
        if "another DVC process holds a path; trying again" in line:
            (changed / "hold").unlink(missing_ok=True)
    assert second.wait(SECONDS) == 0, "".join(lines)
    assert json.loads(lines[-1])["words"] == "unchanged"
    assert finish(first)[0]["words"] == "ran"
    assert same(changed, expected, "north")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_and_can_be_repeated(
    drive: Drive, changed: Path, expected: Path, number: signal.Signals, materialise: Materialise
) -> None:
    (changed / "hold").touch()
    driver = drive(changed, "north", "track")
    stage = int(wait_for(changed / "held-north"))
    assert at_work(changed)
    os.kill(driver.pid, number)
    driver.communicate(timeout=SECONDS)
    assert driver.returncode != 0
    assert all_end(changed, stage)
    runs = [run for run in runs_of(changed) if run.data.tags["dataset"] == "north"]
    killed = {run.data.tags["stage"]: run.info.status for run in runs}
    assert killed == {"words": "KILLED", "pipeline": "KILLED"}
    (changed / "hold").unlink()
    result = materialise(changed, "north")
    assert outcomes(result) == {"words": "ran", "counts": "ran"}
    assert same(changed, expected, "north")


@pytest.mark.slow
def test_after_everything_was_killed_the_next_run_makes_the_same(
    drive: Drive, changed: Path, expected: Path, materialise: Materialise
) -> None:
    (changed / "hold").touch()
    driver = drive(changed, "north")
    wait_for(changed / "held-north")
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()  # the first, else it tells of its children's end
    kill(*children)
    driver.communicate(timeout=SECONDS)
    assert all_end(changed)
    assert (changed / "out/north/words/first.txt").exists(), "the output was left half-written"
    assert not (changed / "out/north/words/rest.txt").exists()
    (changed / "hold").unlink()
    assert outcomes(materialise(changed, "north")) == {"words": "ran", "counts": "ran"}
    assert same(changed, expected, "north")


@pytest.mark.slow
def test_after_dagster_was_killed_the_next_run_waits_for_the_stage_that_goes_on(
    drive: Drive, changed: Path, expected: Path, materialise: Materialise
) -> None:
    (changed / "hold").touch()
    driver = drive(changed, "north")
    wait_for(changed / "held-north")
    driver.kill()
    driver.communicate(timeout=SECONDS)
    release = Timer(2, (changed / "hold").unlink)
    release.start()
    result = materialise(changed, "north")
    release.join()
    assert result.success
    assert same(changed, expected, "north")
    assert all_end(changed)


@pytest.mark.slow
def test_a_killed_dvc_fails_the_asset_and_the_next_run_makes_the_same(
    drive: Drive, changed: Path, expected: Path, materialise: Materialise
) -> None:
    (changed / "hold").touch()
    driver = drive(changed, "north")
    stage = int(wait_for(changed / "held-north"))
    children = psutil.Process(driver.pid).children(recursive=True)
    kill(*(child for child in children if child.pid != stage))
    (changed / "hold").unlink()
    said, _ = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 1, said
    assert outcomes(materialise(changed, "north")) == {"words": "ran", "counts": "ran"}
    assert same(changed, expected, "north")
