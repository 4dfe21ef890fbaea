"""A Postgres server of our own: a new cluster on localhost with a database, a role and a password for each name."""

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

DEBIAN = "/usr/lib/postgresql"  # keeps the server's programs off the PATH


def program(name: str) -> str | None:
    """Where a program of the server is; the newest where there are several."""
    packaged = sorted(
        Path(DEBIAN).glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]), reverse=True
    )
    return shutil.which(name) or next((str(path) for path in packaged), None)


def account() -> str | None:
    """Whom the server runs as where we are root, which it refuses; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise StackError("Postgres does not run as root, and there is no user `postgres` or `nobody`")


@dataclass(frozen=True)
class Postgres:
    """`folder` is new, empty, and below folders that anybody may enter."""

    folder: Path
    port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def initialise(self) -> None:
        """The cluster; every connection asks for a password."""
        initdb, user = program("initdb"), account()
        if initdb is None:
            raise StackError(
                "no Postgres here: Debian's package `postgresql` brings `initdb` and `postgres`"
            )
        with tempfile.NamedTemporaryFile("w", prefix="password-") as word:
            word.write(f"{self.password}\n")
            word.flush()
            if user is not None:
                shutil.chown(self.folder, user)
                shutil.chown(word.name, user)
            done = subprocess.run(
                [initdb, "--pgdata", str(self.folder), "--username", "postgres", "--auth", "scram-sha-256",
                 "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--pwfile", word.name],
                text=True, capture_output=True, cwd="/",
                user=user, group=user, extra_groups=[] if user else None,
            )  # fmt: skip
        if done.returncode:
            raise StackError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def service(self) -> Service:
        postgres = program("postgres")
        assert postgres is not None, "initdb was there"
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",  # nothing is kept: a crash of the machine loses what would go anyway
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [postgres, "-D", str(self.folder), *options]
        return Service("postgres", command, self.is_ready, account=account())

    def is_ready(self) -> bool:
        import psycopg2

        try:
            self._connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def create(self, name: str) -> None:
        """A database and its owner of the same name, with the same password as ours: nobody else gets in."""
        from psycopg2 import sql

        who, password = sql.Identifier(name), sql.Literal(self.password)
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(who, password))
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(who, who))

    def url(self, name: str) -> str:
        """With the driver by name: SQLAlchemy 2.1 takes another where none is named."""
        return f"postgresql+psycopg2://{name}:{self.password}@{HOST}:{self.port}/{name}"

    def _connect(self) -> Any:
        import psycopg2

        return psycopg2.connect(
            host=HOST, port=self.port, user="postgres", password=self.password, dbname="postgres"
        )
