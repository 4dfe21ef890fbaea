"""A preset changes the parameters that it names, reports them, and leaves all else of the files as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from llmsrec import presets
from llmsrec.core.errors import ConfigError
from llmsrec.sequential.network import SequenceTraining
from studies.config import Settings
from studies.variants import variant_of

ROOT = Path(__file__).parents[1]
FILES = (
    "params.yaml",
    "studies/params.yaml",
    "studies/presets/paper.yaml",
    "studies/presets/esasrec.yaml",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's parameters and presets, with a dataset of one's own."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    text = (tmp_path / "params.yaml").read_text()
    assert "  sample: sample\n" in text
    own = "  sample: sample\n  mine: /data/mine   # bought in May\n"
    (tmp_path / "params.yaml").write_text(text.replace("  sample: sample\n", own))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parts(where: str, value: object) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict) or not value:
        yield where, value
        return
    for key, inner in value.items():
        yield from parts(f"{where}.{key}" if where else key, inner)


def flat(*files: str) -> dict[str, object]:
    return {
        key: value
        for file in files
        for key, value in parts("", yaml.safe_load(Path(file).read_text()))
    }


@pytest.mark.usefixtures("project")
def test_a_preset_sets_what_it_names_and_reports_what_changed() -> None:
    assert presets.names() == ["default", "esasrec", "paper"]
    before, wanted = flat(*FILES[:2]), flat(FILES[2])
    reported = [line.split(":")[0] for line in presets.apply("paper")]
    after = flat(*FILES[:2])
    same = {"systems.allmrec_generation.alignment.text_encoder"}  # an alias of that of allmrec
    changed = [key for key in before if before[key] != after[key]]
    assert sorted(reported) == sorted(set(changed) - same)
    assert {key: after[key] for key in wanted} == wanted


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("file", FILES[2:])
def test_a_preset_does_not_repeat_the_default(file: str) -> None:
    before, wanted = flat(*FILES[:2]), flat(file)
    assert [key for key, value in wanted.items() if before[key] == value] == []


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", ["default", "esasrec", "paper"])
def test_the_settings_of_every_variant_suit_a_preset(name: str) -> None:
    presets.apply(name)
    for variant in Settings().section("systems"):
        variant_of(variant, Settings())


LAST_EPOCH = {
    "sasrec",
    "sasrec_paper",
}  # the paper's SASRec keeps its last epoch (specification 4.1)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", ["default", "esasrec", "paper"])
def test_every_rival_uses_its_patience(name: str) -> None:
    """It selects its best epoch, and stops before the last one if there is nothing more to gain."""
    presets.apply(name)
    trainings = {}
    for variant in Settings().section("systems"):
        config = getattr(variant_of(variant, Settings()).system, "config", None)
        if isinstance(config, SequenceTraining) and variant not in LAST_EPOCH:
            trainings[variant] = config
    assert {"gru4rec", "nextitnet", "bert4rec", "gsasrec", "esasrec"} <= trainings.keys()
    for variant, config in trainings.items():
        assert config.keep_best, variant
        assert config.patience * config.validate_every < config.epochs, variant


@pytest.mark.usefixtures("project")
def test_the_default_writes_the_replaced_values_back() -> None:
    """Also those of one's own; and after several presets the first values."""
    before = {file: yaml.safe_load(Path(file).read_text()) for file in FILES[:2]}
    assert presets.apply("default") == []
    presets.apply("paper")
    Path("studies/presets/short.yaml").write_text("teacher: {epochs: 1, norm: post}\n")
    presets.apply("short")
    assert "teacher.norm: post -> pre" in presets.apply("default")
    assert {file: yaml.safe_load(Path(file).read_text()) for file in FILES[:2]} == before
    assert not Path("studies/presets/default.yaml").exists()


@pytest.mark.usefixtures("project")
def test_a_preset_replaces_the_one_before() -> None:
    presets.apply("paper")
    alone = [Path(file).read_text() for file in FILES[:2]]
    presets.apply("default")
    presets.apply("esasrec")
    assert "teacher.layers: ligr -> standard" in presets.apply("paper")
    assert [Path(file).read_text() for file in FILES[:2]] == alone
    for variant in Settings().section("systems"):
        variant_of(variant, Settings())


@pytest.mark.usefixtures("project")
def test_only_lines_of_changed_parameters_change_and_they_keep_their_comments() -> None:
    before = [Path(file).read_text().splitlines() for file in FILES[:2]]
    presets.apply("paper")
    after = [Path(file).read_text().splitlines() for file in FILES[:2]]
    for old_lines, new_lines in zip(before, after, strict=True):
        for old, new in zip(old_lines, new_lines, strict=True):
            assert old.split(":")[0] == new.split(":")[0]
            assert old.partition("#")[2] == new.partition("#")[2]


@pytest.mark.usefixtures("project")
def test_values_are_reported_and_written_as_yaml_spells_them() -> None:
    Path("params.yaml").write_text(
        "teacher:\n  norm: pre\n  keep_best: true\n  rate: 0.0003\n  users: null\n  cap: 5\n"
    )
    Path("studies/presets/own.yaml").write_text(
        "teacher: {norm: original, keep_best: false, rate: 0.0001, users: 10000, cap: null}\n"
    )
    assert presets.apply("own") == [
        "teacher.norm: pre -> original",
        "teacher.keep_best: true -> false",
        "teacher.rate: 0.0003 -> 0.0001",
        "teacher.users: null -> 10000",
        "teacher.cap: 5 -> null",
    ]
    assert Path("params.yaml").read_text() == (
        "teacher:\n  norm: original\n  keep_best: false\n  rate: 0.0001\n  users: 10000\n  cap: null\n"
    )


@pytest.mark.usefixtures("project")
def test_a_second_time_changes_nothing() -> None:
    presets.apply("paper")
    once = [Path(file).read_bytes() for file in FILES]
    assert presets.apply("paper") == []
    assert [Path(file).read_bytes() for file in FILES] == once


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best", "no preset 'best'; there are: default, esasrec, odd, paper"),
        ("odd", r"no parameter file has 'teacher\.floors'"),
    ],
)
def test_an_unknown_preset_or_parameter_changes_nothing(name: str, message: str) -> None:
    Path("studies/presets/odd.yaml").write_text(
        "splits: {kcore: single_pass}\nteacher: {floors: 3}\n"
    )
    start = [Path(file).read_text() for file in FILES]
    with pytest.raises(ConfigError, match=message):
        presets.apply(name)
    assert [Path(file).read_text() for file in FILES] == start
    assert not Path("studies/presets/default.yaml").exists()


def test_a_missing_params_file_is_named(project: Path) -> None:
    (project / "params.yaml").unlink()
    with pytest.raises(ConfigError, match=r"params\.yaml does not exist"):
        presets.apply("paper")
