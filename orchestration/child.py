"""Run one child process in its own process group, stream its lines, and stop its group on interruption."""

import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Signals in order, with the seconds to wait after each.
STOP_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


def run_child(
    command: list[str],
    root: Path,
    log: Callable[[str], None],
    env: Mapping[str, str] | None = None,
) -> tuple[int, list[str]]:
    """The exit status and the last 200 lines; every line goes to `log`. An exception stops the child's group first."""
    process = subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **same_python(), **(env or {})},
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
                log(line)
        return process.wait(), list(tail)
    except BaseException:
        stop_group(process)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def stop_group(process: subprocess.Popen[Any]) -> None:
    """Send SIGINT, SIGTERM and SIGKILL to the group; dvc does not forward a SIGINT to the stage that it runs."""
    for number, seconds in STOP_SIGNALS:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    with contextlib.suppress(ProcessLookupError):  # processes of the group that outlived the child
        os.killpg(process.pid, signal.SIGKILL)


def same_python() -> dict[str, str]:
    """A PATH where `python` in a stage's command is the running interpreter."""
    return {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
