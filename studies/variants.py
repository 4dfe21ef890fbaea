"""The variants of studies/params.yaml as systems."""

from dataclasses import dataclass

from llmsrec.systems.registry import system_of
from llmsrec.systems.system import System
from studies.config import STUDIES, Settings


@dataclass(frozen=True)
class Variant:
    """A system with its settings; `backbone` is the folder of its language model beside the splits."""

    system: System
    backbone: str


def variant_of(name: str, settings: Settings) -> Variant:
    """An entry of the section `systems`: `system` says which system it changes; without it, that of the same name.

    Raises ConfigError for an unknown variant or system and for a wrong setting."""
    values = settings.entry("systems", name)
    system, backbone = values.pop("system", name), values.pop("backbone", "backbone")
    where = f"{STUDIES}: systems.{name}"
    return Variant(system_of(system, values, settings.section, where), backbone)
