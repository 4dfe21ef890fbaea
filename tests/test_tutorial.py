"""Every command of docs/tutorial.md runs, in its order, in a copy of the project with small settings."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.serving import served
from reliability.project import environment, write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
IN_OTHER_WORDS = {  # the targets of the Makefile would install the packages again
    "make setup": "true",
    "source .venv/bin/activate": "true",
    "make run": f"{sys.executable} -m orchestration.run",
}
SERVER = "make serve DATASET=books"
ADDRESS = "http://127.0.0.1:5001"


def blocks(text: str) -> list[tuple[str, str]]:
    """The language and the content of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def change_settings(root: Path, block: str) -> None:
    """Merge a block that begins with `# <file>` into that file; sections with an entry per dataset are replaced."""
    name, document = block.split("\n")[0].removeprefix("# "), yaml.safe_load(block)
    settings: dict[str, Any] = yaml.safe_load((root / name).read_text())
    for section, values in document.items():
        base = {} if section in ("datasets", "inbox", "schedules") else settings[section]
        settings[section] = base | values
    (root / name).write_text(yaml.safe_dump(settings, sort_keys=False))


def shell(root: Path, command: str) -> str:
    command = IN_OTHER_WORDS.get(command, command)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", command], cwd=root, capture_output=True, text=True,
        env=environment(root) | {"PATH": path, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_project(tmp_path / "project", "books", "docs/tutorial")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    printed: list[str] = []
    for language, block in blocks(TUTORIAL.read_text()):
        if language == "yaml":
            change_settings(root, block)
        if language == "python":
            printed.append(subprocess.run([sys.executable, "-c", block], cwd=root, check=True,
                                          capture_output=True, text=True,
                                          env=environment(root) | {"PYTHONPATH": str(root)}).stdout)  # fmt: skip
        if language != "console":
            continue
        for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            if command == SERVER:
                continue  # started for the command that asks it
            if ADDRESS in command:
                monkeypatch.chdir(root)
                with served("models:/llmsrec-books@champion") as url:
                    printed.append(shell(root, command.replace(ADDRESS, url)))
            else:
                printed.append(shell(root, command))
    said = "\n".join(printed)
    assert "user_id,parent_asin,timestamp,title" in said
    assert '"source": "student"' in said, "the server answers from the student"
    assert "champion is version 2, by hand" in said
    assert "champion is version 1 again, version 2 was rolled back" in said
    assert [file.name for file in (root / "inbox/books/done").iterdir()] == ["purchases.csv"]
