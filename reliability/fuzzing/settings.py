"""Sections of params.yaml and operations.yaml: as they are, with odd keys and values, and damaged.

The rule for a section that is accepted: its keys are those of the project's file, its values are those that another
parser of YAML reads, and each has the type of the project's value. A section whose values nobody changed is accepted.
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import yaml

from llmsrec.core.config import OPERATIONS, PARAMS, SEEDED, load_section
from llmsrec.core.errors import ConfigError
from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.llm.backbone import BackboneConfig
from llmsrec.parsing.ingest import InteractionsConfig
from llmsrec.preprocessing.k_core import SplitsConfig
from llmsrec.recommender.fitted import RecommenderConfig
from llmsrec.relational.sql_engine import RelationalConfig
from llmsrec.report.gates import GatesConfig
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.serving.promotion import PromotionConfig
from llmsrec.stages.export_embeddings import EmbeddingsConfig
from llmsrec.stages.pack_bundle import ServingConfig
from llmsrec.stages.recommend_all import RecommendationsConfig
from llmsrec.student.config import StudentConfig
from reliability.fuzzing.mutations import mutate

SECTIONS: dict[str, type[Any]] = {
    "interactions": InteractionsConfig,
    "relational": RelationalConfig,
    "splits": SplitsConfig,
    "teacher": TeacherConfig,
    "backbone": BackboneConfig,
    "student": StudentConfig,
    "recommender": RecommenderConfig,
    "embeddings": EmbeddingsConfig,
    "recommendations": RecommendationsConfig,
    "evaluation": EvaluationConfig,
    "gates": GatesConfig,
    "promotion": PromotionConfig,
    "serving": ServingConfig,
}
# They differ over tabs, byte order marks, half pairs and `[p?]`: there either outcome will do.
READERS = (yaml.CSafeLoader, yaml.SafeLoader)
ROOT = Path(__file__).parents[2]
ODD_SETTINGS = [
    "", "null", "yes", "1", "0", "-1", "1.0", "x", "'1'", "1e-4", ".nan", "nan", ".inf", "-.inf", "9" * 400, "9" * 5000,
    "0x" + "F" * 5000, "017", "1:30", "0b_", "0x_", "._", "2001-02-03", "2001-99-99", "'2001-02-03'", "2001-W05-1",
    "2001-02-03 04:05:06", "2001-02-03 99:05:06", "!!int x", "!!int ''", "!!float x", "!!bool x", "!!timestamp x",
    "!!binary a", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!python/object/apply:os.getcwd []", "!x y",
    "&a [*a]", "*a", "&a {a: *a}", "&a {<<: *a}", "{<<: [1]}", "[1, 2]", "[[1]]", "[null]", "[]", "{a: 1}", "{[a]: 1}",
    "{{a: 1}: 1}", "[" * 100 + "]" * 100, "[" * 500 + "]" * 500, "[1", "\tx", "'x", '"Zoë \\u2028 \\ud800"', '"\\0"',
    "x" * 5000, "|\n    a\n    b",
    "[&a [x, x, x, x], &b [*a, *a, *a, *a], &c [*b, *b, *b, *b], &d [*c, *c, *c], [*d, *d]]",
]  # fmt: skip
ODD_KEYS = ["seeds", "5", "null", "true", "''", "[a]", "? x", "&a b", "<<", "2001-99-99"]


def file_of(section: str) -> Path:
    """The project's file that holds the section."""
    return ROOT / (OPERATIONS if section in ("promotion", "serving") else PARAMS)


def _pairs(section: str) -> list[tuple[str, str]]:
    document = yaml.load(file_of(section).read_text(encoding="utf-8"), yaml.CSafeLoader)
    return [(key, _flow(value)) for key, value in document[section].items()]


