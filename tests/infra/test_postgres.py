"""What compose.yaml has Postgres run on an empty volume, run against a server of our own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from infra.postgres import Postgres, find_program
from infra.processes import HOST, Processes
from infra.stack import new_home

pytestmark = pytest.mark.skipif(
    not (find_program("initdb") and shutil.which("psql") and find_spec("psycopg2")),
    reason="not here: Postgres (Debian's packages postgresql, postgresql-client), or psycopg2 (pip install '.[stack]')",
)
SCRIPT = Path(__file__).parents[2] / "infra" / "postgres-init.sh"
WORDS = {"dagster": 'it\'s "quoted" $HOME', "mlflow": "another"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    with new_home() as home:
        home.chmod(0o711)
        (home / "postgres").mkdir()
        found = Postgres(home / "postgres")
        found.initialise()
        processes = Processes(tmp_path, tmp_path)
        processes.start(found.service())
        yield found
        processes.stop()


def connects(server: Postgres, user: str, password: str, database: str) -> bool:
    import psycopg2

    try:
        with closing(
            psycopg2.connect(
                host=HOST, port=server.port, user=user, password=password, dbname=database
            )
        ) as connection:
            with connection.cursor() as cursor:
                cursor.execute("CREATE TABLE mine (id int)")
            return True
    except psycopg2.OperationalError:
        return False


def test_each_service_has_a_database_of_its_own(server: Postgres) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "PGHOST": HOST,
        "PGPORT": str(server.port),
        "PGPASSWORD": server.password,
        "POSTGRES_USER": "postgres",
        "DAGSTER_POSTGRES_PASSWORD": WORDS["dagster"],
        "MLFLOW_POSTGRES_PASSWORD": WORDS["mlflow"],
    }
    subprocess.run(["sh", str(SCRIPT)], env=env, check=True)
    for name, other in (("dagster", "mlflow"), ("mlflow", "dagster")):
        assert connects(server, name, WORDS[name], name)
        assert not connects(server, name, WORDS[name], other)
        assert not connects(server, name, "wrong", name)
