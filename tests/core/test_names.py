"""Names of datasets are refused in one line where a file of settings is read, before a folder or a command has them."""

from pathlib import Path

import pytest

from llmsrec.core.config import load_section, read_document, read_section
from llmsrec.core.errors import ConfigError
from llmsrec.core.names import name_option
from llmsrec.serving.promotion import PromotionConfig
from llmsrec.stages import download

RULE = "expected letters (a to z), digits, '_' and '-', at most 100, first a letter or a digit"
NO_TEXT = "which YAML does not read as a text"


def refused(folder: Path, text: str) -> str:
    file = folder / "params.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_document(file)
    assert str(caught.value).startswith(f"{file}")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{file}")


@pytest.mark.parametrize("key", ["2023", "on", "yes", "1.5", "2023-01-01", "null", "0x1F"])
def test_a_name_that_yaml_does_not_read_as_text_must_be_quoted(tmp_path: Path, key: str) -> None:
    for section in ("datasets", "inbox", "schedules"):
        said = refused(tmp_path, f"{section}: {{{key}: sample}}\n")
        assert said.startswith(f": {section} has the name ")
        assert NO_TEXT in said
        assert "write the name in quotes, or rename it" in said
    assert NO_TEXT in refused(tmp_path, f"pipeline: {{datasets: [{key}], studies: []}}\n")
    file = tmp_path / "params.yaml"
    file.write_text(f'datasets: {{"{key}": sample}}\n')
    if "." not in key:
        assert read_section("datasets", file) == {key: "sample"}


@pytest.mark.parametrize(
    "name",
    [
        "my shop", "Home & Kitchen", "x@y", "Men's", "a/b", "..", "../a", "/a", ".a", "-a", "_a", "a.b", "a$b", "a`b`",
        'a"b', "a;b", "a|b", "a:b", "a=b", "a%20b", "a?b", "a*", "B\u00fccher", "a\u200b", "", " ", "a ", "a\n",
        "a" * 101,
    ],
)  # fmt: skip
def test_a_name_unsafe_in_paths_or_commands_is_refused_with_the_rule(
    tmp_path: Path, name: str
) -> None:
    quoted = "".join(f"\\U{ord(letter):08X}" for letter in name)
    said = refused(tmp_path, f'datasets:\n  "{quoted}": sample\n')
    assert said == f": datasets has the name {name!r}; {RULE}: rename it"
    with pytest.raises(ConfigError, match="the command line has the name"):
        name_option(name)


@pytest.mark.parametrize("name", ["sample", "Home_and_Kitchen", "my-shop-2", "2shops", "a" * 100])
def test_other_names_are_accepted(tmp_path: Path, name: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(f"datasets: {{{name}: sample}}\n")
    assert read_section("datasets", file) == {name: "sample"}
    assert name_option(name) == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("datasets: {shop: a, Shop: b}", "'shop' and 'Shop'; names must differ in more than case"),
        ("datasets: {my-shop: a, my_shop: b}", "'my-shop' and 'my_shop'; names must differ"),
        ("pipeline: {datasets: [a, a], studies: []}", "pipeline.datasets has 'a' and 'a'"),
        ("datasets:\n  a: x\n  a: y", "the key 'a' occurs twice"),
        ("seed: 0\ndatasets: {a: x}\nseed: 1", "the key 'seed' occurs twice"),
        ("datasets: {studies: sample}", "'studies' is a folder in reports/"),
        ("datasets: {meta_shop: sample}", "files with item texts are named 'meta_...'"),
        ("datasets:", "datasets is None; expected a name and a source in each line"),
        ("datasets: {}", "datasets is {}; expected a name and a source"),
        ("datasets: sample", "datasets is 'sample'; expected a name and a source"),
        ("datasets: [sample]", "datasets is ['sample']; expected a name and a source"),
        ("datasets: {a: }", "datasets.a is None; expected a source"),
        ("datasets: {a: 5}", "datasets.a is 5; expected a source"),
        ("datasets: {a: [b]}", "datasets.a is ['b']; expected a source"),
        ("pipeline: {datasets: sample, studies: []}", "pipeline.datasets is 'sample'; expected a"),
        ("pipeline: {datasets: [], studies: [a b]}", "pipeline.studies has the name 'a b'"),
    ],
)
def test_duplicate_names_and_invalid_lists_are_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    assert said in refused(tmp_path, text)


def test_every_section_of_a_file_with_a_wrong_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a stage reads, it stops before it writes below that name."""
    monkeypatch.chdir(tmp_path)
    text = "promotion: {margin: 0.1, gates: all}\n"
    (tmp_path / "params.yaml").write_text(text + "datasets: {my shop: sample}\n")
    with pytest.raises(ConfigError, match="'my shop'"):
        load_section(PromotionConfig, "promotion")
    with pytest.raises(ConfigError, match="'my shop'"):
        download.main(["--dataset", "shop", "--out", "data/shop"])
    assert not (tmp_path / "data").exists()
