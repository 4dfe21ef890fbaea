"""Presets: whole sets of knobs, written into params.yaml with its comments and its datasets kept."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from llmsrec.errors import ConfigError
from llmsrec.files import whole_file


def names(folder: Path = Path("presets")) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def apply(
    name: str, params: Path = Path("params.yaml"), folder: Path = Path("presets")
) -> list[str]:
    """Write a preset into params.yaml; returns the knobs that changed, old -> new."""
    if name not in names(folder):
        raise ConfigError(f"there is no preset '{name}'; there are: {', '.join(names(folder))}")
    yaml = YAML()
    yaml.width = 200
    preset = YAML(typ="safe").load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    document = yaml.load(params.read_text(encoding="utf-8"))
    changed = _merge(document, preset, "")
    with whole_file(params) as aside, aside.open("w", encoding="utf-8") as file:
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
            changed.append(f"{path}: {document[key]} -> {value}")
            document[key] = value
    return changed
