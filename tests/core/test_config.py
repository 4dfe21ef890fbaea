"""A section of params.yaml becomes a complete, typed dataclass, or one line that names the key."""

from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from llmsrec.arrivals.inbox import InboxConfig, inbox_configs
from llmsrec.core.config import Count, Share, from_mapping, load_section, read_section
from llmsrec.core.errors import ConfigError
from reliability.fuzzing.settings import SECTIONS, file_of

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "studies/presets").glob("*.yaml"))


@dataclass(frozen=True)
class Knobs:
    count: int
    rate: float
    name: str
    flag: bool
    day: date
    mode: Literal["fast", "slow"]
    limit: int | None
    share: float | None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")


TEXT = """
knobs:
  count: 3
  rate: 1e-4
  name: small
  flag: true
  day: "1995-07-16"
  mode: slow
  limit: null
  share: null
"""
GOOD: dict[str, Any] = yaml.safe_load(TEXT)["knobs"]


def knobs(**changes: Any) -> Knobs:
    return from_mapping(Knobs, {**GOOD, **changes}, where="params.yaml: knobs")


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        knobs(**changes)
    return str(caught.value)


def written(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


def test_a_section_becomes_its_dataclass(tmp_path: Path) -> None:
    found = load_section(Knobs, "knobs", written(tmp_path, TEXT))
    assert found == Knobs(3, 0.0001, "small", True, date(1995, 7, 16), "slow", None, None)


def test_one_e_minus_four_is_read_as_a_number() -> None:
    assert yaml.safe_load("1e-4") == "1e-4"
    assert knobs(rate="1e-4").rate == 0.0001


def test_an_integer_is_accepted_as_a_float() -> None:
    found = knobs(rate=2, share=1)
    assert (found.rate, found.share) == (2.0, 1.0)
    assert type(found.rate) is type(found.share) is float


def test_a_date_may_be_quoted_or_not() -> None:
    assert knobs(day="2035-01-01").day == knobs(day=date(2035, 1, 1)).day == date(2035, 1, 1)


def test_an_option_may_be_null_or_a_value() -> None:
    assert (knobs(limit=None).limit, knobs(limit=7).limit, knobs(share="1e-2").share) == (
        None,
        7,
        0.01,
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("count", "3", "a whole number"),
        ("count", 2.5, "a whole number"),
        ("count", True, "a whole number"),
        ("count", None, "a whole number"),
        ("rate", "fast", "a number"),
        ("rate", True, "a number"),
        ("rate", None, "a number"),
        ("name", 5, "a text"),
        ("name", None, "a text"),
        ("name", "half \ud800 of a pair", "a text"),
        ("flag", 1, "true or false"),
        ("flag", "yes", "true or false"),
        ("day", "yesterday", "a date"),
        ("day", 19950716, "a date"),
        ("day", datetime(1995, 7, 16, 12, 30), "a date"),
        ("limit", "ten", "a whole number"),
        ("limit", [1], "a whole number"),
        ("share", "half", "a number"),
    ],
    ids=ascii,
)
def test_a_wrong_type_is_refused_with_key_value_and_what_is_expected(
    key: str, value: Any, expected: str
) -> None:
    assert refusal(**{key: value}).startswith(
        f"params.yaml: knobs.{key} is {value!r}; expected {expected}"
    )


def test_a_number_beyond_the_range_of_floats_is_refused() -> None:
    assert refusal(rate=10**400).endswith("; expected a number")


@pytest.mark.parametrize("key", ["name", "day", "mode", "flag"])
def test_a_long_value_is_shortened_in_the_message(key: str) -> None:
    much: list[Any] = ["x"] * 10
    for _ in range(8):
        much = [much] * 10
    for value in (16**5000, much, {"a": much}, "x" * 5000):
        if key != "name" or not isinstance(value, str):
            assert len(refusal(**{key: value})) < 700


