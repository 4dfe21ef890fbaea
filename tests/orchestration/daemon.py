"""Dagster's daemon as a real process, with the settings of infra/dagster.yaml."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


@contextmanager
def daemon(project: Path, env: Mapping[str, str], log: Path, *definitions: str) -> Iterator[None]:
    """It runs until the block ends; `definitions` says where they are, `env` has DAGSTER_HOME."""
    home = Path(env["DAGSTER_HOME"])
    home.mkdir(parents=True)
    shutil.copyfile(CHECKOUT / "infra/dagster.yaml", home / "dagster.yaml")
    command = [sys.executable, "-m", "dagster._daemon", "run", *definitions]
    with log.open("w") as said:
        process = subprocess.Popen(command, cwd=project, env=env, stdout=said, stderr=said)
    try:
        yield
        process.send_signal(signal.SIGINT)
        process.wait(240)
    finally:
        process.kill()
        process.wait()
