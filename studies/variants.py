"""Variants: systems with the settings of studies/params.yaml, and what a hybrid adds."""

from dataclasses import dataclass

from llmsrec.core.errors import ConfigError
from llmsrec.systems.hybrid import Hybrid
from llmsrec.systems.registry import system_of
from llmsrec.systems.system import System
from studies.config import STUDIES, Run, Settings


@dataclass(frozen=True)
class Variant:
    """A system with its settings; `backbone` is the folder of its language model beside the splits."""

    system: System
    backbone: str


def variant_of(name: str, settings: Settings) -> Variant:
    """An entry of the section `systems`: `system` says which system it changes; without it, that of the same name.

    Raises ConfigError for an unknown variant or system, for a wrong setting and for a part that cannot be added."""
    values = settings.entry("systems", name)
    system, backbone = values.pop("system", name), values.pop("backbone", "backbone")
    where = f"{STUDIES}: systems.{name}"
    made = system_of(system, values, settings.section, where)
    for part in made.parts if isinstance(made, Hybrid) else ():
        entry = settings.entry("systems", part)
        if "parts" in entry or entry.get("mode") == "generation":
            raise ConfigError(f"{where}: '{part}' is a hybrid or writes titles; parts must rank")
    return Variant(made, backbone)


def parts_of(run: Run, settings: Settings) -> dict[str, Run]:
    """The runs whose models a hybrid adds, by name; none for another system.

    They have its order and seed; a variant that is named again has the next seed."""
    system = variant_of(run.system, settings).system
    names = system.parts if isinstance(system, Hybrid) else ()
    runs = {}
    for place, name in enumerate(names):
        repeat = names[:place].count(name)
        label = f"{name} (seed {run.seed + repeat})" if repeat else name
        runs[label] = Run(name, run.order, run.seed + repeat)
    return runs
