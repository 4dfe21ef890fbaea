"""Services start in order, each when the one before is ready; a failure shows the output of the service."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from infra.processes import Processes, Service, StackError, free_port, listens
from infra.stack import Stack

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path, tmp_path)
    yield found
    found.stop()


def test_a_service_that_exits_at_start_is_an_error_with_its_last_lines(
    processes: Processes,
) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such database')"]
    with pytest.raises(StackError, match=r"(?s)mlflow ended.*no such database"):
        processes.start(Service("mlflow", command, lambda: False))


@pytest.mark.slow
def test_a_service_that_is_never_ready_is_an_error(processes: Processes) -> None:
    with pytest.raises(StackError, match="s3 is not ready after 0 s"):
        processes.start(Service("s3", SLEEP, lambda: False), timeout=0)


@pytest.mark.slow
def test_waiting_reports_which_service_ended(processes: Processes) -> None:
    processes.start(Service("first", SLEEP, lambda: True))
    processes.start(Service("second", SLEEP, lambda: True))
    assert processes.ended() is None
    processes.running["second"].kill()
    processes.running["second"].wait()
    assert processes.ended() == "second"


@pytest.mark.slow
def test_stop_ends_all_child_processes(processes: Processes) -> None:
    """Also the child of a service that does not end it."""
    code = f"import subprocess; subprocess.run({SLEEP!r}, start_new_session=False)"
    processes.start(Service("parent", [sys.executable, "-c", code], lambda: True))
    parent = psutil.Process(processes.running["parent"].pid)
    while not (children := parent.children()):
        time.sleep(0.05)
    processes.stop()
    assert processes.running == {}
    _, alive = psutil.wait_procs([*children, parent], timeout=60)
    assert alive == []


def test_a_free_port_is_free() -> None:
    assert not listens(free_port())


def test_a_port_in_use_is_an_error(tmp_path: Path) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is in use"):
            Stack(tmp_path, tmp_path, webserver=port).prepare()


def test_an_interrupted_stack_prints_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while it starts: status 0, no traceback."""
    code = "import infra.stack as s\ns.running = lambda stack: s._interrupt()\nraise SystemExit(s.main())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