def test_an_unknown_key_may_be_a_long_number() -> None:
    with pytest.raises(ConfigError, match=r"^here\.a number of .* digits is unknown"):
        from_mapping(Knobs, {**GOOD, 16**5000: 1}, where="here")


def test_the_error_for_a_bad_choice_lists_the_choices() -> None:
    assert refusal(mode="medium") == ("params.yaml: knobs.mode is 'medium'; choose from fast, slow")


def test_the_error_for_an_unknown_key_lists_the_known_ones() -> None:
    said = refusal(counts=3)
    assert said.startswith("params.yaml: knobs.counts is unknown; known keys: count, rate, name")


@pytest.mark.parametrize("key", [field.name for field in fields(Knobs)])
def test_every_key_is_required(key: str) -> None:
    values = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(ConfigError, match=rf"^here\.{key} is missing"):
        from_mapping(Knobs, values, where="here")


def test_an_error_in_post_init_names_the_section() -> None:
    assert refusal(count=-1) == "params.yaml: knobs: count must not be negative"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("knobs: [unclosed", "is not YAML"),
        ("other: {}", "has no section 'knobs:'"),
        ("knobs:", "has no section 'knobs:'"),
        ("knobs: 3", "has no section 'knobs:'"),
        ("", "has no section 'knobs:'"),
        ("- a list", "has no section 'knobs:'"),
        ("knobs: \udcff", "is not YAML"),
        ("knobs: 2001-99-99", "is not YAML: month must be in 1..12"),
        ("knobs: !!int x", "is not YAML"),
        ("knobs: !!int", "is not YAML"),
        ("knobs: !!bool x", "is not YAML"),
        ("knobs: !!timestamp x", "is not YAML"),
        ("knobs: " + "9" * 5000, "is not YAML"),
        ("knobs: " + "[" * 1000, "is not YAML"),
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_the_error_names_a_broken_file(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_section(Knobs, "knobs", path)
    assert str(caught.value).startswith(f"{path} {said}")
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Listed:
    names: tuple[str, ...]
    sizes: tuple[Count, ...]


def test_a_list_is_read_part_by_part() -> None:
    found = from_mapping(Listed, {"names": ["a", "b"], "sizes": []}, "here")
    assert found == Listed(("a", "b"), ())
    for values, said in (
        ({"names": "a", "sizes": []}, r"here\.names is 'a'; expected a list"),
        ({"names": ["a", 3], "sizes": []}, r"here\.names\[1\] is 3; expected a text"),
        ({"names": [], "sizes": [2, 0]}, r"here\.sizes\[1\] is 0; it must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            from_mapping(Listed, values, "here")


def test_the_error_for_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist: run from the project's root"):
        load_section(Knobs, "knobs", tmp_path / "params.yaml")


def test_the_two_files_hold_the_sections_that_are_read_and_no_other() -> None:
    params, operations = (
        yaml.safe_load((ROOT / name).read_text()) for name in ("params.yaml", "operations.yaml")
    )
    assert {*params, *operations} == {
        "datasets",
        "seed",
        "inbox",
        "schedules",
        *SECTIONS,
    }
    assert params.keys() & operations.keys() == set()
    for section in ("inbox", "schedules"):
        assert operations[section].keys() <= params["datasets"].keys()


def test_params_yaml_is_short() -> None:
    text = (ROOT / "params.yaml").read_text()
    assert len(text.splitlines()) <= 120


def leaves(document: dict[str, Any], *path: str) -> set[str]:
    """Dotted keys; the names of datasets are theirs and no keys."""
    found: set[str] = set()
    for key, value in document.items():
        inner = value if isinstance(value, dict) and key != "datasets" else {}
        if path in (("inbox",), ("schedules",)):
            found |= {f"{path[0]}.{name}" for name in value}
        else:
            found |= leaves(inner, *path, key) if inner else {".".join([*path, key])}
    return found


def test_every_key_is_in_the_reference() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    keys = leaves(params)
    keys |= leaves(yaml.safe_load((ROOT / "operations.yaml").read_text()))
    rows, section = [], ""
    for line in (ROOT / "docs/parameters.md").read_text().splitlines():
        if line.startswith("#"):
            section = line.removeprefix("### ") + "." if line.startswith("### ") else ""
        elif line.startswith("| `"):
            rows.append(section + line.split("`")[1])
    assert sorted(rows) == sorted(keys)


def test_the_models_share_one_seed(tmp_path: Path) -> None:
    path = written(tmp_path, "seed: 3\nteacher: {epochs: 2}\nsplits: {epochs: 2}\n")
    assert read_section("teacher", path) == {"epochs": 2, "seed": 3}
    assert read_section("splits", path) == {"epochs": 2}
    for text in ("teacher: {}\n", "seed: 3\nteacher: {seed: 3}\n"):
        with pytest.raises(ConfigError, match="read from the top-level key 'seed'"):
            read_section("teacher", written(tmp_path, text))


def test_the_sample_dataset_has_an_inbox() -> None:
    found = inbox_configs(ROOT / "operations.yaml")
    assert found["sample"] == InboxConfig("inbox/sample", 30, False)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{source: 3, settled_seconds: 0, push: false}", "inbox.north.source is 3; expected"),
        ("{source: null, settled_seconds: -1, push: false}", "must be at least 0"),
        ("{source: null, push: false}", "inbox.north.settled_seconds is missing"),
        ("here", "inbox.north is 'here'; expected source, settled_seconds, push"),
    ],
)
def test_the_error_names_a_wrong_inbox(tmp_path: Path, entry: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        inbox_configs(written(tmp_path, f"inbox:\n  north: {entry}\n"))
    assert said in str(caught.value)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_params_loads_with_the_values_it_states(section: str) -> None:
    stated = read_section(section, file_of(section))
    found = asdict(load_section(SECTIONS[section], section, file_of(section)))
    for name, value in found.items():
        if isinstance(value, date):
            assert value == date.fromisoformat(stated[name])
        else:
            assert (list(value) if isinstance(value, tuple) else value) == stated[name]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda file: file.stem)
def test_every_section_of_a_preset_loads(preset: Path) -> None:
    changed = yaml.safe_load(preset.read_text())
    changed.pop("systems", None)  # of studies/params.yaml: test_presets.py makes all of them
    assert changed.keys() <= SECTIONS.keys()
    for section, values in changed.items():
        found = from_mapping(
            SECTIONS[section],
            {**read_section(section, ROOT / "params.yaml"), **values},
            preset.name,
        )
        assert {name: getattr(found, name) for name in values} == values


@dataclass(frozen=True)
class Ranges:
    size: Count
    part: Share
    some: Count | None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "here.size is 0; it must be at least 1"),
        ({"some": -3}, "here.some is -3; it must be at least 1"),
        ({"part": 1.5}, "here.part is 1.5; it must be at most 1"),
        ({"part": float("nan")}, "here.part is nan; it must be at most 1"),
        ({"size": 2.5}, "here.size is 2.5; expected a whole number"),
    ],
)
def test_the_error_names_a_number_out_of_range(changes: dict[str, Any], message: str) -> None:
    good = {"size": 1, "part": 1, "some": None}
    assert from_mapping(Ranges, good, "here") == Ranges(1, 1.0, None)
    with pytest.raises(ConfigError) as caught:
        from_mapping(Ranges, good | changes, "here")
    assert str(caught.value) == message


@pytest.mark.parametrize("section", ["teacher", "student"])
def test_a_batch_size_of_zero_is_refused(section: str) -> None:
    values = read_section(section, ROOT / "params.yaml")
    with pytest.raises(ConfigError, match=f"{section}.batch_size is 0"):
        from_mapping(SECTIONS[section], values | {"batch_size": 0}, section)
