"""The services of compose.yaml as plain processes on this machine: `make stack`, `python -m infra.stack`.

Postgres, an S3 API (moto's, in memory), MLflow before both, a code server, Dagster's daemon and webserver on Postgres.
A rehearsal: what the services keep is gone when they stop; what stages build stays in the project as ever.
"""

import json
import os
import secrets
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.bucket import make_bucket
from infra.postgres import Postgres
from infra.processes import HOST, Processes, Service, StackError, answers, free_port, listens
from orchestration.instance import ROOT, settings

BUCKET = "llmsrec"
WORKSPACE = ROOT / "infra" / "workspace.stack.yaml"
DEFINITIONS = ("--module-name", "orchestration.definitions")
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
    name locationOrLoadError { ... on PythonError { message causes { message } } } } } } }"""
QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # workers for evaluations of traces, which we have none of
}


@dataclass(frozen=True)
class Stack:
    """Where everything is; `home` holds what the services keep, `definitions` says what Dagster loads in `root`."""

    root: Path
    home: Path
    definitions: tuple[str, ...] = DEFINITIONS
    webserver: int = field(default_factory=free_port)
    mlflow: int = field(default_factory=free_port)
    code: int = field(default_factory=free_port)
    s3: int = field(default_factory=free_port)
    key: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)

    def s3_env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.s3}",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def dagster_env(self, postgres: Postgres) -> dict[str, str]:
        return {
            "DAGSTER_HOME": str(self.home / "dagster"),
            "DAGSTER_POSTGRES_HOST": HOST,
            "DAGSTER_POSTGRES_PORT": str(postgres.port),
            "DAGSTER_POSTGRES_DB": "dagster",
            "DAGSTER_POSTGRES_USER": "dagster",
            "DAGSTER_POSTGRES_PASSWORD": postgres.password,
            "DAGSTER_CODE_HOST": HOST,
            "DAGSTER_CODE_PORT": str(self.code),
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            **QUIET,
        }

    @property
    def mlflow_url(self) -> str:
        return f"http://{HOST}:{self.mlflow}"

    @property
    def webserver_url(self) -> str:
        return f"http://{HOST}:{self.webserver}"

    def store(self) -> Service:
        command = _module("moto.server", "--host", HOST, "--port", str(self.s3))
        return Service("s3", command, lambda: listens(self.s3))

    def tracking(self, postgres: Postgres) -> Service:
        """The password of its database is in its environment, where `ps` does not show it."""
        command = _module(
            "mlflow", "server", "--host", HOST, "--port", str(self.mlflow), "--workers", "1",
            "--artifacts-destination", f"s3://{BUCKET}/mlflow",
        )  # fmt: skip
        env = {**self.s3_env(), **QUIET, "MLFLOW_BACKEND_STORE_URI": postgres.url("mlflow")}
        return Service("mlflow", command, lambda: answers(f"{self.mlflow_url}/health"), env)

    def dagster(self, postgres: Postgres) -> list[Service]:
        env = self.dagster_env(postgres)
        where = ("--host", HOST, "--port")
        code = _module(
            "dagster", "code-server", "start", *where, str(self.code),
            "--working-directory", str(self.root), *self.definitions,
        )  # fmt: skip
        daemon = _module("dagster._daemon", "run", "--workspace", str(WORKSPACE))
        web = _module(
            "dagster_webserver", *where, str(self.webserver), "--workspace", str(WORKSPACE)
        )
        return [
            Service("code", code, lambda: listens(self.code), env),
            Service("webserver", web, lambda: answers(f"{self.webserver_url}/server_info"), env),
            Service("daemon", daemon, lambda: True, env),  # it opens no port
        ]

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Dagster's GraphQL."""
        request = urllib.request.Request(
            f"{self.webserver_url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        if "errors" in answer:
            raise StackError(f"Dagster refused {query}: {answer['errors']}")
        return dict(answer["data"])

    def refuse_broken_definitions(self) -> None:
        """A server of code that cannot be loaded runs and says so to those who ask."""
        for entry in self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"]:
            error = entry["locationOrLoadError"] or {}
            if "message" in error:
                said = [one["message"] for one in (error, *error["causes"])]
                raise StackError("\n".join([f"Dagster cannot load {entry['name']}:", *said]))

    def prepare(self) -> None:
        for port in (self.webserver, self.mlflow, self.code, self.s3):
            if listens(port):  # else its answers would be taken for ours
                raise StackError(f"port {port} is taken; does `make ui` run?")
        self.home.chmod(0o711)  # Postgres may run as another user, and enters its own folder below
        for name in ("dagster", "logs", "postgres"):
            (self.home / name).mkdir()
        text = settings(postgres=True)
        (self.home / "dagster" / "dagster.yaml").write_text(text, encoding="utf-8")


@contextmanager
def running(stack: Stack) -> Iterator[Processes]:
    """All services, each once those before it answer; they stop with the block."""
    stack.prepare()
    postgres = Postgres(stack.home / "postgres")
    processes = Processes(stack.root, stack.home / "logs")
    try:
        postgres.initialise()
        processes.start(postgres.service())
        for name in ("dagster", "mlflow"):
            postgres.create(name)
        processes.start(stack.store())
        make_bucket(BUCKET, stack.s3_env())
        for service in (stack.tracking(postgres), *stack.dagster(postgres)):
            processes.start(service)
        stack.refuse_broken_definitions()
        yield processes
    finally:
        processes.stop()


@contextmanager
def new_home() -> Iterator[Path]:
    """Below the system's folder for passing files, which every user may enter."""
    with tempfile.TemporaryDirectory(prefix="llmsrec-stack-") as folder:
        yield Path(folder)


def _module(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # a shell's background jobs are born deaf to the first
        signal.signal(number, _interrupt)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    try:
        with new_home() as home:
            stack = Stack(ROOT, home, webserver=3000, mlflow=5000)
            print(f"starting; what the services say: {home}/logs", flush=True)
            with running(stack) as processes:
                print(
                    f"Dagster {stack.webserver_url}   MLflow {stack.mlflow_url}   Ctrl-C stops all",
                    flush=True,
                )
                while (ended := processes.ended()) is None:
                    time.sleep(1)
                raise StackError(f"{ended} has ended:\n{processes.tail(ended)}")
    except KeyboardInterrupt:
        return 0
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
