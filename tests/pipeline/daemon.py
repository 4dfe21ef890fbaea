"""Dagster's daemon as a real process, with the settings of infra/dagster.yaml."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def daemon(project: Path, env: Mapping[str, str], log: Path) -> Iterator[None]:
    """Runs the project's definitions until the block ends; `env` has a DAGSTER_HOME that does not exist yet."""
    home = Path(env["DAGSTER_HOME"])
    home.mkdir(parents=True)
    shutil.copyfile(project / "infra/dagster.yaml", home / "dagster.yaml")
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "orchestration.definitions"]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=project, env=env, stdout=output, stderr=output)
    try:
        yield
        process.send_signal(signal.SIGINT)
        process.wait(240)
    finally:
        process.kill()
        process.wait()
