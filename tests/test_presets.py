"""A preset changes the knobs that it names, says which, and leaves all else of params.yaml as it was."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from llmsrec import presets
from llmsrec.core.errors import ConfigError
from llmsrec.systems.registry import GENERATION, RETRIEVAL, system_of

ROOT = Path(__file__).parents[1]
NAMES = ("paper", "strong")


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """The project's params.yaml, with stores of somebody's own."""
    text = (ROOT / "params.yaml").read_text()
    assert "  sample: sample\n" in text
    own = "  sample: sample\n  mine: /data/mine   # bought in May\n"
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("  sample: sample\n", own))
    return path


def apply(name: str, params: Path) -> list[str]:
    return presets.apply(name, params, ROOT / "presets")


def flat(path: Path) -> dict[str, object]:
    def parts(where: str, value: object) -> Iterator[tuple[str, object]]:
        if not isinstance(value, dict) or not value:
            yield where, value
            return
        for key, inner in value.items():
            yield from parts(f"{where}.{key}" if where else key, inner)

    return dict(parts("", yaml.safe_load(path.read_text())))


def test_the_presets_are_listed() -> None:
    assert presets.names(ROOT / "presets") == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_sets_what_it_names_and_says_what_changed(params: Path, name: str) -> None:
    before, wanted = flat(params), flat(ROOT / "presets" / f"{name}.yaml")
    said = apply(name, params)
    assert flat(params) == {**before, **wanted}
    changed = [key for key, value in wanted.items() if before[key] != value]
    assert [line.split(":")[0] for line in said] == changed


@pytest.mark.parametrize("name", NAMES)
def test_every_system_can_be_trained_by_a_preset(params: Path, name: str) -> None:
    """What all language models change of `student` must suit each preset's student."""
    apply(name, params)
    for mode, systems in (("retrieval", RETRIEVAL), ("generation", GENERATION)):
        for system in systems:
            system_of(system, mode, params)  # type: ignore[arg-type]


def test_changes_are_told_and_written_as_yaml_spells_them(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(
        "teacher:\n  norm: pre\n  keep_best: true\n  rate: 0.0003\n  users: null\n  cap: 5\n"
    )
    (tmp_path / "own.yaml").write_text(
        "teacher: {norm: original, keep_best: false, rate: 0.0001, users: 10000, cap: null}\n"
    )
    assert presets.apply("own", params, tmp_path) == [
        "teacher.norm: pre -> original",
        "teacher.keep_best: true -> false",
        "teacher.rate: 0.0003 -> 0.0001",
        "teacher.users: null -> 10000",
        "teacher.cap: 5 -> null",
    ]
    assert params.read_text() == (
        "teacher:\n  norm: original\n  keep_best: false\n  rate: 0.0001\n  users: 10000\n  cap: null\n"
    )


def test_only_lines_of_changed_knobs_change_and_they_keep_their_comments(params: Path) -> None:
    before = params.read_text().splitlines()
    said = apply("paper", params)
    after = params.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == len(said)
    for old, new in changed:
        assert old.split(":")[0] == new.split(":")[0]
        assert old.partition("#")[2] == new.partition("#")[2]


@pytest.mark.parametrize("name", NAMES)
def test_a_second_time_changes_nothing(params: Path, name: str) -> None:
    apply(name, params)
    once = params.read_bytes()
    assert apply(name, params) == []
    assert params.read_bytes() == once


def test_the_project_starts_with_the_strong_preset_and_comes_back_to_it(params: Path) -> None:
    start = params.read_text()
    assert apply("strong", params) == []
    assert params.read_text() == start
    apply("paper", params)
    apply("strong", params)
    assert yaml.safe_load(params.read_text()) == yaml.safe_load(start)


def test_an_unknown_preset_is_told_the_known_ones(params: Path) -> None:
    start = params.read_text()
    with pytest.raises(ConfigError, match="no preset 'best'; there are: paper, strong"):
        apply("best", params)
    assert params.read_text() == start


def test_a_preset_that_names_an_unknown_knob_changes_nothing(params: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "presets", tmp_path / "presets")
    (folder / "odd.yaml").write_text("splits: {kcore: single_pass}\nteacher: {floors: 3}\n")
    start = params.read_text()
    with pytest.raises(ConfigError, match=r"params.yaml has no 'teacher\.floors'"):
        presets.apply("odd", params, folder)
    assert params.read_text() == start


def test_a_missing_params_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml does not exist"):
        apply("paper", tmp_path / "params.yaml")
