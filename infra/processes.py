"""Services as child processes: started in order, each after the previous one is ready; stopped in reverse order."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from orchestration.child import same_python, stop_group

HOST = "127.0.0.1"


class StackError(Exception):
    """A service cannot be started or has ended; the message has its name and its last lines."""


@dataclass(frozen=True)
class Service:
    """A command; it is ready once `ready` returns True. It runs as the user `account`, if given."""

    name: str
    command: list[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    account: str | None = None


def free_port() -> int:
    """A port that no process listens on."""
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether a process listens on the port."""
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def responds(url: str) -> bool:
    """Whether a GET request has status 200."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


class Processes:
    """The running services; the output of each is in a file in `logs`."""

    def __init__(self, root: Path, logs: Path) -> None:
        self.root, self.logs = root, logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: Service, timeout: float = 120) -> None:
        """Start a service and wait until it is ready; raises StackError after `timeout` seconds or at its end."""
        user = service.account
        with self.log(service.name).open("ab") as log:
            process = subprocess.Popen(
                service.command,
                cwd="/" if user else self.root,  # another user may have no access to the project
                env={**os.environ, "PYTHONUNBUFFERED": "1", **same_python(), **service.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches this process alone, which stops them in order
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )
        self.running[service.name] = process
        deadline = time.monotonic() + timeout
        while not service.ready():
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                what = "ended during its start" if ended else f"is not ready after {timeout:.0f} s"
                raise StackError(f"{service.name} {what}:\n{self.tail(service.name)}")
            time.sleep(0.2)

    def ended(self) -> str | None:
        """The name of a service that has ended, if any."""
        ended = (name for name, process in self.running.items() if process.poll() is not None)
        return next(ended, None)

    def stop(self) -> None:
        """Stop all services, the last one first."""
        for process in reversed(self.running.values()):
            stop_group(process)
        self.running.clear()

    def log(self, name: str) -> Path:
        """The file with the output of a service."""
        return self.logs / f"{name}.log"

    def tail(self, name: str) -> str:
        """The last 20 lines of the output of a service."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-20:])
