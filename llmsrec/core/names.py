"""Names of datasets: each is a folder, a word of a shell command, and part of names in DVC, Dagster and MLflow."""

import re
from collections.abc import Iterable
from typing import Any

from llmsrec.core.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
RULE = "letters (a to z), digits, '_' and '-', at most 100, first a letter or a digit"
STUDIES = "studies"  # a folder in reports/
METADATA = "meta_"  # the prefix of files with item texts


def check_document(document: dict[Any, Any], file: str) -> None:
    """Raise ConfigError for a wrong name of a dataset in params.yaml, operations.yaml or studies/params.yaml."""
    if "datasets" in document:
        _check_sources(document["datasets"], f"{file}: datasets")
    for section in ("inbox", "schedules"):
        if isinstance(document.get(section), dict):
            check_names(document[section], f"{file}: {section}")
    pipeline = document.get("pipeline")
    if not isinstance(pipeline, dict):
        return
    for key in ("datasets", "studies"):
        names = pipeline.get(key)
        if not isinstance(names, list):
            raise ConfigError(f"{file}: pipeline.{key} is {names!r:.100}; expected a list of names")
        check_names(names, f"{file}: pipeline.{key}")


def _check_sources(datasets: Any, where: str) -> None:
    if not isinstance(datasets, dict) or not datasets:
        raise ConfigError(
            f"{where} is {datasets!r:.100}; expected a name and a source in each line, such as `sample: sample`"
        )
    check_names(datasets, where)
    for name, source in datasets.items():
        if not isinstance(source, str) or not source.strip():
            raise ConfigError(
                f"{where}.{name} is {source!r:.100}; expected a source: sample, amazon, amazon-5core, a folder, "
                "https://... or s3://..."
            )


def check_names(names: Iterable[Any], where: str) -> None:
    """Raise ConfigError for a name that breaks the rule, or for two that are one name.

    Some file systems do not distinguish upper and lower case; Dagster's schedules do not distinguish `-` and `_`."""
    known: dict[str, str] = {}
    for name in names:
        check_name(name, where)
        key = name.casefold().replace("-", "_")
        if key in known:
            raise ConfigError(
                f"{where} has '{known[key]}' and '{name}'; names must differ in more than case, '-' and '_'"
            )
        known[key] = name


def check_name(name: Any, where: str) -> str:
    """The name; raises ConfigError with the rule if it breaks it."""
    if not isinstance(name, str):
        raise ConfigError(
            f"{where} has the name {name!r:.100}, which YAML does not read as a text (2023 is a number; on, off, yes "
            "and no are true or false): write the name in quotes, or rename it"
        )
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where} has the name {name!r:.200}; expected {RULE}: rename it")
    if name == STUDIES or name.startswith(METADATA):
        raise ConfigError(
            f"{where} has the name '{name}'; '{STUDIES}' is a folder in reports/, and files with item texts are named "
            f"'{METADATA}...': rename it"
        )
    return name


def name_option(text: str) -> str:
    """The value of a command's option such as --dataset; raises ConfigError if it cannot be a name."""
    return check_name(text, "the command line")
