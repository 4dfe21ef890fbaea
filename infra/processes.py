"""Services as child processes: started in order, each after the previous one is ready; stopped in reverse order."""

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
# Signals in order, with the seconds to wait after each.
STOP_SIGNALS = ((signal.SIGINT, 15.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))


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
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status) == 200
    except (urllib.error.URLError, OSError):
        return False


class Processes:
    """The running services; the output of each is in a file in `logs`."""

    def __init__(self, root: Path, logs: Path) -> None:
        self.root, self.logs = root, logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: Service, timeout: float = 120) -> None:
        """Start a service and wait until it is ready; raises StackError after `timeout` seconds or at its end."""
        account: dict[str, Any] = {}
        if service.account is not None:
            account = {"user": service.account, "group": service.account, "extra_groups": []}
        with self.log(service.name).open("ab") as log:
            process = subprocess.Popen(
                service.command,
                cwd="/"
                if service.account
                else self.root,  # the project may not be accessible to another user
                env={**os.environ, "PYTHONUNBUFFERED": "1", **service.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches this process alone, which stops them in order
                **account,
            )
        self.running[service.name] = process
        deadline = time.monotonic() + timeout
        while not service.ready():
            if process.poll() is not None:
                raise StackError(
                    f"{service.name} ended during its start:\n{self.tail(service.name)}"
                )
            if time.monotonic() > deadline:
                raise StackError(
                    f"{service.name} is not ready after {timeout:.0f} s:\n{self.tail(service.name)}"
                )
            time.sleep(0.2)

    def ended(self) -> str | None:
        """The name of a service that has ended, if any."""
        ended = (name for name, process in self.running.items() if process.poll() is not None)
        return next(ended, None)

    def stop(self) -> None:
        """Stop all services, the last one first."""
        for process in reversed(self.running.values()):
            for number, seconds in STOP_SIGNALS:
                if process.poll() is not None:
                    break
                process.send_signal(number)
                try:
                    process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers that outlived the service
        self.running.clear()

    def log(self, name: str) -> Path:
        """The file with the output of a service."""
        return self.logs / f"{name}.log"

    def tail(self, name: str) -> str:
        """The last 20 lines of the output of a service."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-20:])
