"""One run of the pipeline, observed step by step, with a fault injected at a chosen moment of a chosen step."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from reliability.project import environment
from reliability.soaking.full_disk import fill_disk

RUN = "run"  # the step of the whole run, the parent of all others
POLL_SECONDS = 0.02
TIMEOUT = 1800.0  # seconds
KILL_STEP, KILL_ALL, KILL_RUN, FULL_DISK = "kill step", "kill all", "kill run", "full disk"


@dataclass(frozen=True)
class Fault:
    """A fault of this kind, `delay` seconds after the step's begin."""

    step: str
    kind: str
    delay: float


@dataclass
class PipelineRun:
    """The result of a run; `spans` has for each step the seconds from the run's start to its begin and end."""

    returncode: int = 0
    output: str = ""
    injected: bool = False
    timed_out: bool = False
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)


def run_pipeline(root: Path, address: str, fault: Fault | None = None) -> PipelineRun:
    """Run `orchestration.run` in the project at `root`, with S3 at `address`."""
    run = PipelineRun()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.run"],
            cwd=root,
            env={**environment(root), "AWS_ENDPOINT_URL": address, "PYTHONPATH": str(root)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _observe(run, process, root, fault)
        finally:
            if process.poll() is None:
                _kill_all(process.pid)
            run.returncode = process.wait()
        output.seek(0)
        run.output = output.read().decode(errors="replace")
    return run


def _observe(
    run: PipelineRun, process: "subprocess.Popen[bytes]", root: Path, fault: Fault | None
) -> None:
    """Record the steps until the run has ended, and inject the fault once."""
    start = time.monotonic()
    release: Callable[[], None] = lambda: None  # noqa: E731
    while process.poll() is None:
        now = time.monotonic() - start
        steps = dict(_steps(process.pid))
        for step in steps:
            run.spans[step] = (run.spans.get(step, (now, now))[0], now)
        if (
            fault is not None
            and fault.step in steps
            and not run.injected
            and (now >= run.spans[fault.step][0] + fault.delay)
        ):
            release = _inject(fault.kind, steps[fault.step], process.pid, root)
            run.injected = True
        if now > TIMEOUT:
            run.timed_out = True
            _kill_all(process.pid)
        time.sleep(POLL_SECONDS)
    release()


def _steps(pid: int) -> Iterator[tuple[str, int]]:
    """The name and the process id of each running step."""
    yield RUN, pid
    for child in _children(pid):
        with contextlib.suppress(psutil.Error):
            name = step_of(child.cmdline())
            if name is not None:
                yield name, child.pid


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def step_of(command: list[str]) -> str | None:
    """The step of a command (`dvc add`, `train_teacher`, `arrivals import`); None for other commands."""
    if "-m" not in command[:-1] or not Path(command[0]).name.startswith("python"):
        return None
    module, *rest = command[command.index("-m") + 1 :]
    words = [word for word in rest if not word.startswith("-")]
    if module == "dvc":
        return " ".join(["dvc", *words[:1]])
    if not module.startswith("llmsrec.stages."):
        return None
    name = module.removeprefix("llmsrec.stages.")
    return f"{name} {words[0]}" if name == "arrivals" else name


def _inject(kind: str, step: int, run: int, root: Path) -> Callable[[], None]:
    """Inject a fault; the returned function ends it after the run."""
    if kind == FULL_DISK:
        return fill_disk(root)
    if kind == KILL_ALL:
        _kill_all(run)
    else:
        _kill(step if kind == KILL_STEP else run)  # with KILL_RUN the step itself continues
    return lambda: None


def _kill_all(pid: int) -> None:
    """Kill the run first, so that it cannot clean up after its children, as in a power failure."""
    for number in [pid, *(child.pid for child in _children(pid))]:
        _kill(number)


def _kill(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()
