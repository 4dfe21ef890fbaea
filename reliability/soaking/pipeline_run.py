"""One run of the pipeline, observed step by step, with a fault injected at a chosen moment of a chosen step."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from reliability.project import environment
from reliability.soaking.full_disk import fill_disk

RUN = "run"  # the step of the whole run, the parent of all others
POLL_SECONDS = 0.02
KILL_STEP, KILL_ALL, KILL_RUN, FULL_DISK = "kill step", "kill all", "kill run", "full disk"


@dataclass(frozen=True)
class Fault:
    """A fault of this kind, when `share` of the step's usual time is over."""

    step: str
    kind: str
    share: float


@dataclass
class PipelineRun:
    """The result of a run; `spans` has for each step the seconds from the run's start to its begin and end."""

    returncode: int = 0
    output: str = ""
    injected: bool = False
    timed_out: bool = False
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)

    def is_due(self, fault: Fault, usual: float, now: float) -> bool:
        """Whether to inject the fault `now`; a fault is injected once."""
        first, _ = self.spans.get(fault.step, (now, now))
        return not self.injected and now - first >= fault.share * usual


def run_pipeline(
    root: Path,
    address: str,
    fault: Fault | None = None,
    usual: float = 0.0,
    timeout: float = 600,
) -> PipelineRun:
    """Run `orchestration.run` in the project at `root`, with S3 at `address`.

    `usual` is the duration of the fault's step in the reference run, in seconds.
    """
    run = PipelineRun()
    log = root.parent / f"output-{time.monotonic_ns()}.txt"
    with log.open("wb") as output, _started(root, address, output.fileno()) as process:
        start = time.monotonic()
        release: Callable[[], None] = lambda: None  # noqa: E731
        while process.poll() is None:
            now = time.monotonic() - start
            steps = dict(_steps(process.pid))
            for step in steps:
                run.spans[step] = (run.spans.get(step, (now, now))[0], now)
            due = fault is not None and run.is_due(fault, usual, now)
            if fault is not None and due and fault.step in steps:
                release = _inject(fault.kind, steps[fault.step], process.pid, root)
                run.injected = True
            if now > timeout:
                run.timed_out = True
                _kill_all(process.pid)
            time.sleep(POLL_SECONDS)
        release()
    run.returncode = process.returncode
    run.output = log.read_text(errors="replace")
    log.unlink()
    return run


@contextmanager
def _started(root: Path, address: str, output: int) -> Iterator[subprocess.Popen[bytes]]:
    """The process of the run; at the end of the block it is killed with all its children."""
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
        yield process
    finally:
        if process.poll() is None:
            _kill_all(process.pid)
        process.wait()


def _steps(pid: int) -> Iterator[tuple[str, int]]:
    """The name and the process id of each running step."""
    yield RUN, pid
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for child in children:
        try:
            name = step_of(child.cmdline())
        except psutil.Error:
            continue
        if name is not None:
            yield name, child.pid


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
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for number in [pid, *(process.pid for process in children)]:
        _kill(number)


def _kill(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()