def _flow(value: Any) -> str:
    text = yaml.dump(value, Dumper=yaml.CSafeDumper, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


DEFAULTS = {name: load_section(cls, name, file_of(name)) for name, cls in SECTIONS.items()}
TEXTS = {section: _pairs(section) for section in SECTIONS}


def settings_file(draws: Random) -> bytes:
    """A params.yaml of one section."""
    section = draws.choice(list(SECTIONS))
    pairs = TEXTS[section]
    for _ in range(draws.choice([0, 1, 1, 2])):
        pairs = _changed(draws, pairs)
    lines = ["seed: 0"] if section in SEEDED else []
    lines += [f"{section}:", *(f"  {key}: {value}" for key, value in pairs)]
    text = "\n".join([*lines, ""]).encode("utf-8", "surrogatepass")
    return mutate(text, draws) if draws.random() < 0.25 else text


def _changed(draws: Random, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """One value changed (in most cases), or a key missing, unknown or twice, or keys in another order."""
    odd = draws.choice(ODD_SETTINGS)
    if not pairs:
        return [(draws.choice(ODD_KEYS), odd)]
    place = draws.randrange(len(pairs))
    key, rest = pairs[place][0], pairs[:place] + pairs[place + 1 :]
    if draws.random() < 0.6:
        return [*rest[:place], (key, odd), *rest[place:]]
    unknown = (draws.choice(ODD_KEYS), draws.choice(["1", odd]))
    swapped = (key, draws.choice(pairs)[1])
    return draws.choice([
        rest, [*rest, unknown], [*pairs, (key, odd)], draws.sample(pairs, len(pairs)), [*rest, swapped],
    ])  # fmt: skip


def check_settings(content: bytes, folder: Path, counts: Counter[str]) -> Iterator[str]:
    """A section becomes its dataclass, or an error that names the file and, if it got that far, the key."""
    file = folder / "params.yaml"
    file.write_bytes(content)
    named = re.findall(rb"^([a-z]+):", content, re.MULTILINE)
    for section in [name for name in SECTIONS if name.encode() in named] or ["interactions"]:
        stated = [_read(content, section, reader) for reader in READERS]
        try:
            config = vars(load_section(SECTIONS[section], section, file))
        except ConfigError as error:
            counts["rejected"] += 1
            yield from _check_error(str(error), file, section)
            if all(_states(values, vars(DEFAULTS[section])) for values in stated):
                yield f"settings are refused that nobody changed: {error}"
        else:
            counts["accepted"] += 1
            if re.search("[\ud800-\udfff]", str(list(config.values()))):
                yield f"the section {section} contains a lone surrogate"
            typed = _has_types(config, vars(DEFAULTS[section]))
            if not (typed and any(_states(values, config) for values in stated)):
                yield f"the section {section} is accepted, but the rules reject it"


def _check_error(message: str, file: Path, section: str) -> Iterator[str]:
    """An error is short and names file and key."""
    where = f"{file}: {section}"
    if not message.startswith(
        (f"{where}.", f"{where}: ", f"{file} is not YAML", f"{file} has no ")
    ):
        yield f"an error does not name file and key: {message}"
    if len(message) > 2000:
        yield f"an error of {len(message)} characters: {message[:200]}"


def _read(content: bytes, section: str, reader: Any) -> dict[str, Any]:
    """The values of the section as this YAML reader gives them; empty if there are none, or a key occurs twice."""
    try:
        text = content.decode("utf-8")
        if _repeats_a_key(yaml.compose(text, reader)):
            return {}
        document = yaml.load(text, reader)
        values = document[section] if isinstance(document, dict) else None
    except Exception:  # any error: the file holds no settings
        return {}
    if isinstance(values, dict) and section in SEEDED and "seed" in document:
        values = {**values, "seed": document["seed"]}
    return values if isinstance(values, dict) else {}


def _repeats_a_key(root: yaml.Node | None) -> bool:
    """Whether a mapping of the document has a key twice; aliases make a graph of its nodes."""
    waiting, known = [root] if root else [], set()
    while waiting:
        node = waiting.pop()
        if id(node) in known or isinstance(node, yaml.ScalarNode):
            continue
        known.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                return True
        waiting += [
            each for pair in node.value for each in (pair if isinstance(pair, tuple) else [pair])
        ]
    return False


def _states(stated: dict[str, Any], values: dict[str, Any]) -> bool:
    """Whether the file states each of the values, and no other key."""
    return stated.keys() == values.keys() and all(
        same(value, stated[key]) for key, value in values.items()
    )


def _has_types(values: dict[str, Any], usual: dict[str, Any]) -> bool:
    return all(
        value is None or usual[key] is None or type(value) is type(usual[key])
        for key, value in values.items()
    )


def same(value: Any, stated: Any) -> bool:
    """Whether the value of a config is what its file states; there numbers and dates may be texts."""
    try:
        if isinstance(value, tuple):
            return list(value) == stated
        if isinstance(value, date):
            return str(value) == str(stated) or value == date.fromisoformat(stated)
        if isinstance(value, float):
            return repr(value) == repr(float(stated)) and type(stated) is not bool
    except (TypeError, ValueError, OverflowError):
        return False
    return type(value) is type(stated) and value == stated
