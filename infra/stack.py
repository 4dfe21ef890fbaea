"""The services of compose.yaml as local processes: `make stack`, `python -m infra.stack`.

Postgres, an S3 API (moto, in memory), MLflow on both, a code server, Dagster's daemon and webserver on Postgres.
The data of the services are deleted when they stop; the outputs of stages stay in the project.
"""

import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from infra.bucket import create_bucket
from infra.postgres import Postgres
from infra.processes import HOST, Processes, Service, StackError, free_port, listens, responds
from orchestration.instance import ROOT, settings

BUCKET = "llmsrec"
WORKSPACE = ROOT / "infra" / "workspace.stack.yaml"
DEFINITIONS = ("--module-name", "orchestration.definitions")
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
    name locationOrLoadError { ... on PythonError { message causes { message } } } } } } }"""
QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # workers for evaluating traces, which are not used
}


@dataclass(frozen=True)
class Stack:
    """The services' ports and folders: their data are in `home`; Dagster loads `definitions` in `root`."""

    root: Path
    home: Path
    definitions: tuple[str, ...] = DEFINITIONS
    webserver: int = field(default_factory=free_port)
    mlflow: int = field(default_factory=free_port)
    code: int = field(default_factory=free_port)
    s3: int = field(default_factory=free_port)
    key: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)

    def s3_env(self) -> dict[str, str]:
        """The environment of clients of the S3 API."""
        return {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.s3}",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def dagster_env(self, postgres: Postgres) -> dict[str, str]:
        """The environment of Dagster's processes."""
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

    def s3_service(self) -> Service:
        """The S3 API."""
        command = _module("moto.server", "--host", HOST, "--port", str(self.s3))
        return Service("s3", command, lambda: listens(self.s3))

    def mlflow_service(self, postgres: Postgres) -> Service:
        """The MLflow server; the password of its database is in its environment, which `ps` does not show."""
        command = _module(
            "mlflow", "server", "--host", HOST, "--port", str(self.mlflow), "--workers", "1",
            "--artifacts-destination", f"s3://{BUCKET}/mlflow",
        )  # fmt: skip
        env = {**self.s3_env(), **QUIET, "MLFLOW_BACKEND_STORE_URI": postgres.url("mlflow")}
        return Service("mlflow", command, lambda: responds(f"{self.mlflow_url}/health"), env)

    def dagster_services(self, postgres: Postgres) -> list[Service]:
        """Code server, webserver and daemon."""
        env = self.dagster_env(postgres)
        address = ("--host", HOST, "--port")
        code = _module(
            "dagster", "code-server", "start", *address, str(self.code),
            "--working-directory", str(self.root), *self.definitions,
        )  # fmt: skip
        daemon = _module("dagster._daemon", "run", "--workspace", str(WORKSPACE))
        web = _module(
            "dagster_webserver", *address, str(self.webserver), "--workspace", str(WORKSPACE)
        )
        return [
            Service("code", code, lambda: listens(self.code), env),
            Service("webserver", web, lambda: responds(f"{self.webserver_url}/server_info"), env),
            Service("daemon", daemon, lambda: True, env),  # it opens no port
        ]

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL query to Dagster's webserver; raises StackError."""
        body = {"query": query, "variables": variables}
        response = httpx.post(f"{self.webserver_url}/graphql", json=body, timeout=60)
        document = response.raise_for_status().json()
        if "errors" in document:
            raise StackError(f"Dagster rejected {query}: {document['errors']}")
        return dict(document["data"])

    def check_definitions(self) -> None:
        """Raise StackError if the code server could not load its definitions, since it runs all the same."""
        for entry in self.query(LOCATIONS)["workspaceOrError"]["locationEntries"]:
            error = entry["locationOrLoadError"] or {}
            if "message" in error:
                messages = [cause["message"] for cause in (error, *error["causes"])]
                raise StackError("\n".join([f"Dagster cannot load {entry['name']}:", *messages]))

    def prepare(self) -> None:
        """Create the folders and dagster.yaml; raises StackError if a port is in use."""
        for port in (self.webserver, self.mlflow, self.code, self.s3):
            if listens(port):
                raise StackError(f"port {port} is in use; is `make ui` running?")
        self.home.chmod(0o711)  # Postgres may run as another user
        for name in ("dagster", "logs", "postgres"):
            (self.home / name).mkdir()
        text = settings(postgres=True)
        (self.home / "dagster" / "dagster.yaml").write_text(text, encoding="utf-8")


@contextmanager
def running(stack: Stack) -> Iterator[Processes]:
    """Start all services; they are stopped at the end of the block."""
    stack.prepare()
    postgres = Postgres(stack.home / "postgres")
    processes = Processes(stack.root, stack.home / "logs")
    try:
        postgres.initialise()
        processes.start(postgres.service())
        for name in ("dagster", "mlflow"):
            postgres.create(name)
        processes.start(stack.s3_service())
        create_bucket(BUCKET, stack.s3_env())
        for service in (stack.mlflow_service(postgres), *stack.dagster_services(postgres)):
            processes.start(service)
        stack.check_definitions()
        yield processes
    finally:
        processes.stop()


@contextmanager
def new_home() -> Iterator[Path]:
    """A temporary folder in the system's default place, which is accessible to every user."""
    with tempfile.TemporaryDirectory(prefix="llmsrec-stack-") as folder:
        yield Path(folder)


def _module(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore SIGINT
        signal.signal(number, _interrupt)
    try:
        with new_home() as home:
            stack = Stack(ROOT, home, webserver=3000, mlflow=5000)
            print(f"starting; the services write to {home}/logs", flush=True)
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
