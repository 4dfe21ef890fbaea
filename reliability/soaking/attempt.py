"""One run of the pipeline, watched step by step, and struck at a chosen moment of a chosen step."""

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
from reliability.soaking.disk import filled

RUN = "run"  # the step that all others are children of
LOOK = 0.02  # seconds between two looks at the processes
KILL_STEP, KILL_ALL, KILL_RUN, FULL_DISK = "kill step", "kill all", "kill run", "full disk"


@dataclass(frozen=True)
class Fault:
    """When `share` of the step's usual time is over."""

    step: str
    strike: str
    share: float


@dataclass
class Attempt:
    """What came of a run; `spans` are the seconds, from its start, between which each step was seen."""

    returncode: int = 0
    said: str = ""
    struck: bool = False
    hung: bool = False
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)

    def due(self, fault: Fault, usual: float, now: float) -> bool:
        """Each strike once."""
        first, _ = self.spans.get(fault.step, (now, now))
        return not self.struck and now - first >= fault.share * usual


def attempt(
    root: Path,
    address: str,
    fault: Fault | None = None,
    usual: float = 0.0,
    patience: float = 600,
) -> Attempt:
    """`address` is that of the S3 store; `usual` the seconds that the fault's step takes."""
    found = Attempt()
    log = root.parent / f"said-{time.monotonic_ns()}.txt"
    with log.open("wb") as said, _started(root, address, said.fileno()) as process:
        start = time.monotonic()
        release: Callable[[], None] = lambda: None  # noqa: E731
        while process.poll() is None:
            now = time.monotonic() - start
            steps = dict(_steps(process.pid))
            for step in steps:
                found.spans[step] = (found.spans.get(step, (now, now))[0], now)
            due = fault is not None and found.due(fault, usual, now)
            if fault is not None and due and fault.step in steps:
                release = _strike(fault.strike, steps[fault.step], process.pid, root)
                found.struck = True
            if now > patience:
                found.hung = True
                _kill_all(process.pid)
            time.sleep(LOOK)
        release()
    found.returncode = process.returncode
    found.said = log.read_text(errors="replace")
    log.unlink()
    return found


@contextmanager
def _started(root: Path, address: str, said: int) -> Iterator[subprocess.Popen[bytes]]:
    """It and all its children are gone after the block, unless a strike spared them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration.run"],
        cwd=root,
        env={**environment(root), "AWS_ENDPOINT_URL": address, "PYTHONPATH": str(root)},
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            _kill_all(process.pid)
        process.wait()


def _steps(pid: int) -> Iterator[tuple[str, int]]:
    """The name of each Python module that runs below, and its process."""
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
    """`dvc add`, `train_teacher`, `arrivals import`; None of what is not run by us with -m."""
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


def _strike(strike: str, step: int, run: int, root: Path) -> Callable[[], None]:
    """Returns what ends it when the run is over."""
    if strike == FULL_DISK:
        return filled(root)
    if strike == KILL_ALL:
        _kill_all(run)
    else:
        _kill(step if strike == KILL_STEP else run)  # of the run alone: the step goes on without it
    return lambda: None


def _kill_all(pid: int) -> None:
    """The run first: it would tell of its children's end and tidy up, which a machine without power does not."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for number in [pid, *(process.pid for process in below)]:
        _kill(number)


def _kill(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()
