"""Services as child processes: started in order, each once the one before answers; stopped in reverse."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
GRACE = ((signal.SIGINT, 15.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))


class StackError(Exception):
    """A service cannot be started; its text says which and what it said last."""


@dataclass(frozen=True)
class Service:
    """`ready` is asked until it says yes; `account` is another user that it runs as."""

    name: str
    command: list[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    account: str | None = None


def free_port() -> int:
    """One that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def answers(url: str) -> bool:
    """Whether it says 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status) == 200
    except (urllib.error.URLError, OSError):
        return False


class Processes:
    """The services that run; what each says is in a file of its own under `logs`."""

    def __init__(self, root: Path, logs: Path) -> None:
        self.root, self.logs = root, logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: Service, patience: float = 120) -> None:
        """Return once it is ready."""
        own: dict[str, Any] = {}
        if service.account is not None:
            own = {"user": service.account, "group": service.account, "extra_groups": []}
        with self.log(service.name).open("ab") as said:
            process = subprocess.Popen(
                service.command,
                cwd="/" if service.account else self.root,  # another user may not enter the project
                env={**os.environ, "PYTHONUNBUFFERED": "1", **service.env},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for us: who needs another stops before it
                **own,
            )
        self.running[service.name] = process
        deadline = time.monotonic() + patience
        while not service.ready():
            if process.poll() is not None:
                raise StackError(f"{service.name} ended at its start:\n{self.tail(service.name)}")
            if time.monotonic() > deadline:
                raise StackError(
                    f"{service.name} is not ready after {patience:.0f} s:\n{self.tail(service.name)}"
                )
            time.sleep(0.2)

    def ended(self) -> str | None:
        """The name of a service that runs no more."""
        return next((name for name, one in self.running.items() if one.poll() is not None), None)

    def stop(self) -> None:
        for process in reversed(self.running.values()):
            for number, seconds in GRACE:
                if process.poll() is not None:
                    break
                process.send_signal(number)
                try:
                    process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers that outlived their leader
        self.running.clear()

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def tail(self, name: str) -> str:
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-20:])
