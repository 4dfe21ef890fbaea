"""Presets: whole sets of knobs, written into params.yaml with its comments and its datasets kept."""

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from llmsrec.core.errors import ConfigError
from llmsrec.core.files import atomic_write


class _Representer(RoundTripRepresenter):
    """Writes null as `null`, where ruamel would leave a gap."""


_Representer.add_representer(
    type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
)


def names(folder: Path = Path("presets")) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def apply(
    name: str, params: Path = Path("params.yaml"), folder: Path = Path("presets")
) -> list[str]:
    """Write a preset into params.yaml; returns the knobs that changed, old -> new."""
    if name not in names(folder):
        raise ConfigError(f"there is no preset '{name}'; there are: {', '.join(names(folder))}")
    yaml = YAML()
    yaml.preserve_quotes, yaml.width, yaml.Representer = True, 200, _Representer
    preset = YAML(typ="safe").load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    try:
        document = yaml.load(params.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{params} does not exist: run from the project's root") from None
    changed = _merge(document, preset, "")
    with atomic_write(params) as aside, aside.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
    return changed


def _merge(document: Any, preset: dict[str, Any], where: str) -> list[str]:
    changed = []
    for key, value in preset.items():
        path = f"{where}{key}"
        if key not in document:
            raise ConfigError(f"params.yaml has no '{path}', which the preset sets")
        if isinstance(value, dict):
            changed += _merge(document[key], value, f"{path}.")
        elif document[key] != value:
            changed.append(f"{path}: {_shown(document[key])} -> {_shown(value)}")
            document[key] = value
    return changed


def _shown(value: Any) -> str:
    """As YAML spells it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
