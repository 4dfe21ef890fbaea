"""Presets: sets of parameters written into params.yaml and studies/params.yaml; comments and datasets stay.

The values that a preset replaces are stored in studies/presets/default.yaml. The next preset starts from them, and
`default` writes them back.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from llmsrec.core.config import read_document
from llmsrec.core.errors import ConfigError
from llmsrec.core.files import atomic_write

FILES = (Path("params.yaml"), Path("studies/params.yaml"))
FOLDER = Path("studies/presets")
DEFAULT = "default"


class _Representer(RoundTripRepresenter):
    """Writes null as `null`, where ruamel would leave a gap."""


_Representer.add_representer(
    type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
)


def names() -> list[str]:
    """The presets by name; `default` is one of them."""
    return sorted({DEFAULT, *(file.stem for file in FOLDER.glob("*.yaml"))})


def apply(name: str) -> list[str]:
    """Write a preset into the parameter files. Returns each change as `key: old -> new`.

    Raises ConfigError for an unknown preset, an unknown parameter and a missing file; then nothing is written."""
    if name not in names():
        raise ConfigError(f"there is no preset '{name}'; there are: {', '.join(names())}")
    default = FOLDER / f"{DEFAULT}.yaml"
    replaced = _read(default) if default.exists() else {}
    preset = _overlay(replaced, {} if name == DEFAULT else _read(FOLDER / f"{name}.yaml"))
    documents = {file: _read(file) for file in FILES}
    changes: list[str] = []
    for section, values in preset.items():
        owner = next((doc for doc in documents.values() if section in doc), documents[FILES[0]])
        changes += _merge(owner, {section: values}, replaced, ())
    if name == DEFAULT:
        default.unlink(missing_ok=True)
    elif changes:
        documents[default] = replaced
    for file, document in documents.items():
        if changes:
            _write(file, document)
    return changes


def _overlay(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """`values` with those of `others` in their place, section by section."""
    nested = {
        key: _overlay(values.get(key, {}), value) if isinstance(value, dict) else value
        for key, value in others.items()
    }
    return {**values, **nested}


def _merge(
    document: Any, preset: dict[str, Any], replaced: dict[str, Any], path: Sequence[str]
) -> list[str]:
    """Write the preset into the document; the first value that was replaced of each key goes to `replaced`."""
    changes = []
    for key, value in preset.items():
        name = ".".join((*path, key))
        if key not in document:
            raise ConfigError(f"no parameter file has '{name}', which the preset sets")
        if isinstance(value, dict):
            stored = replaced.setdefault(key, {})
            changes += _merge(document[key], value, stored, (*path, key))
            if not stored:
                del replaced[key]
        elif document[key] != value:
            changes.append(f"{name}: {_shown(document[key])} -> {_shown(value)}")
            replaced.setdefault(key, document[key])
            document[key] = value
    return changes


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes, yaml.width, yaml.Representer = True, 4096, _Representer
    return yaml


def _read(file: Path) -> Any:
    read_document(file)  # raises ConfigError for what is no YAML
    return _yaml().load(file.read_text(encoding="utf-8"))


def _write(file: Path, document: Any) -> None:
    with atomic_write(file) as partial, partial.open("w", encoding="utf-8") as opened:
        _yaml().dump(document, opened)


def _shown(value: Any) -> str:
    """As YAML spells it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
