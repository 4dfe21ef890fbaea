"""One system of a store, asked for by the pipeline in comparison/."""

from pathlib import Path

import pytest

from llmsrec.core.errors import ConfigError
from llmsrec.stages import train_system
from tests.comparison.conftest import project, store  # noqa: F401 (fixtures)

ARGUMENTS = "--system {} --artifacts artifacts/tiny --scratch scratch/tiny"


def test_a_system_leaves_its_weights_and_what_was_found_of_each_user(
    project: Path,  # noqa: F811
) -> None:
    train_system.main(ARGUMENTS.format("popularity").split())
    folder = project / "artifacts/tiny/systems/popularity/retrieval-original-0"
    assert (folder / "model.safetensors").exists()
    assert (folder / "outcome" / "values.safetensors").exists()


def test_a_system_that_is_not_there_is_named(project: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="no system 'deep'"):
        train_system.main(ARGUMENTS.format("deep").split())
    assert not (project / "artifacts/tiny/systems").exists()


def test_without_params_it_says_where_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="run from the project's root"):
        train_system.main(ARGUMENTS.format("popularity").split())
