"""One child process in its own process group: its lines streamed, its group stopped when we are."""

import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

GRACE = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


def run_child(
    command: list[str],
    root: Path,
    report: Callable[[str], None],
    env: Mapping[str, str] | None = None,
) -> tuple[int, list[str]]:
    """Exit status and last lines; whatever interrupts us stops the whole group of the child first."""
    process = subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **_same_python(), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    tail: deque[str] = deque(maxlen=200)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line := line.rstrip():
                tail.append(line)
                report(line)
        return process.wait(), list(tail)
    except BaseException:
        stop_group(process)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def stop_group(process: subprocess.Popen[str]) -> None:
    """Ask, insist, kill: dvc alone does not pass a SIGINT on to the stage that it runs."""
    for number, seconds in GRACE:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    with contextlib.suppress(ProcessLookupError):  # a member that outlived its leader
        os.killpg(process.pid, signal.SIGKILL)


def _same_python() -> dict[str, str]:
    """`python` in a stage's command is the interpreter that runs us."""
    return {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
