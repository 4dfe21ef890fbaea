"""A private Postgres server on localhost, with a database and a role for each name."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.processes import HOST, Service, StackError, free_port

DEBIAN = "/usr/lib/postgresql"  # where Debian installs the server's programs, outside of the PATH


def find_program(name: str) -> str | None:
    """The path of a program of the server, the newest version if there are several; None if there is none."""
    packaged = sorted(
        Path(DEBIAN).glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]), reverse=True
    )
    return shutil.which(name) or next((str(path) for path in packaged), None)


def server_account() -> str | None:
    """The user to run the server as if this process is root, which Postgres refuses; None otherwise."""
    if os.geteuid() != 0:
        return None
    known = {user.pw_name for user in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    raise StackError("Postgres does not run as root, and there is no user `postgres` or `nobody`")


@dataclass(frozen=True)
class Postgres:
    """A new cluster in `folder`, which is empty and accessible to every user."""

    folder: Path
    port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def initialise(self) -> None:
        """Create the cluster; every connection requires the password. Raises StackError."""
        initdb, user = find_program("initdb"), server_account()
        if initdb is None:
            raise StackError(
                "Postgres is not installed: Debian's package `postgresql` provides `initdb` and `postgres`"
            )
        with tempfile.NamedTemporaryFile("w", prefix="password-") as file:
            file.write(f"{self.password}\n")
            file.flush()
            if user is not None:
                shutil.chown(self.folder, user)
                shutil.chown(file.name, user)
            done = subprocess.run(
                [initdb, "--pgdata", str(self.folder), "--username", "postgres", "--auth", "scram-sha-256",
                 "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--pwfile", file.name],
                text=True, capture_output=True, cwd="/",
                user=user, group=user, extra_groups=[] if user else None,
            )  # fmt: skip
        if done.returncode:
            raise StackError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def service(self) -> Service:
        """The server process, after `initialise`."""
        postgres = find_program("postgres")
        assert postgres is not None, "initdb is installed"
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",  # the data are deleted at the end anyway
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [postgres, "-D", str(self.folder), *options]
        return Service("postgres", command, self.is_ready, account=server_account())

    def is_ready(self) -> bool:
        """Whether the server accepts connections."""
        import psycopg2

        try:
            self._connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def create(self, name: str) -> None:
        """Create a database and its owner, both called `name`, with the password of the cluster."""
        from psycopg2 import sql

        owner, password = sql.Identifier(name), sql.Literal(self.password)
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(owner, password))
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(owner, owner))

    def url(self, name: str) -> str:
        """The URL of a database; it names the driver, since SQLAlchemy 2.1 has another default."""
        return f"postgresql+psycopg2://{name}:{self.password}@{HOST}:{self.port}/{name}"

    def _connect(self) -> Any:
        import psycopg2

        return psycopg2.connect(
            host=HOST, port=self.port, user="postgres", password=self.password, dbname="postgres"
        )
